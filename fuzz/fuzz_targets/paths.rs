#![no_main]
//! See `tollgate::testing::untrusted::paths`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate::testing::untrusted::paths(data));
