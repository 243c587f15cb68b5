//! What several test files share.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(unreachable_pub, reason = "a test file is a crate that nothing imports")]

pub mod canary;
pub mod child;
pub mod in_time;
pub mod secret_service;
