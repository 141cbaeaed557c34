//! Arithmetic on quantized blocks: the formats' layouts and the operations of the engine.
//!
//! This crate knows what the bytes of a tensor mean. It does not know files, models or devices: it
//! is given slices and returns numbers. What is slow and plain is the reference that faster code is
//! tested against.
//!
//! Entry types: [`format::Format`] (every ggml tensor type, its block sizes),
//! [`dequantize::dequantize`] (blocks to `f32`), [`quantize::quantize`] (`f32` to blocks),
//! [`panel::Matrix`] (packed weights) and [`matmul::multiply`] (their products).

pub mod activation;
pub mod arch;
pub mod attention;
pub mod dequantize;
pub mod elementwise;
mod exponential;
pub mod format;
pub mod gate;
pub mod kv;
pub mod matmul;
pub mod measure;
pub mod norm;
pub mod panel;
pub mod quantize;
pub mod rope;
pub mod softmax;

pub use arch::{pool, shared};
