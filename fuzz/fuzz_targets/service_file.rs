//! See `tollgate::testing::untrusted::service_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate::testing::untrusted::service_file(data));
