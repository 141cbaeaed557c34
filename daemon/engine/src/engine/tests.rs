//! The step loop over an executor that says what a test wants, and over tiny models.

use std::io::Write;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::*;
use crate::conversation::Prompt;
use crate::event::{Done, FinishReason};
use crate::executor::{Batch, Logits, SequenceId};
use crate::gguf::Gguf;
use crate::gguf::testkit::tiny_model;
use crate::options::Options;
use crate::tokenizer::Special;

/// Longer than anything here takes, so that a hang is a failure.
const PATIENCE: Duration = Duration::from_secs(60);
const VOCABULARY: usize = 300;
const THINKING: &str = "{% for m in messages %}{{ m.content }}{% endfor %}<think>\n";

/// Says the tokens of `script` one after another, to each sequence from its start.
struct Scripted {
    script: Vec<u32>,
    said: Vec<usize>,
    context: usize,
    /// A step waits for a permit, when there is such a channel.
    permits: Option<Receiver<()>>,
    batches: Arc<Mutex<Vec<Batch>>>,
}

impl Executor for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn step(&mut self, batch: &Batch) -> Result<Logits, ExecutorError> {
        if let Some(permits) = &self.permits {
            // A closed channel lets everything through.
            let _ = permits.recv_timeout(PATIENCE);
        }
        self.batches.lock().expect("no test panics with it").push(batch.clone());
        let mut logits = Logits::new(VOCABULARY);
        for slice in &batch.sequences {
            let said = &mut self.said[slice.sequence.0 as usize];
            if batch.positions[slice.rows.start] == 0 {
                *said = 0;
            }
            if !batch.logits.iter().any(|row| slice.rows.contains(row)) {
                continue;
            }
            let token = self.script[*said % self.script.len()];
            *said += 1;
            assert_ne!(token, PANIC, "the script says so");
            let mut row = vec![0.0; VOCABULARY];
            match token {
                NAN => row[3] = f32::NAN,
                token => row[token as usize] = 9.0,
            }
            logits.push(&row)?;
        }
        Ok(logits)
    }

    fn context_length(&self) -> usize {
        self.context
    }

    fn sequences(&self) -> usize {
        self.said.len()
    }

    fn release(&mut self, _sequence: SequenceId) {}

    fn bytes(&self) -> Bytes {
        Bytes::default()
    }
}

/// Script entries that are no tokens.
const PANIC: u32 = u32::MAX;
const NAN: u32 = u32::MAX - 1;

struct Bench {
    engine: Engine,
    batches: Arc<Mutex<Vec<Batch>>>,
    permits: Option<Sender<()>>,
}

fn tiny() -> Arc<Model> {
    let gguf = Gguf::parse(tiny_model("llama", 1)).expect("a good file");
    Arc::new(Model::from_gguf(gguf).expect("a good model"))
}

fn tokens(text: &str) -> Vec<u32> {
    tiny().tokenizer().encode(text, Special::Parse)
}

/// An engine that says `script`, step by step when `gated`.
fn bench(script: Vec<u32>, sequences: usize, gated: bool, template: Option<&str>) -> Bench {
    let (sender, receiver) = channel();
    let batches = Arc::default();
    let executor = Scripted {
        script,
        said: vec![0; sequences],
        context: 40,
        permits: gated.then_some(receiver),
        batches: Arc::clone(&batches),
    };
    let template = prompt::compile(template).expect("a good template");
    let prompter = Prompter::new(tiny(), template);
    let engine = Engine::start(prompter, Box::new(executor)).expect("a thread starts");
    Bench { engine, batches, permits: gated.then_some(sender) }
}

fn saying(text: &str) -> Bench {
    bench(tokens(text), 1, false, None)
}

fn request(prompt: &str, change: impl FnOnce(&mut Options)) -> Request {
    let mut options = Options { temperature: 0.0, ..Options::default() };
    change(&mut options);
    Request { prompt: Prompt::Raw(prompt.to_owned()), options, truncate: false }
}

impl Bench {
    fn submit(&self, request: Request) -> (RequestId, Receiver<Event>) {
        let (sender, receiver) = channel();
        let sink = Box::new(move |event| sender.send(event).expect("the test listens"));
        (self.engine.submit(request, sink), receiver)
    }

    fn run(&self, request: Request) -> Outcome {
        outcome(&self.submit(request).1)
    }

    fn permit(&self, steps: usize) {
        let permits = self.permits.as_ref().expect("a gated bench");
        (0..steps).for_each(|_| permits.send(()).expect("the engine runs"));
    }
}

