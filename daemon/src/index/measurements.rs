//! What was seen of models on this machine, by weights, device, context and kind of keys and values: how long
//! they take to load, how fast they read and write, what they hold in memory. Later plans are made from it.
//!
//! A figure moves a quarter of the way to each new one, so that one slow moment does not count for long
//! and a machine that changed is believed soon. A load is different: what else goes on can only make it
//! slower, several times slower where the file or the memory has to be found first. A faster one counts
//! at once, a slower one by a tenth.

use std::{collections::BTreeMap, time::Duration};

use dsk_daemon_engine::{Loaded, Usage};
use dsk_registry::Digest;
use rusqlite::{Connection, params};

use super::{Index, IndexError};
use crate::fit::{Calibration, Measured, Sample};

/// How far a figure moves to a new one.
const WEIGHT: f64 = 0.25;
/// How far that of a load moves to a slower one.
const SLOWER_LOAD_WEIGHT: f64 = 0.1;
/// Fewer tokens than these say little of a speed.
const PROMPT_TOKENS_MIN: u32 = 64;
const OUTPUT_TOKENS_MIN: u32 = 16;
/// Rows that calibration looks at: the ones seen last.
const SAMPLES_MAX: usize = 64;

pub(super) const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS measurements (
        model TEXT NOT NULL,         -- the digest of the weights
        device TEXT NOT NULL,        -- cpu
        context INTEGER NOT NULL,    -- tokens
        kv TEXT NOT NULL,            -- how keys and values were kept
        seen INTEGER NOT NULL,       -- counts up: the larger, the later
        read INTEGER NOT NULL,       -- bytes of weights for a token
        layers INTEGER NOT NULL,
        parameters INTEGER NOT NULL,
        file_bytes INTEGER NOT NULL,
        tokenizer INTEGER NOT NULL,  -- bytes
        predicted_bytes INTEGER NOT NULL,
        measured_bytes INTEGER,      -- the most that was seen
        load_seconds REAL,
        prefill_tps REAL,
        decode_tps REAL,
        PRIMARY KEY (model, device, context, kv)
    ) WITHOUT ROWID;
";

/// A load or a request that went well, and what the model was loaded as.
#[derive(Debug, Clone)]
pub struct Run {
    /// The digest of the weights.
    pub model: Digest,
    /// The size of their file.
    pub file_bytes: u64,
    /// What the runner says of the model.
    pub loaded: Loaded,
    /// How long the load took; `None` for a request.
    pub load: Option<Duration>,
    /// What the request took; nothing for a load.
    pub usage: Usage,
    /// The memory that only the runner has; `None` where the kernel does not say.
    pub resident: Option<u64>,
}

/// Everything that is known of this machine.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// By the digest of the weights, as the model ran last; what it did not show then, as before.
    pub models: BTreeMap<Digest, Measured>,
    /// What follows for models that did not run yet.
    pub calibration: Calibration,
}

impl Index {
    /// Notes what a load or a request has shown.
    pub async fn record_run(&self, run: Run) -> Result<(), IndexError> {
        self.blocking(move |connection| record(connection, &run)).await
    }

    /// What is known.
    /// `threads` are those that models run with here.
    pub async fn seen(&self, threads: usize) -> Result<Seen, IndexError> {
        self.blocking(move |connection| seen(connection, threads)).await
    }
}

/// Tokens a second; `None` for too few of them.
fn speed(tokens: u32, least: u32, nanoseconds: u64) -> Option<f64> {
    let enough = tokens >= least && nanoseconds > 0;
    enough.then(|| f64::from(tokens) * 1e9 / nanoseconds as f64)
}

fn record(connection: &Connection, run: &Run) -> Result<(), IndexError> {
    // Only plans are compared with what happens.
    let Some(demand) = &run.loaded.demand else { return Ok(()) };
    let (loaded, usage) = (&run.loaded, &run.usage);
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let positive = |value: f64| Some(value).filter(|value| value.is_normal() && *value > 0.0);
    connection.execute(
        "INSERT INTO measurements (model, device, context, kv, seen, read, layers, parameters, file_bytes,
             predicted_bytes, measured_bytes, load_seconds, prefill_tps, decode_tps, tokenizer)
         VALUES (?1, 'cpu', ?2, ?3, (SELECT COALESCE(MAX(seen), 0) + 1 FROM measurements),
             ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?14)
         ON CONFLICT (model, device, context, kv) DO UPDATE SET
             seen = excluded.seen,
             predicted_bytes = excluded.predicted_bytes,
             measured_bytes = MAX(COALESCE(measured_bytes, 0), COALESCE(excluded.measured_bytes, 0)),
             load_seconds = COALESCE(
                 MIN(excluded.load_seconds, load_seconds + (excluded.load_seconds - load_seconds) * ?15),
                 excluded.load_seconds, load_seconds),
             prefill_tps = COALESCE(prefill_tps + (excluded.prefill_tps - prefill_tps) * ?13,
                 excluded.prefill_tps, prefill_tps),
             decode_tps = COALESCE(decode_tps + (excluded.decode_tps - decode_tps) * ?13,
                 excluded.decode_tps, decode_tps)",
        params![
            run.model.to_string(),
            loaded.context_length,
            format!("{:?}", loaded.kv),
            number(demand.read_per_token()),
            number(demand.layers.len() as u64),
            number(demand.parameters),
            number(run.file_bytes),
            number(loaded.bytes.total()),
            run.resident.map(number),
            run.load.map(|load| load.as_secs_f64()).and_then(positive),
            speed(usage.prompt_tokens, PROMPT_TOKENS_MIN, usage.prompt_ns).and_then(positive),
            speed(usage.output_tokens, OUTPUT_TOKENS_MIN, usage.output_ns).and_then(positive),
            WEIGHT,
            number(demand.tokenizer),
            SLOWER_LOAD_WEIGHT,
        ],
    )?;
    Ok(())
}

