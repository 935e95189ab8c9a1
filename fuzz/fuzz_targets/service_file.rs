//! See `tallygate::testing::untrusted::service_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tallygate::testing::untrusted::service_file(data));
