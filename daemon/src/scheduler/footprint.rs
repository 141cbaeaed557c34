//! What a model will take in memory, from its file's header alone: the engine's own figures, in the form
//! in which the scheduler asks for them again and again.

use std::path::PathBuf;

use dsk_daemon_engine::{Demand, KvFormat, gguf::Gguf, plan::Limits};

use crate::{
    fit::{CONTEXT_TARGET, CONTEXTS_SHORTER},
    models::ModelSpec,
};

/// A context that is a whole number of blocks of tokens and of spans of attention.
const CONTEXT_STEP: u32 = 1024;

/// One way to load a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    /// Tokens of context.
    pub(crate) context: u32,
    /// How keys and values are kept.
    pub(crate) kv: KvFormat,
    /// What it takes.
    pub(crate) bytes: u64,
}

/// The bytes a model takes, by what they depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footprint {
    /// What does not depend on the context: weights, buffers of a step, the process.
    pub(crate) weights: u64,
    /// One token of context, with keys and values in half precision.
    pub(crate) token: u64,
    /// The same in 8 bits.
    pub(crate) token_q8: u64,
    /// The context the model was made for.
    pub(crate) context_max: u32,
}

impl Footprint {
    /// Reads the header. A file that cannot be read gets a footprint too: loading it is what gives
    /// the right error.
    pub(crate) fn of(spec: &ModelSpec) -> Footprint {
        let (weights, token, context_max) = (spec.model_bytes, 0, u32::MAX);
        let unknown = Footprint { weights, token, token_q8: token, context_max };
        demand(&spec.model_files).map_or(unknown, |demand| Footprint::from_demand(&demand))
    }

    /// Everything that grows with the context grows by whole blocks, at the same rate.
    fn from_demand(demand: &Demand) -> Footprint {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let total = |context: u32, kv: KvFormat| {
            demand.bytes(&Limits::new(context, 1, threads, kv)).total()
        };
        let token = |kv: KvFormat| {
            let step = total(2 * CONTEXT_STEP, kv).saturating_sub(total(CONTEXT_STEP, kv));
            step.div_ceil(u64::from(CONTEXT_STEP))
        };
        let (token, token_q8) = (token(KvFormat::F16), token(KvFormat::Q8_0));
        let step = token.saturating_mul(u64::from(CONTEXT_STEP));
        let weights = total(CONTEXT_STEP, KvFormat::F16).saturating_sub(step);
        Footprint { weights, token, token_q8, context_max: demand.context_max }
    }

    /// The ways to load it, the most wanted first: with the context that is asked for, else with the one
    /// that is aimed for and then shorter ones; with keys and values in half precision, then in 8 bits.
    pub(crate) fn ways(&self, asked: Option<u32>) -> impl Iterator<Item = Way> + use<> {
        let footprint = *self;
        let contexts = match asked {
            Some(context) => vec![context],
            None => std::iter::once(CONTEXT_TARGET).chain(CONTEXTS_SHORTER).collect(),
        };
        contexts.into_iter().flat_map(move |context| {
            let context = context.min(footprint.context_max);
            [KvFormat::F16, KvFormat::Q8_0].map(|kv| Way {
                context,
                kv,
                bytes: footprint.bytes(context, kv),
            })
        })
    }

    /// The way that is wanted most.
    pub(crate) fn best_way(&self, asked: Option<u32>) -> Way {
        let context = asked.unwrap_or(CONTEXT_TARGET).min(self.context_max);
        Way { context, kv: KvFormat::F16, bytes: self.bytes(context, KvFormat::F16) }
    }

    /// All of it, for a context, with keys and values kept in that way.
    pub(crate) fn bytes(&self, context: u32, kv: KvFormat) -> u64 {
        let token = match kv {
            KvFormat::Q8_0 => self.token_q8,
            KvFormat::F16 | KvFormat::F32 => self.token,
        };
        let kv = token.saturating_mul(u64::from(context.min(self.context_max)));
        self.weights.saturating_add(kv)
    }
}

fn demand(files: &[PathBuf]) -> Option<Demand> {
    Demand::of(&Gguf::open_all(files).ok()?).ok()
}

/// Bytes for people.
pub(super) fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64)
}

#[cfg(test)]
mod tests {
    use dsk_daemon_engine::gguf::testkit::tiny_model;

    use super::*;

    #[test]
    fn the_context_is_bounded_by_the_model() {
        let footprint = Footprint { weights: 1000, token: 10, token_q8: 6, context_max: 8192 };
        assert_eq!(footprint.bytes(100, KvFormat::F16), 2000);
        assert_eq!(footprint.bytes(100, KvFormat::Q8_0), 1600);
        assert_eq!(footprint.bytes(u32::MAX, KvFormat::F16), 1000 + 81_920);
        let huge = Footprint { token: u64::MAX, ..footprint };
        assert_eq!(huge.bytes(2, KvFormat::F16), u64::MAX);
        assert_eq!(gibibytes(3 << 29), "1.5 GiB");
    }

    #[test]
    fn half_precision_comes_before_8_bits_and_a_long_context_before_a_short_one() {
        let footprint = Footprint { weights: 1000, token: 10, token_q8: 6, context_max: 5000 };
        let ways = |asked| {
            let way = |way: Way| format!("{} {:?} {}", way.context, way.kv, way.bytes);
            footprint.ways(asked).map(way).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(ways(Some(100)), "100 F16 2000, 100 Q8_0 1600");
        assert_eq!(
            ways(None),
            "5000 F16 51000, 5000 Q8_0 31000, 4096 F16 41960, 4096 Q8_0 25576, 2048 F16 21480, \
             2048 Q8_0 13288"
        );
        assert_eq!(Some(footprint.best_way(None)), footprint.ways(None).next());
    }

    #[test]
    fn it_is_what_the_plan_says() {
        let gguf = Gguf::parse(tiny_model("llama", 3)).unwrap();
        let demand = Demand { context_max: 1 << 20, ..Demand::of(&gguf).unwrap() };
        let footprint = Footprint::from_demand(&demand);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        for context in [2048, 8192, 32_768, 1 << 20] {
            for kv in [KvFormat::F16, KvFormat::Q8_0] {
                let plan = demand.bytes(&Limits::new(context, 1, threads, kv)).total();
                let own = footprint.bytes(context, kv);
                assert!(own >= plan, "{own} of {plan}");
                // Rounding up a token by less than a byte.
                assert!(own - plan <= u64::from(context), "{own} of {plan} at {context}");
            }
        }
    }
}