fn seen(connection: &Connection, threads: usize) -> Result<Seen, IndexError> {
    let mut query = connection.prepare(
        "SELECT model, read, layers, parameters, file_bytes, load_seconds, prefill_tps, decode_tps,
             measured_bytes - predicted_bytes, tokenizer
         FROM measurements ORDER BY seen DESC LIMIT ?1",
    )?;
    let rows = query.query_map([SAMPLES_MAX as i64], |row| {
        let number = |column| Ok::<_, rusqlite::Error>(row.get::<_, i64>(column)?.unsigned_abs());
        let measured = Measured {
            load_seconds: row.get(5)?,
            prefill_tps: row.get(6)?,
            decode_tps: row.get(7)?,
            // A context that was not filled takes less than was promised, which says nothing.
            excess_bytes: row
                .get::<_, Option<i64>>(8)?
                .map_or(0, |more| more.max(0).unsigned_abs()),
        };
        let sample = Sample {
            read: number(1)?,
            layers: number(2)? as usize,
            parameters: number(3)?,
            file_bytes: number(4)?,
            tokenizer: number(9)?,
            measured,
        };
        Ok((super::parsed::<Digest>(row, 0)?, sample))
    })?;
    let samples = rows.collect::<Result<Vec<_>, _>>()?;
    let all: Vec<_> = samples.iter().map(|(_, sample)| *sample).collect();
    let mut models = BTreeMap::new();
    for (model, sample) in samples {
        let latest = models.entry(model).or_insert(sample.measured);
        *latest = latest.with(&sample.measured);
    }
    Ok(Seen { models, calibration: Calibration::of(&all, threads) })
}

#[cfg(test)]
mod tests {
    use dsk_daemon_engine::Demand;

    use super::*;
    use crate::runner::scripted;

    fn usage(prompt: (u32, f64), output: (u32, f64)) -> Usage {
        let nanoseconds = |tokens: u32, tps: f64| (f64::from(tokens) / tps * 1e9) as u64;
        Usage {
            prompt_tokens: prompt.0,
            prompt_ns: nanoseconds(prompt.0, prompt.1),
            output_tokens: output.0,
            output_ns: nanoseconds(output.0, output.1),
            ..Usage::default()
        }
    }

    fn run(usage: Usage, resident: Option<u64>) -> Run {
        let demand = Demand { layers: vec![1000; 4], head: 500, ..Demand::default() };
        let loaded = Loaded { demand: Some(demand), ..scripted::loaded(4096) };
        let model = Digest::of(b"weights");
        Run { model, file_bytes: 5000, loaded, load: None, usage, resident }
    }

    fn load(seconds: f64) -> Run {
        Run { load: Some(Duration::from_secs_f64(seconds)), ..run(Usage::default(), None) }
    }

    /// What is known after these.
    async fn known(runs: Vec<Run>) -> Seen {
        let folder = tempfile::tempdir().unwrap();
        let index = Index::open(&folder.path().join("index.db")).unwrap();
        assert!(index.seen(2).await.unwrap().models.is_empty());
        for run in runs {
            index.record_run(run).await.unwrap();
        }
        index.seen(2).await.unwrap()
    }

    fn close(found: Option<f64>, wanted: f64) -> bool {
        (found.unwrap() - wanted).abs() < 1e-3
    }

    #[tokio::test]
    async fn figures_move_a_quarter_of_the_way() {
        let promised = scripted::loaded(4096).bytes.total();
        let seen = known(vec![
            run(usage((100, 50.0), (100, 10.0)), Some(promised - 5)),
            run(usage((64, 100.0), (16, 20.0)), Some(promised + 7)),
            // Too few tokens to tell.
            run(usage((1, 9000.0), (15, 9000.0)), Some(1)),
        ]);
        let measured = seen.await.models[&Digest::of(b"weights")];
        assert!(close(measured.prefill_tps, 62.5), "{measured:?}");
        assert!(close(measured.decode_tps, 12.5), "{measured:?}");
        assert_eq!((measured.excess_bytes, measured.load_seconds), (7, None));
    }

    #[tokio::test]
    async fn a_faster_load_counts_at_once_and_a_slower_one_by_a_tenth() {
        for (loads, wanted) in [(vec![2.0], 2.0), (vec![2.0, 0.5], 0.5), (vec![2.0, 0.5, 2.5], 0.7)]
        {
            let runs = loads.iter().map(|&seconds| load(seconds));
            // A request that follows says nothing of loads.
            let seen = known(runs.chain([run(Usage::default(), None)]).collect()).await;
            let measured = seen.models[&Digest::of(b"weights")];
            assert!(close(measured.load_seconds, wanted), "{loads:?}: {measured:?}");
            assert!(seen.calibration.load_factor.unwrap() > 1.0, "{seen:?}");
        }
    }

    #[tokio::test]
    async fn what_a_model_did_not_show_of_late_is_as_before() {
        let mut longer = load(1.5);
        longer.loaded.context_length *= 2;
        let earlier = run(usage((100, 50.0), (100, 10.0)), None);
        let seen = known(vec![load(0.5), earlier, longer]).await;
        let measured = seen.models[&Digest::of(b"weights")];
        assert!(close(measured.decode_tps, 10.0) && close(measured.load_seconds, 1.5));
    }

    #[tokio::test]
    async fn an_executor_without_a_plan_leaves_nothing() {
        let mut run = run(usage((100, 50.0), (100, 10.0)), Some(1));
        run.loaded.demand = None;
        assert!(known(vec![run]).await.models.is_empty());
    }
}
