#![no_main]
//! See `tollgate_lambda::testing::events`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_lambda::testing::events(data));
