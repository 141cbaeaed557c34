//! The one integration binary: the built `dsk`, driven as its users drive it.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a test speaks and fails aloud")]

mod bad_input;
mod bench;
mod chat;
mod clients;
mod disconnect;
mod faults;
mod harness;
mod idle;
mod kill;
mod peers;
mod proxy;
mod registry;
mod store;
mod systemd;
mod tidy;
mod trust;
mod variants;
