#![no_main]
//! See `tollgate::testing::untrusted::history`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate::testing::untrusted::history(data));
