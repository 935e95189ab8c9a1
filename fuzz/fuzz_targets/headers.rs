//! See `tallygate::testing::untrusted::headers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tallygate::testing::untrusted::headers(data));