#[derive(Debug, Default)]
struct Outcome {
    thinking: String,
    content: String,
    end: Option<Result<Done, Failure>>,
}

impl Outcome {
    fn done(self) -> Done {
        self.end.expect("an end").expect("a good end")
    }

    fn failure(self) -> Failure {
        self.end.expect("an end").expect_err("a bad end")
    }
}

/// Everything up to the last event, which must come.
fn outcome(events: &Receiver<Event>) -> Outcome {
    let mut outcome = Outcome::default();
    loop {
        match events.recv_timeout(PATIENCE).expect("an event in time") {
            Event::Thinking(text) => outcome.thinking += &text,
            Event::Content(text) => outcome.content += &text,
            Event::Done(done) => outcome.end = Some(Ok(done)),
            Event::Failed(failure) => outcome.end = Some(Err(failure)),
            Event::Queued { .. } | Event::Prefill { .. } => {}
        }
        if outcome.end.is_some() {
            return outcome;
        }
    }
}

#[test]
fn an_answer_ends_at_the_models_end_token() {
    let bench = saying("hello<|im_end|>never");
    let outcome = bench.run(request("abc", |_| ()));
    assert_eq!(outcome.content, "hello");
    let done = outcome.done();
    assert_eq!(done.reason, FinishReason::Stop);
    assert_eq!(done.context, tokens("abchello<|im_end|>"));
    assert_eq!(done.usage.prompt_tokens as usize, tokens("abc").len());
    assert_eq!(done.usage.output_tokens as usize, tokens("hello").len());
    assert!(done.usage.prompt_ns > 0 && done.usage.output_ns > 0);
    let stats = bench.engine.stats();
    assert_eq!((stats.queued, stats.running, stats.finished), (0, 0, 1));
    assert_eq!(stats.output_tokens, u64::from(done.usage.output_tokens));
}

#[test]
fn an_answer_ends_at_a_stop_sequence_across_tokens() {
    let stops = |options: &mut Options| options.stop = vec!["lo w".to_owned()];
    let outcome = saying("hello world").run(request("x", stops));
    assert_eq!(outcome.content, "hel");
    assert_eq!(outcome.done().reason, FinishReason::Stop);
}

#[test]
fn an_answer_ends_at_its_length_or_the_contexts() {
    let bench = saying("a");
    let with = |count| request("xyz", move |o: &mut Options| o.num_predict = count);
    for (count, want) in [(0, 0), (5, 5), (1000, 37), (-1, 37), (-2, 37)] {
        let outcome = bench.run(with(count));
        assert_eq!(outcome.content.len(), want, "num_predict {count}");
        assert_eq!(outcome.done().reason, FinishReason::Length);
    }
}

#[test]
fn characters_are_whole_though_their_bytes_come_apart() {
    let bench = saying("é🦀字<|im_end|>");
    let (_, events) = bench.submit(request("x", |_| ()));
    let mut pieces = Vec::new();
    while let Ok(event) = events.recv_timeout(PATIENCE) {
        match event {
            Event::Content(text) => pieces.push(text),
            Event::Done(_) => break,
            _ => {}
        }
    }
    assert_eq!(pieces, ["é", "🦀", "字"]);
}

#[test]
fn thinking_and_answer_are_told_apart_and_counted() {
    let bench = bench(tokens("ab</think>\n\nc<|im_end|>"), 1, false, Some(THINKING));
    let conversation = crate::Conversation {
        messages: vec![crate::Message { role: "user".to_owned(), ..crate::Message::default() }],
        ..crate::Conversation::default()
    };
    let mut request = request("", |_| ());
    request.prompt = Prompt::Chat(conversation);
    assert!(bench.engine.loaded().thinking);
    let outcome = bench.run(request);
    assert_eq!((outcome.thinking.as_str(), outcome.content.as_str()), ("ab", "c"));
    let usage = outcome.done().usage;
    // The closing tag is one token and belongs to the thinking.
    assert_eq!(usage.thinking_tokens as usize, tokens("ab</think>").len());
    assert!(usage.output_tokens > usage.thinking_tokens);
}

