//! A long random life of the scheduler, on paused time.
