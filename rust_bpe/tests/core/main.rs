//! One binary for all integration tests: it links once.
#![allow(clippy::unwrap_used)]

mod clean;
mod corpora;
mod encode;
mod hard;
mod quantize;
mod train;
mod twin;
