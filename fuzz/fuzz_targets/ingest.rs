#![no_main]
//! See `tollgate::testing::untrusted::ingest`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate::testing::untrusted::ingest(data));
