//! `dsk bench`: how fast a model runs in this process, without a daemon, and how well it predicts a
//! text.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, ValueEnum};
use dsk_daemon::bench::{
    self, BenchOptions, Bytes, ExecutorKind, KvFormat, MemoryReport, PerplexityOptions, Report,
    Stage,
};
use dsk_daemon::config::{Config, Files, Overrides, ProcessEnv};
use dsk_daemon::models::ModelsError;
use dsk_registry::{Name, Shard};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::folders::process_env;
use crate::terminal::Terminal;
use crate::{table, units};

/// What is logged unless DSK_LOG says otherwise.
const LOG_DEFAULT: &str = "warn";

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("in_context").args(["perplexity", "memory"]))]
pub(crate) struct BenchArgs {
    /// The model's name, or the path of a GGUF file
    model: String,
    /// Tokens of the prompt of each sequence; 0 leaves the prompt out
    #[arg(short, long, value_name = "TOKENS", default_value_t = 512)]
    prompt_tokens: usize,
    /// Tokens to generate in each sequence; 0 leaves generation out
    #[arg(short = 'n', long, value_name = "TOKENS", default_value_t = 128)]
    generate: usize,
    /// Tokens that each sequence holds before either
    #[arg(short, long, value_name = "TOKENS", default_value_t = 0)]
    depth: usize,
    /// Threads; as many as there are cores that this process may use
    #[arg(short, long, value_name = "COUNT", value_parser = thread_count)]
    threads: Option<usize>,
    /// Sequences that run side by side
    #[arg(short = 'b', long, value_name = "COUNT", default_value_t = 1, value_parser = positive)]
    sequences: usize,
    /// How often each measurement is repeated
    #[arg(short, long, value_name = "COUNT", default_value_t = 5, value_parser = positive)]
    repetitions: usize,
    /// The instruction set; the fastest that the processor has
    #[arg(long, value_name = "NAME")]
    isa: Option<String>,
    /// How keys and values are kept
    #[arg(long, value_enum, default_value_t = Kv::F16)]
    kv: Kv,
    /// Which code runs the arithmetic
    #[arg(long, value_enum, default_value_t = Runs::Cpu)]
    executor: Runs,
    /// Score this text instead of measuring speed
    #[arg(long, value_name = "FILE", requires = "ctx")]
    perplexity: Option<PathBuf>,
    /// Measure memory instead: what was computed for a context of --ctx tokens, and what it takes
    #[arg(long, requires = "ctx", conflicts_with = "perplexity")]
    memory: bool,
    /// Tokens of a chunk of the text, the second half of which is scored; or of the context
    #[arg(long, value_name = "TOKENS", requires = "in_context")]
    ctx: Option<usize>,
    /// Chunks of the text to score, from its start
    #[arg(long, value_name = "COUNT", requires = "perplexity", value_parser = positive)]
    chunks: Option<usize>,
    /// Write the logits that were scored: rows of little-endian f32
    #[arg(long, value_name = "FILE", requires = "perplexity")]
    save_logits: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kv {
    /// Half precision
    F16,
    /// 8-bit blocks
    #[value(name = "q8_0")]
    Q8_0,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Runs {
    /// Our own kernels
    Cpu,
    /// The candle library, to compare with
    Candle,
}

/// A number of something there must be at least one of.
fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("it must be at least 1".to_owned()),
        Ok(count) => Ok(count),
        Err(error) => Err(format!("{error}")),
    }
}

/// Threads that are asked for at most: more than any machine's cores, and few enough to be had.
const THREADS_MAX: usize = 1024;

/// A number of threads.
fn thread_count(text: &str) -> Result<usize, String> {
    match positive(text)? {
        count if count > THREADS_MAX => Err(format!("it must be at most {THREADS_MAX}")),
        count => Ok(count),
    }
}

