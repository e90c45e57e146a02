#![no_main]
//! See `nigh_tests::fuzzed`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| nigh_tests::fuzzed::check("settings", data));
