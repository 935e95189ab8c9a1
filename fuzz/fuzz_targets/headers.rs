//! See `tollgate::testing::untrusted::headers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate::testing::untrusted::headers(data));