#[test]
fn requests_wait_in_order_and_hear_their_place() {
    let bench = bench(tokens("<|im_end|>"), 1, true, None);
    let (_, first) = bench.submit(request("a", |_| ()));
    let (_, second) = bench.submit(request("b", |_| ()));
    let (_, third) = bench.submit(request("c", |_| ()));
    assert_eq!(second.recv_timeout(PATIENCE), Ok(Event::Queued { position: 1 }));
    assert_eq!(third.recv_timeout(PATIENCE), Ok(Event::Queued { position: 2 }));
    bench.permit(3);
    for events in [&first, &second, &third] {
        assert_eq!(outcome(events).done().reason, FinishReason::Stop);
    }
    let batches = bench.batches.lock().expect("whole");
    let order: Vec<u32> = batches.iter().map(|batch| batch.tokens[0]).collect();
    assert_eq!(order, tokens("abc"));
}

#[test]
fn a_cancelled_request_ends_within_one_step() {
    let bench = bench(tokens("a"), 1, true, None);
    let (id, events) = bench.submit(request("x", |_| ()));
    let (waiting, queued) = bench.submit(request("y", |_| ()));
    bench.permit(1);
    while !matches!(events.recv_timeout(PATIENCE).expect("in time"), Event::Content(_)) {}
    bench.engine.cancel(waiting);
    bench.engine.cancel(id);
    bench.permit(1);
    assert_eq!(outcome(&events).failure().kind, FailureKind::Cancelled);
    assert_eq!(outcome(&queued).failure().kind, FailureKind::Cancelled);
    assert!(bench.batches.lock().expect("whole").len() <= 2);
    // A cancelled request that is gone already disturbs nobody.
    bench.engine.cancel(id);
    bench.permit(3);
    let last = bench.run(request("z", |o: &mut Options| o.num_predict = 2));
    assert_eq!(last.content, "aa");
}

#[test]
fn two_sequences_share_a_batch() {
    let bench = bench(tokens("hi<|im_end|>"), 2, true, None);
    let (_, first) = bench.submit(request("abc", |_| ()));
    let (_, second) = bench.submit(request("d", |_| ()));
    bench.permit(20);
    assert_eq!(outcome(&first).content, "hi");
    assert_eq!(outcome(&second).content, "hi");
    let batches = bench.batches.lock().expect("whole");
    assert!(batches.iter().any(|batch| batch.sequences.len() == 2), "{batches:?}");
}

#[test]
fn a_long_prompt_is_read_in_chunks() {
    let prompter = Prompter::new(tiny(), None);
    let batches = Arc::default();
    let executor = Scripted {
        script: tokens("<|im_end|>"),
        said: vec![0],
        context: 600,
        permits: None,
        batches: Arc::clone(&batches),
    };
    let engine = Engine::start(prompter, Box::new(executor)).expect("a thread starts");
    let bench = Bench { engine, batches, permits: None };
    let (_, events) = bench.submit(request(&"Z".repeat(500), |_| ()));
    let heard = events.iter().map_while(|event| match event {
        Event::Prefill { done, total: 500 } => Some(done),
        _ => None,
    });
    let heard: Vec<u32> = heard.collect();
    // How many follow depends on the time that they take.
    assert!(heard.starts_with(&[64]) && heard.ends_with(&[500]) && heard.is_sorted(), "{heard:?}");
    assert!(heard.array_windows().all(|[one, next]| next - one <= 256), "{heard:?}");
}

#[test]
fn a_broken_step_fails_its_request_and_no_other() {
    let mut script = tokens("ab");
    script.push(PANIC);
    let bench = bench(script, 1, false, None);
    for _ in 0..2 {
        let outcome = bench.run(request("x", |_| ()));
        assert_eq!(outcome.content, "ab");
        let failure = outcome.failure();
        assert_eq!(failure.kind, FailureKind::Internal);
        assert!(failure.message.contains("the script says so"), "{failure}");
    }
    let short = bench.run(request("x", |o: &mut Options| o.num_predict = 2));
    assert_eq!(short.done().reason, FinishReason::Length);
}

#[test]
fn a_logit_that_is_no_number_names_its_step() {
    let mut script = tokens("ab");
    script.push(NAN);
    let failure = bench(script, 1, false, None).run(request("x", |_| ())).failure();
    assert_eq!(failure.kind, FailureKind::Internal);
    assert!(failure.message.starts_with("step 2: the logit of token 3 is NaN"), "{failure}");
}

#[test]
fn a_sink_that_panics_ends_its_request_only() {
    let bench = bench(tokens("a"), 1, true, None);
    let sink = Box::new(|event: Event| assert!(!matches!(event, Event::Content(_)), "gone"));
    bench.engine.submit(request("x", |_| ()), sink);
    bench.permit(20);
    let next = bench.run(request("y", |o: &mut Options| o.num_predict = 1));
    assert_eq!(next.content, "a");
    let for_first = bench.batches.lock().expect("whole").len() - 1;
    assert_eq!(for_first, 1, "steps for a request that nobody hears");
}

