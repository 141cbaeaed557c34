//! Gemma 3, text only. Converters add the one that its norms add to their weights.

use super::{Family, Gate, Pairing, Presence, ScoreScale, Windowed};

/// Layers of the 27B model, whose scores are scaled by the embedding's share of a head.
const LAYERS_27B: u32 = 62;

pub(super) static FAMILY: Family = Family {
    name: "gemma3",
    pairing: Pairing::Halves,
    qkv_bias: Presence::Never,
    other_bias: Presence::Never,
    fused: false,
    qk_norms: true,
    post_norms: true,
    scaled_embedding: true,
    gate: Gate::Gelu,
    windowed: Windowed::AllBut { period: 6, rope_base: 10_000.0 },
    score_scale: ScoreScale::EmbeddingPerHeadAt { layers: LAYERS_27B },
};
