//! See `tallygate::testing::untrusted::admin`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tallygate::testing::untrusted::admin(data));
