//! What was seen of models on this machine: how long they take to load, how fast they read and write,
//! what they hold in memory. Later plans are made from it.
//!
//! A figure moves a quarter of the way to each new one, so that one slow moment does not count for long
//! and a machine that changed is believed soon.

use std::collections::BTreeMap;

use dsk_daemon_engine::{Demand, Usage};
use dsk_registry::Digest;
use rusqlite::{Connection, params};

use super::{Index, IndexError};
use crate::fit::{Calibration, Measured, Sample};

/// How far a figure moves to a new one.
const WEIGHT: f64 = 0.25;
/// Fewer tokens than these say little of a speed.
const PROMPT_TOKENS_MIN: u32 = 64;
const OUTPUT_TOKENS_MIN: u32 = 16;
/// Models that calibration looks at: the ones seen last.
const SAMPLES_MAX: usize = 64;

pub(super) const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS measurements (
        model TEXT PRIMARY KEY,      -- the digest of the weights
        seen INTEGER NOT NULL,       -- counts up: the larger, the later
        read INTEGER NOT NULL,       -- bytes of weights for a token
        layers INTEGER NOT NULL,
        parameters INTEGER NOT NULL,
        file_bytes INTEGER NOT NULL,
        load_seconds REAL,
        prefill_tps REAL,
        decode_tps REAL
    ) WITHOUT ROWID;
";

/// What a load has shown.
#[derive(Debug, Clone)]
pub struct SeenLoad {
    /// The digest of the weights.
    pub model: Digest,
    /// What the model takes.
    pub demand: Demand,
    /// The size of its file.
    pub file_bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Everything that is known of this machine's speed.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// By the digest of the weights.
    pub models: BTreeMap<Digest, Measured>,
    /// What follows for models that did not run yet.
    pub calibration: Calibration,
}

impl Index {
    /// Notes a load that went well.
    pub async fn record_load(&self, seen: SeenLoad) -> Result<(), IndexError> {
        self.blocking(move |connection| record_load(connection, &seen)).await
    }

    /// Notes the speeds of a request that went well, of a model of which a load was noted.
    pub async fn record_speed(&self, model: &Digest, usage: &Usage) -> Result<(), IndexError> {
        let (model, usage) = (*model, *usage);
        self.blocking(move |connection| {
            let prefill = speed(usage.prompt_tokens, PROMPT_TOKENS_MIN, usage.prompt_ns);
            let decode = speed(usage.output_tokens, OUTPUT_TOKENS_MIN, usage.output_ns);
            moved(connection, &model, "prefill_tps", prefill)?;
            moved(connection, &model, "decode_tps", decode)
        })
        .await
    }

    /// What is known.
    pub async fn seen(&self) -> Result<Seen, IndexError> {
        self.blocking(|connection| seen(connection)).await
    }
}

/// Tokens a second; `None` for too few of them.
fn speed(tokens: u32, least: u32, nanoseconds: u64) -> Option<f64> {
    let enough = tokens >= least && nanoseconds > 0;
    enough.then(|| f64::from(tokens) * 1e9 / nanoseconds as f64)
}

fn record_load(connection: &Connection, seen: &SeenLoad) -> Result<(), IndexError> {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    connection.execute(
        "INSERT INTO measurements (model, seen, read, layers, parameters, file_bytes)
         VALUES (?1, (SELECT COALESCE(MAX(seen), 0) + 1 FROM measurements), ?2, ?3, ?4, ?5)
         ON CONFLICT (model) DO UPDATE SET seen = excluded.seen",
        params![
            seen.model.to_string(),
            number(seen.demand.read_per_token()),
            number(seen.demand.layers.len() as u64),
            number(seen.demand.parameters),
            number(seen.file_bytes),
        ],
    )?;
    moved(connection, &seen.model, "load_seconds", Some(seen.seconds))
}

/// Moves a figure towards a new one, or takes it where there was none.
fn moved(
    connection: &Connection,
    model: &Digest,
    column: &'static str,
    value: Option<f64>,
) -> Result<(), IndexError> {
    let Some(value) = value.filter(|value| value.is_normal() && *value > 0.0) else {
        return Ok(());
    };
    let text = format!(
        "UPDATE measurements SET {column} = COALESCE({column} + (?2 - {column}) * ?3, ?2)
         WHERE model = ?1"
    );
    connection.execute(&text, params![model.to_string(), value, WEIGHT])?;
    Ok(())
}

fn seen(connection: &Connection) -> Result<Seen, IndexError> {
    let mut query = connection.prepare(
        "SELECT model, read, layers, parameters, file_bytes, load_seconds, prefill_tps, decode_tps
         FROM measurements ORDER BY seen DESC LIMIT ?1",
    )?;
    let rows = query.query_map([SAMPLES_MAX as i64], |row| {
        let number = |column| Ok::<_, rusqlite::Error>(row.get::<_, i64>(column)?.unsigned_abs());
        let measured = Measured {
            load_seconds: row.get(5)?,
            prefill_tps: row.get(6)?,
            decode_tps: row.get(7)?,
        };
        let sample = Sample {
            read: number(1)?,
            layers: number(2)? as usize,
            parameters: number(3)?,
            file_bytes: number(4)?,
            measured,
        };
        Ok((super::parsed::<Digest>(row, 0)?, sample))
    })?;
    let samples = rows.collect::<Result<Vec<_>, _>>()?;
    let all: Vec<_> = samples.iter().map(|(_, sample)| *sample).collect();
    let models = samples.into_iter().map(|(model, sample)| (model, sample.measured)).collect();
    Ok(Seen { models, calibration: Calibration::of(&all) })
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[tokio::test]
    async fn figures_move_a_quarter_of_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let index = Index::open(&folder.path().join("index.db")).unwrap();
        let model = Digest::of(b"weights");
        // Nothing is noted of a model whose load was not.
        index.record_speed(&model, &usage((100, 50.0), (100, 10.0))).await.unwrap();
        assert!(index.seen().await.unwrap().models.is_empty());
        let demand = Demand { layers: vec![1000; 4], head: 500, ..Demand::default() };
        for seconds in [2.0, 4.0] {
            let seen = SeenLoad { model, demand: demand.clone(), file_bytes: 5000, seconds };
            index.record_load(seen).await.unwrap();
        }
        index.record_speed(&model, &usage((100, 50.0), (100, 10.0))).await.unwrap();
        // Too few tokens to tell.
        index.record_speed(&model, &usage((1, 9000.0), (15, 9000.0))).await.unwrap();
        index.record_speed(&model, &usage((64, 100.0), (16, 20.0))).await.unwrap();
        let seen = index.seen().await.unwrap();
        let measured = seen.models[&model];
        let close = |found: Option<f64>, wanted: f64| (found.unwrap() - wanted).abs() < 1e-3;
        assert!(close(measured.load_seconds, 2.5), "{measured:?}");
        assert!(close(measured.prefill_tps, 62.5), "{measured:?}");
        assert!(close(measured.decode_tps, 12.5), "{measured:?}");
        assert!(seen.calibration.load_rate.is_some(), "{seen:?}");
    }
}
