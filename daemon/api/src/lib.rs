//! Wire types and the error table of every dialect, and a typed client.
