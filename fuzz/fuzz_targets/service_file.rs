#![no_main]
//! See `tollgate::testing::untrusted::service_file`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate::testing::untrusted::service_file(data));
