//! See `tallygate::testing::untrusted::ingest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tallygate::testing::untrusted::ingest(data));
