//! The daemon: HTTP, scheduler, runners, the model index.
