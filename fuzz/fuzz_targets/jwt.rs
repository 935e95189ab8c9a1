//! See `tallygate::testing::untrusted::jwt`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tallygate::testing::untrusted::jwt(data));
