//! The body stands apart, so that an ordinary test can replay the seeds.

#![no_main]

#[path = "../bodies/presence.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::presence(data));
