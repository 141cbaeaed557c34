//! Qwen 2 and 2.5, and the DeepSeek-R1 distillations of them.

use super::{Family, Gate, Pairing, Presence, ScoreScale, Windowed};

pub(super) static FAMILY: Family = Family {
    name: "qwen2",
    pairing: Pairing::Halves,
    qkv_bias: Presence::Always,
    other_bias: Presence::Never,
    fused: false,
    qk_norms: false,
    post_norms: false,
    scaled_embedding: false,
    gate: Gate::Silu,
    windowed: Windowed::All,
    score_scale: ScoreScale::KeyLength,
};
