//! Phi 3, 3.5 and 4.

use super::{Family, Gate, Pairing, Presence, ScoreScale, Windowed};

pub(super) static FAMILY: Family = Family {
    name: "phi3",
    pairing: Pairing::Halves,
    qkv_bias: Presence::Never,
    other_bias: Presence::Never,
    fused: true,
    qk_norms: false,
    post_norms: false,
    scaled_embedding: false,
    gate: Gate::Silu,
    windowed: Windowed::All,
    score_scale: ScoreScale::KeyLength,
};
