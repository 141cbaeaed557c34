//! Arithmetic on quantized blocks: the formats' layouts and the operations of the engine.