impl BenchArgs {
    fn options(&self) -> BenchOptions {
        BenchOptions {
            prompt_tokens: self.prompt_tokens,
            generate: self.generate,
            depth: self.depth,
            threads: self.threads,
            sequences: self.sequences,
            repetitions: self.repetitions,
            isa: self.isa.clone(),
            kv: match self.kv {
                Kv::F16 => KvFormat::F16,
                Kv::Q8_0 => KvFormat::Q8_0,
            },
            executor: match self.executor {
                Runs::Cpu => ExecutorKind::Cpu,
                Runs::Candle => ExecutorKind::Candle,
            },
        }
    }

    /// What to score, if that was asked for.
    fn text(&self) -> Option<PerplexityOptions> {
        Some(PerplexityOptions {
            text: self.perplexity.clone()?,
            context: self.ctx?,
            chunks: self.chunks,
            save_logits: self.save_logits.clone(),
        })
    }
}

pub(crate) fn bench(args: &BenchArgs, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let filter = process_env("DSK_LOG").filter(|filter| !filter.is_empty());
    super::serve::log(filter.as_deref().unwrap_or(LOG_DEFAULT))?;
    let files = files(&args.model)?;
    let mut told = Told::default();
    let mut progress = |stage| told.tell(terminal, stage);
    if let (true, Some(context)) = (args.memory, args.ctx) {
        let report = bench::memory(&files, &args.options(), context, &mut progress)?;
        match args.json {
            true => terminal.json_pretty(&report)?,
            false => terminal.data(&render_memory(&report))?,
        }
        return Ok(Exit::Success);
    }
    let mut report = match args.text() {
        Some(text) => bench::perplexity(&files, &args.options(), &text, &mut progress)?,
        None => bench::run(&files, &args.options(), &mut progress)?,
    };
    report.model.clone_from(&args.model);
    if args.json {
        terminal.json_pretty(&report)?;
    } else {
        terminal.data(&render(&report))?;
    }
    Ok(Exit::Success)
}

/// The files of a model, mostly one: one that is there, else that of a name in the store.
fn files(model: &str) -> anyhow::Result<Vec<PathBuf>> {
    let path = Path::new(model);
    if path.is_file() {
        return Ok(Shard::paths(path));
    }
    if path.is_absolute() || model.starts_with('.') || model.ends_with(".gguf") {
        return Err(Failure::new(Exit::NotFound, format!("file {model} does not exist")).into());
    }
    let name = Name::parse(model).map_err(|error| {
        Failure::usage(error.to_string()).hint("a name is [HOST/][NAMESPACE/]MODEL[:TAG]")
    })?;
    let config = Config::load(&Overrides::default(), &ProcessEnv, &Files::standard(&ProcessEnv))?;
    bench::weights(&config, &name).map_err(|error| match error {
        ModelsError::NotFound { .. } => anyhow::Error::from(
            Failure::new(Exit::NotFound, error.to_string())
                .hint("`dsk list` shows the models that are here, `dsk pull` fetches others"),
        ),
        error => error.into(),
    })
}

/// What a person at a terminal was told.
#[derive(Debug, Default)]
struct Told {
    loading: bool,
}

impl Told {
    fn tell(&mut self, terminal: &mut Terminal, stage: Stage) {
        if !terminal.err_is_tty() {
            return;
        }
        let text = match stage {
            Stage::Loading(_) if std::mem::replace(&mut self.loading, true) => return,
            Stage::Loading(_) => "loading".to_owned(),
            Stage::Repetition { number, of } => format!("repetition {number} of {of}"),
            Stage::Chunk { number, of, perplexity } => {
                format!("chunk {number} of {of}: perplexity {perplexity:.4}")
            }
            Stage::Machine => "measuring the machine".to_owned(),
        };
        terminal.note(&text);
    }
}

fn render(report: &Report) -> String {
    let speeds = speeds(report);
    let header = ["MEASURED", "VALUE", "UNIT", "SPREAD"];
    format!("{}\n{}", table::block("Bench", &facts(report)), table::render(&header, &speeds))
}

