#![no_main]
//! See `tollgate::testing::untrusted::jwt`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate::testing::untrusted::jwt(data));
