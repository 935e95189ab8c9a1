//! See `tollgate::testing::untrusted::paths`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate::testing::untrusted::paths(data));