fn facts(report: &Report) -> Vec<(String, String)> {
    let Report { threads, sequences, .. } = report;
    let size = units::bytes(report.file_bytes);
    let mut rows = vec![
        ("model", format!("{} ({}, {size})", report.model, report.architecture)),
        ("executor", report.executor.clone()),
        ("instructions", report.isa.clone()),
        ("threads", threads.to_string()),
        ("sequences", sequences.to_string()),
    ];
    if report.depth > 0 {
        rows.push(("depth", format!("{} tokens", report.depth)));
    }
    if report.repetitions > 0 {
        rows.push(("repetitions", report.repetitions.to_string()));
    }
    rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A row of the table.
fn row(name: &str, value: String, unit: &str, spread: String) -> Vec<String> {
    vec![name.to_owned(), value, unit.to_owned(), spread]
}

fn speeds(report: &Report) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let spread = |least: f64, most: f64| format!("{} - {}", figure(least), figure(most));
    if let Some(prefill) = &report.prefill {
        let name = format!("prompt of {} tokens", report.prompt_tokens);
        let range = spread(prefill.prefill_tps_min, prefill.prefill_tps_max);
        rows.push(row(&name, figure(prefill.prefill_tps), "tokens/s", range));
        rows.push(row("time to first token", figure(prefill.ttft_s), "s", String::new()));
        if let (Some(share), Some(peak)) = (prefill.integer_peak_share, prefill.integer_peak_per_s)
        {
            let unit = format!("% of {} G multiply-adds/s", figure(peak / 1e9));
            rows.push(row("arithmetic", figure(100.0 * share), &unit, String::new()));
        }
    }
    if let Some(decode) = &report.decode {
        let name = format!("answer of {} tokens", report.generated_tokens);
        let range = spread(decode.decode_tps_min, decode.decode_tps_max);
        rows.push(row(&name, figure(decode.decode_tps), "tokens/s", range));
        if let (Some(share), Some(most)) =
            (decode.read_bandwidth_share, decode.read_bandwidth_bytes_per_s)
        {
            let unit = format!("% of {} GB/s", figure(most / 1e9));
            rows.push(row("memory read", figure(100.0 * share), &unit, String::new()));
        }
    }
    rows.extend(memory(report));
    rows
}

fn render_memory(report: &MemoryReport) -> String {
    let Bytes { weights, kv, other, runtime } = report.predicted;
    let megabytes = |bytes: u64| format!("{} MB", figure(bytes as f64 / 1e6));
    let (predicted, measured) = (report.predicted_bytes, report.measured_bytes);
    let error = 100.0 * (predicted as f64 - measured as f64) / (measured as f64).max(1.0);
    let rows = [
        ("model", report.model.clone()),
        ("context", format!("{} tokens", report.context)),
        ("weights", megabytes(weights)),
        ("keys and values", megabytes(kv)),
        ("buffers", megabytes(other)),
        ("process", megabytes(runtime)),
        ("predicted", format!("{} ({error:+.2} %)", megabytes(predicted))),
        ("measured", megabytes(measured)),
    ];
    table::block("Memory", &rows.map(|(name, value)| (name.to_owned(), value)))
}

fn memory(report: &Report) -> Vec<Vec<String>> {
    let megabytes = |bytes: u64| figure(bytes as f64 / 1e6);
    let mut rows = vec![
        row("load", figure(report.load_s), "s", String::new()),
        row("resident", megabytes(report.resident_bytes), "MB", String::new()),
        row("weights", megabytes(report.weights_bytes), "MB", String::new()),
        row("keys and values", megabytes(report.kv_bytes), "MB", String::new()),
    ];
    if let Some(score) = &report.perplexity {
        let error = format!("± {:.4}", score.perplexity_stderr);
        let unit = format!("over {} tokens", score.scored_tokens);
        rows.insert(0, row("perplexity", format!("{:.4}", score.perplexity), &unit, error));
    }
    rows
}

