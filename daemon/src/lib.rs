//! The daemon: HTTP, scheduler, runners, the model index.
//!
//! [`run`] is the whole life of a daemon over a [`Config`], the [`logs::Ring`] of its log,
//! [`Listeners`] that are bound already, and a future that says when to stop; tests bind port 0 and call the same function. [`Service`] is what
//! the HTTP handlers share. [`runner::child_main`] is the other program in here: the process that
//! holds one model.
//!
//! What this crate does not do: it holds no model bytes, runs no template and parses no tokens (that is
//! the runner's), and it moves no blob itself (that is the registry's).

pub mod bench;
pub mod config;
mod create;
pub mod fit;
pub mod hardware;
mod http;
pub mod index;
pub mod keep_alive;
pub mod listeners;
pub mod logs;
mod metrics;
pub mod models;
pub mod pins;
pub mod runner;
pub mod scheduler;
mod server;
pub mod service;
mod systemd;
pub mod transfers;
mod upkeep;
pub mod variants;
mod watch;

pub use config::{Config, ConfigError};
pub use keep_alive::KeepAlive;
pub use listeners::{ListenError, Listeners, Peer};
pub use runner::EventStream;
pub use server::{DaemonError, run, runtime};
pub use service::Service;
