//! See `tallygate::testing::untrusted::plan_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tallygate::testing::untrusted::plan_file(data));
