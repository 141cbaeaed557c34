//! Llama 1 to 3, Mistral, SmolLM and the DeepSeek-R1 distillations of Llama.

use super::{Family, Gate, Pairing, Presence, ScoreScale, Windowed};

pub(super) static FAMILY: Family = Family {
    name: "llama",
    // Converters permute the rows of queries and keys for it.
    pairing: Pairing::Adjacent,
    qkv_bias: Presence::Optional,
    other_bias: Presence::Optional,
    fused: false,
    qk_norms: false,
    post_norms: false,
    scaled_embedding: false,
    gate: Gate::Silu,
    windowed: Windowed::All,
    score_scale: ScoreScale::KeyLength,
};
