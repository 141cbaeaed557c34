//! The one integration binary: the built `dsk`, driven as its users drive it.

mod bad_input;
mod chat;
mod clients;
mod harness;
mod kill;
mod registry;
mod systemd;
mod tidy;
