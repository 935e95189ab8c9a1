//! See `tallygate::testing::untrusted::webhook`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tallygate::testing::untrusted::webhook(data));
