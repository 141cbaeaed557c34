//! Qwen 3, dense.

use super::{Family, Gate, Pairing, Presence, ScoreScale, Windowed};

pub(super) static FAMILY: Family = Family {
    name: "qwen3",
    pairing: Pairing::Halves,
    qkv_bias: Presence::Optional,
    other_bias: Presence::Never,
    fused: false,
    qk_norms: true,
    post_norms: false,
    scaled_embedding: false,
    gate: Gate::Silu,
    windowed: Windowed::All,
    score_scale: ScoreScale::KeyLength,
};
