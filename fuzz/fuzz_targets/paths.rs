//! See `tallygate::testing::untrusted::paths`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tallygate::testing::untrusted::paths(data));
