#![no_main]
//! See `tollgate::testing::untrusted::plan_file`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate::testing::untrusted::plan_file(data));
