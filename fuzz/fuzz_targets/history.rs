//! See `tallygate::testing::untrusted::history`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tallygate::testing::untrusted::history(data));
