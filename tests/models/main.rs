//! The concurrent parts of a live handle, of the thread that runs tasks in the background, and of the
//! registry's index, under loom, which tries every order of steps; the former two also under shuttle, which
//! tries many orders of more threads. They are the files that the crate is built of, over the checkers' locks
//! and atomics.
//!
//! What stands for `arc-swap` and `event-listener` is written here: a value behind a lock that is held for
//! one look, and an event by a counter. Those crates prove themselves; what is checked is how the handle uses
//! them.

#![allow(clippy::duplicate_mod, reason = "each checker has the files over its own locks")]

mod loom_model;
mod registry_model;
mod shuttle_model;
