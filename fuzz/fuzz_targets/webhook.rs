//! See `tollgate::testing::untrusted::webhook`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate::testing::untrusted::webhook(data));
