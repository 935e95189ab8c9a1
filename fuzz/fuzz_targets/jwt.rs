//! See `tollgate::testing::untrusted::jwt`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate::testing::untrusted::jwt(data));
