//! The body stands apart, so that an ordinary test can replay the seeds.

#![no_main]

#[path = "../bodies/sign_in.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::sign_in(data));
