//! A loaded model and its requests: tokens in, tokens out.