#[test]
fn bad_options_and_long_prompts_fail_before_a_step() {
    let bench = saying("a");
    let failure = bench.run(request("x", |o: &mut Options| o.top_p = 3.0)).failure();
    assert_eq!(failure.kind, FailureKind::BadRequest);
    let failure = bench.run(request(&"Z".repeat(40), |_| ())).failure();
    assert_eq!(failure.kind, FailureKind::ContextLength);
    assert!(bench.batches.lock().expect("whole").is_empty());
}

#[test]
fn a_full_queue_refuses_and_an_unloaded_model_says_so() {
    let mut bench = bench(tokens("a"), 1, true, None);
    let (_, running) = bench.submit(request("x", |_| ()));
    while bench.engine.stats().running == 0 {
        std::thread::yield_now();
    }
    let waiting: Vec<_> = (0..WAITING_MAX).map(|_| bench.submit(request("x", |_| ())).1).collect();
    let (_, refused) = bench.submit(request("x", |_| ()));
    assert_eq!(outcome(&refused).failure().kind, FailureKind::Busy);
    bench.permits = None;
    drop(bench);
    // The running one may have ended by itself; nobody is left without an end.
    outcome(&running);
    for events in &waiting {
        outcome(events);
    }
}

fn load(architecture: &str, options: &LoadOptions) -> (Engine, Vec<f32>) {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(&tiny_model(architecture, 7)).expect("it has room");
    let mut heard = Vec::new();
    let engine = Engine::load(&[file.path()], options, &mut |share| heard.push(share));
    (engine.expect("it loads"), heard)
}

#[test]
fn refusals_come_before_the_weights() {
    let mut other_words = tiny_model("llama", 7);
    let at = other_words.windows(6).position(|word| word == b"smollm").expect("the pre-tokenizer");
    other_words[at..at + 6].copy_from_slice(b"tekken");
    let template = Some("{% if %}".to_owned());
    let broken = LoadOptions { template, ..LoadOptions::default() };
    for (bytes, options, expected) in [
        (tiny_model("llama", 7), broken, "the template given with the model is broken"),
        (other_words, LoadOptions::default(), "pre-tokenizer \"tekken\" is not supported"),
    ] {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(&bytes).expect("it has room");
        let mut heard = Vec::new();
        let engine = Engine::load(&[file.path()], &options, &mut |share| heard.push(share));
        let error = engine.map(|_| ()).expect_err("refused").to_string();
        assert!(error.starts_with(expected), "{error}");
        assert_eq!(heard, [0.0], "{expected}");
    }
}

#[test]
fn tiny_models_run() {
    for architecture in ["llama", "qwen2"] {
        let options = LoadOptions { context_length: Some(96), ..LoadOptions::default() };
        let (engine, heard) = load(architecture, &options);
        assert!(heard.is_sorted() && heard.first() == Some(&0.0) && heard.last() == Some(&1.0));
        let loaded = engine.loaded().clone();
        assert_eq!((loaded.architecture.as_str(), loaded.context_length), (architecture, 96));
        assert!(loaded.fill && !loaded.thinking && loaded.bytes.weights > 0);
        let bench = Bench { engine, batches: Arc::default(), permits: None };
        let seeded = |seed| {
            bench.run(request("the water in", move |o: &mut Options| {
                (o.temperature, o.seed, o.num_predict) = (1.5, Some(seed), 24);
            }))
        };
        let first = seeded(1).done();
        assert_eq!(first.context, seeded(1).done().context, "{architecture}: a seed decides");
        assert_ne!(first.context, seeded(2).done().context, "{architecture}: another seed");
    }
}

#[test]
fn a_bad_template_or_file_is_refused() {
    let options = LoadOptions { template: Some("{% if %}".to_owned()), ..LoadOptions::default() };
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(&tiny_model("llama", 7)).expect("it has room");
    let error = Engine::load(&[file.path()], &options, &mut |_| ()).expect_err("refused");
    assert!(matches!(error, LoadError::Template(_)), "{error}");
    let nothing = file.path().with_extension("absent");
    let error =
        Engine::load(&[&nothing], &LoadOptions::default(), &mut |_| ()).expect_err("absent");
    assert!(matches!(error, LoadError::Model(_)), "{error}");
}
