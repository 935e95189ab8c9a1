//! See `tollgate::testing::untrusted::history`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate::testing::untrusted::history(data));
