#![no_main]
//! See `tollgate::testing::untrusted::headers`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate::testing::untrusted::headers(data));