/// A number with about three digits that count.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsk_daemon::bench::{Decode, Perplexity, Prefill};
    use expect_test::expect;

    #[test]
    fn threads_are_one_to_a_thousand() {
        assert_eq!(thread_count("1"), Ok(1));
        assert_eq!(thread_count("1024"), Ok(1024));
        assert_eq!(thread_count("0"), Err("it must be at least 1".to_owned()));
        assert_eq!(thread_count("1025"), Err("it must be at most 1024".to_owned()));
        assert!(thread_count("-1").is_err() && thread_count("two").is_err());
    }

    fn report() -> Report {
        Report {
            model: "smollm2:135m".to_owned(),
            file_bytes: 98_000_000,
            architecture: "llama".to_owned(),
            executor: "cpu (avx2)".to_owned(),
            isa: "avx2".to_owned(),
            threads: 2,
            sequences: 1,
            load_s: 0.0712,
            resident_bytes: 123_456_789,
            weights_bytes: 98_000_000,
            kv_bytes: 1_500_000,
            ..Report::default()
        }
    }

    #[test]
    fn speeds_have_units_and_spread() {
        let prefill = Prefill {
            prefill_tps: 1234.5,
            prefill_tps_min: 1200.0,
            prefill_tps_max: 1240.2,
            ttft_s: 0.41474,
            cold_ttft_s: 0.61,
            integer_peak_share: Some(0.6512),
            integer_peak_per_s: Some(2.19e11),
        };
        let decode = Decode {
            decode_tps: 163.21,
            decode_tps_min: 99.04,
            decode_tps_max: 170.0,
            read_bandwidth_share: Some(0.95),
            read_bandwidth_bytes_per_s: Some(23.4e9),
        };
        let report = Report {
            prompt_tokens: 512,
            generated_tokens: 128,
            depth: 4096,
            repetitions: 5,
            prefill: Some(prefill),
            decode: Some(decode),
            ..report()
        };
        expect![[r#"
              Bench
                model           smollm2:135m (llama, 98 MB)
                executor        cpu (avx2)
                instructions    avx2
                threads         2
                sequences       1
                depth           4096 tokens
                repetitions     5

            MEASURED                VALUE    UNIT                          SPREAD
            prompt of 512 tokens    1234     tokens/s                      1200 - 1240
            time to first token     0.415    s
            arithmetic              65.1     % of 219 G multiply-adds/s
            answer of 128 tokens    163      tokens/s                      99.0 - 170
            memory read             95.0     % of 23.4 GB/s
            load                    0.071    s
            resident                123      MB
            weights                 98.0     MB
            keys and values         1.50     MB
        "#]]
        .assert_eq(&render(&report));
    }

    #[test]
    fn a_score_has_its_error() {
        let perplexity = Perplexity {
            perplexity: 17.123_456,
            perplexity_stderr: 0.4321,
            scored_tokens: 8176,
            ..Perplexity::default()
        };
        let text = render(&Report { perplexity: Some(perplexity), ..report() });
        let line = text.lines().find(|line| line.starts_with("perplexity"));
        assert_eq!(
            line,
            Some("perplexity         17.1235    over 8176 tokens    ± 0.4321"),
            "{text}"
        );
    }

    #[test]
    fn a_path_that_is_not_there_is_no_name() {
        for model in ["/no/such/file", "./none", "none.gguf"] {
            let error = files(model).unwrap_err();
            let failure = error.downcast_ref::<Failure>().unwrap();
            assert_eq!(failure.exit, Exit::NotFound, "{failure}");
        }
        let error = files("not a name").unwrap_err();
        assert_eq!(error.downcast_ref::<Failure>().unwrap().exit, Exit::Usage);
    }
}
