#![no_main]
//! See `tollgate::testing::untrusted::webhook`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate::testing::untrusted::webhook(data));
