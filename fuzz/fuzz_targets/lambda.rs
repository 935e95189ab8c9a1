//! See `tallygate_lambda::testing::events`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tallygate_lambda::testing::events(data));
