//! See `tollgate::testing::untrusted::ingest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate::testing::untrusted::ingest(data));
