//! Models that are accepted, and every way to be refused.

use std::path::{Path, PathBuf};
use std::process::Command;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor};
use dsk_kernels::dequantize::dequantize;
use dsk_kernels::format::Format;
use proptest::prelude::*;

use super::*;
use crate::engine::LoadOptions;
use crate::executor::{self, Batch, SequenceId};
use crate::gguf::testkit::{Random, Writer, families, tiny_model, tiny_writer};

fn open(bytes: Vec<u8>) -> Result<Model, ModelError> {
    Model::from_gguf(Gguf::parse(bytes).unwrap())
}

fn refused(writer: &Writer) -> String {
    open(writer.finish()).map(|_| ()).unwrap_err().to_string()
}

/// The path of a real model; fetched when it is not there yet.
fn real(name: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models.py");
    let output = Command::new("python3").arg(script).arg(name).output().expect("python3 runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tests/models.py {name} failed: {errors}");
    PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim())
}

#[test]
fn tiny_models_of_both_families_open() {
    for architecture in ["llama", "qwen2"] {
        let model = open(tiny_model(architecture, 7)).unwrap();
        assert_eq!(model.architecture(), architecture);
        assert_eq!((model.header().block_count, model.header().key_length), (2, 16));
        assert_eq!(model.tokenizer().vocab_size(), 300);
        assert_eq!(model.summary().file_type, "F32");
        assert!(model.chat_template().unwrap().contains("<|im_start|>"));
    }
}

#[test]
fn real_models_are_summed_up() {
    let table = [
        ("smollm2", "llama 134.52M Q4_1 context 8192 embedding 576 blocks 30 heads 9/3"),
        ("qwen2.5-coder", "qwen2 630.17M Q4_K_M context 32768 embedding 896 blocks 24 heads 14/2"),
        (
            "deepseek-r1-7b-header",
            "qwen2 7.6B Q4_K_M context 131072 embedding 3584 blocks 28 heads 28/4",
        ),
    ];
    for (name, expected) in table {
        let gguf = Gguf::open_header(&real(name)).unwrap();
        let s = Summary::read(&gguf).unwrap();
        let text = format!(
            "{} {} {} context {} embedding {} blocks {} heads {}/{}",
            s.architecture,
            s.size_label,
            s.file_type,
            s.context_length,
            s.embedding_length,
            s.block_count,
            s.head_count,
            s.head_count_kv
        );
        assert_eq!(text, expected);
        let header = Header::read(&gguf).unwrap();
        assert_eq!(header.embedding_length, s.embedding_length);
    }
}

#[test]
fn a_model_without_its_data_is_not_opened() {
    let error = Model::open(&real("deepseek-r1-7b-header")).unwrap_err().to_string();
    assert!(error.contains("end after the file's 199229440 bytes"), "{error}");
}

#[test]
fn what_cannot_be_computed_is_refused_by_name() {
    let llama = || tiny_writer("llama", 1);
    let f32 = Format::F32.ggml_id();
    let freqs = |writer: Writer| writer.tensor("rope_freqs.weight", &[8], f32, vec![0; 32]);
    let families = "gemma3, llama, phi3, qwen2, qwen3 are";
    let unknown = format!("architecture \"mamba\" is not supported; {families}");
    let cases: [(Writer, &str); 13] = [
        (tiny_writer("mamba", 1), &unknown),
        (llama().u32("split.count", 3), "not a whole model: it is one of 3 parts"),
        (llama().str("llama.rope.scaling.type", "dynamic"), "an unknown kind, which is not"),
        (freqs(llama().f32("llama.rope.scale_linear", 4.0)), "stretched in two ways"),
        (freqs(llama().str("llama.rope.scaling.type", "yarn")), "(tensor rope_freqs.weight and"),
        (llama().f32("llama.residual_scale", 0.5), "scaled residuals"),
        (llama().f32("llama.logit_scale", 0.1), "scaled logits"),
        (
            llama()
                .str("llama.rope.scaling.type", "yarn")
                .f32("llama.rope.scaling.yarn_ext_factor", 0.5),
            "a variant of YaRN",
        ),
        (llama().u32("llama.expert_count", 8), "a mixture of experts"),
        (llama().bool("llama.attention.causal", false), "attention in both directions"),
        (
            tiny_writer("qwen2", 1).tensor("blk.0.attn_output.bias", &[64], f32, vec![0; 256]),
            "tensor \"blk.0.attn_output.bias\" is not part of a model of architecture qwen2",
        ),
        (
            llama().tensor("blk.2.attn_q.weight", &[64, 64], f32, vec![0; 16384]),
            "tensor \"blk.2.attn_q.weight\" is not part of",
        ),
        (llama().tensor("cls.weight", &[4], 0, vec![0; 16]), "tensor \"cls.weight\" is not part"),
    ];
    for (writer, expected) in cases {
        let error = refused(&writer);
        assert!(error.contains(expected), "{error:?} should contain {expected:?}");
    }
}

#[test]
fn neutral_settings_are_accepted() {
    let writer = tiny_writer("llama", 1)
        .str("llama.rope.scaling.type", "none")
        .f32("llama.rope.scale_linear", 1.0)
        .f32("llama.final_logit_softcapping", 0.0)
        .u32("llama.attention.sliding_window", 0)
        .u32("llama.expert_count", 0)
        .u32("llama.attention.key_length", 16)
        .u32("split.count", 1);
    assert!(open(writer.finish()).is_ok());
}

#[test]
fn settings_that_are_honoured_are_read() {
    let header = |writer: Writer| open(writer.finish()).unwrap().header().clone();
    let llama = || tiny_writer("llama", 1);
    assert_eq!(header(llama()).rotary.stretch, Stretch::None);
    let linear = header(llama().f32("llama.rope.scaling.factor", 4.0));
    assert_eq!(linear.rotary.stretch, Stretch::Linear { factor: 4.0 });
    let yarn = llama()
        .str("llama.rope.scaling.type", "yarn")
        .f32("llama.rope.scaling.factor", 8.0)
        .f32("llama.rope.scaling.attn_factor", 0.5)
        .u32("llama.rope.scaling.original_context_length", 64);
    let yarn = header(yarn).rotary;
    let (factor, original_context) = (8.0, 64);
    let stretch = Stretch::Yarn { factor, original_context, beta_fast: 32.0, beta_slow: 1.0 };
    assert_eq!((yarn.stretch, yarn.magnitude), (stretch, 0.5));
    let ones = [1.0f32.to_le_bytes(); 8].concat();
    let freqs = llama().tensor("rope_freqs.weight", &[8], Format::F32.ggml_id(), ones);
    assert_eq!(header(freqs).rotary.stretch, Stretch::Tensor);
    let window = header(llama().u32("llama.attention.sliding_window", 24));
    assert!(window.is_windowed(0) && window.window == Some(24));
    let capped = llama()
        .f32("llama.final_logit_softcapping", 30.0)
        .f32("llama.attn_logit_softcapping", 50.0)
        .f32("llama.attention.scale", 0.125);
    let capped = header(capped);
    assert_eq!(
        (capped.logit_cap, capped.score_cap, capped.score_scale),
        (Some(30.0), Some(50.0), 0.125)
    );
}

/// Replaces the value bytes of a key that is there once.
fn patched(architecture: &str, key: &str, value: &[u8]) -> String {
    let mut bytes = tiny_model(architecture, 1);
    let at = bytes.windows(key.len()).position(|window| window == key.as_bytes()).unwrap();
    let at = at + key.len() + 4;
    bytes[at..at + value.len()].copy_from_slice(value);
    open(bytes).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn hyper_parameters_without_sense_are_errors() {
    let cases: [(&str, [u8; 4], &str); 10] = [
        ("llama.block_count", 0u32.to_le_bytes(), "0 is not between 1 and 1024"),
        ("llama.block_count", u32::MAX.to_le_bytes(), "4294967295 is not between 1 and 1024"),
        ("llama.attention.head_count", 0u32.to_le_bytes(), "0 is not between 1 and 4096"),
        ("llama.attention.head_count", 6u32.to_le_bytes(), "6 heads do not share 64 numbers"),
        ("llama.rope.dimension_count", 18u32.to_le_bytes(), "18 of the 16 numbers of a head"),
        ("llama.attention.head_count_kv", 3u32.to_le_bytes(), "3 does not divide the 4 heads"),
        ("llama.attention.head_count_kv", 0u32.to_le_bytes(), "0 is not between 1 and 4096"),
        ("llama.context_length", 0u32.to_le_bytes(), "0 is not between 1 and 16777216"),
        ("llama.rope.freq_base", f32::NAN.to_le_bytes(), "NaN is not a positive number"),
        (
            "llama.attention.layer_norm_rms_epsilon",
            (-1f32).to_le_bytes(),
            "-1 is not a positive number",
        ),
    ];
    for (key, value, expected) in cases {
        // The key's own length tells `head_count` from `head_count_kv`.
        let prefixed = [&(key.len() as u64).to_le_bytes()[..], key.as_bytes()].concat();
        let prefixed = String::from_utf8(prefixed).unwrap();
        let error = patched("llama", &prefixed, &value);
        assert!(error.contains(expected) && error.contains(key), "{error:?}: {key} {expected:?}");
    }
}

#[test]
fn tensors_must_follow_from_the_hyper_parameters() {
    let error = patched("llama", "llama.feed_forward_length", &64u32.to_le_bytes());
    assert_eq!(error, "tensor \"blk.0.ffn_gate.weight\" has shape [64, 128], expected [64, 64]");
    let error = patched("llama", "llama.block_count", &3u32.to_le_bytes());
    assert_eq!(error, "the GGUF file has no tensor \"blk.2.attn_norm.weight\"");
    let mut bytes = tiny_model("qwen2", 1);
    let at = bytes.windows(11).position(|window| window == b"attn_k.bias").unwrap();
    bytes[at..at + 11].copy_from_slice(b"attn_x.bias");
    let error = open(bytes).map(|_| ()).unwrap_err().to_string();
    assert_eq!(error, "the GGUF file has no tensor \"blk.0.attn_k.bias\"");
}

/// A tiny model of a family with one more key.
fn with_key(family: &str, key: impl FnOnce(Writer) -> Writer) -> String {
    let bytes = key(families::writer(family, 1).expect("a family of the test kit")).finish();
    open(bytes).map_or_else(|error| error.to_string(), |_| "accepted".to_owned())
}

#[test]
fn a_setting_that_nobody_reads_is_refused() {
    let refused = "the model uses a setting that is not known, which is not supported";
    let error = with_key("llama", |writer| writer.u32("llama.nonsense", 3));
    assert!(error.starts_with(refused) && error.contains("llama.nonsense"), "{error}");
    let key = "llama.rope.scaling.yarn_log_multiplier";
    let error = with_key("llama-yarn", |writer| writer.f32(key, 1.0));
    assert!(error.starts_with(refused) && error.contains(key), "{error}");
    assert_eq!(with_key("llama", |writer| writer.u32("llama.vocab_size", 9)), "accepted");
    assert_eq!(with_key("llama", |writer| writer.u32("other.nonsense", 9)), "accepted");
}

#[test]
fn windows_and_their_rotations_are_those_of_the_family() {
    let pattern = "gemma3.attention.sliding_window_pattern";
    assert_eq!(with_key("gemma3", |writer| writer.u32(pattern, 6)), "accepted");
    assert!(with_key("gemma3", |writer| writer.u32(pattern, 4)).contains(pattern));
    let local = "gemma3.rope.local.freq_base";
    assert_eq!(with_key("gemma3", |writer| writer.f32(local, 10_000.0)), "accepted");
    assert!(with_key("gemma3", |writer| writer.f32(local, 20_000.0)).contains(local));
}

#[test]
fn formats_without_code_are_refused_with_the_tensor() {
    let retyped = |type_id: u32| {
        let mut bytes = tiny_model("llama", 1);
        let name = b"output_norm.weight";
        let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
        let at = at + name.len() + 4 + 8;
        bytes[at..at + 4].copy_from_slice(&type_id.to_le_bytes());
        open(bytes).map(|_| ()).unwrap_err().to_string()
    };
    let error = retyped(Format::I32.ggml_id());
    assert!(error.starts_with("tensor \"output_norm.weight\" is stored as I32; supported are F32"));
    assert!(retyped(77).contains("is stored as type 77; supported are"), "{}", retyped(77));
}

#[test]
fn the_dominant_format_stands_in_for_a_missing_file_type() {
    let writer = Writer::new()
        .str("general.architecture", "anything")
        .tensor("small", &[4], Format::F32.ggml_id(), vec![0; 16])
        .tensor("large", &[64], Format::Q8_0.ggml_id(), vec![0; 68]);
    let summary = Summary::read(&Gguf::parse(writer.finish()).unwrap()).unwrap();
    assert_eq!((summary.file_type.as_str(), summary.size_label.as_str()), ("Q8_0", "68"));
    assert_eq!((summary.context_length, summary.chat_template), (0, None));
    let counted = writer.u32("general.parameter_count", 1_500_000).finish();
    let summary = Summary::read(&Gguf::parse(counted).unwrap()).unwrap();
    assert_eq!(summary.size_label, "1.50M");
}

/// Loads the model and runs it, if it is not refused.
fn run_one_token(model: &Model) {
    let options = LoadOptions { threads: Some(1), ..LoadOptions::default() };
    if let Ok(mut executor) = executor::open(model.network(), &options, &mut |_| ()) {
        let mut batch = Batch::default();
        batch.push(SequenceId(0), 0, &[1], true);
        let _ = executor.step(&batch);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Bytes of the header changed at random: accepted or refused, never a panic.
    #[test]
    fn mutated_models_never_panic(seed in any::<u64>(), mutations in 1usize..8) {
        let mut bytes = tiny_model("qwen2", 3);
        let header_len = Gguf::parse(bytes.clone()).unwrap().data_offset() as usize;
        let mut random = Random::new(seed);
        for _ in 0..mutations {
            let at = random.below(header_len);
            bytes[at] = random.bits() as u8;
        }
        if let Ok(gguf) = Gguf::parse(bytes) {
            let _ = Summary::read(&gguf);
            if let Ok(model) = Model::from_gguf(gguf) {
                run_one_token(&model);
            }
        }
    }
}

/// The formats that both know, and candle's name of each.
const SHARED: [(Format, GgmlDType); 13] = [
    (Format::F32, GgmlDType::F32),
    (Format::F16, GgmlDType::F16),
    (Format::BF16, GgmlDType::BF16),
    (Format::Q4_0, GgmlDType::Q4_0),
    (Format::Q4_1, GgmlDType::Q4_1),
    (Format::Q5_0, GgmlDType::Q5_0),
    (Format::Q5_1, GgmlDType::Q5_1),
    (Format::Q8_0, GgmlDType::Q8_0),
    (Format::Q2_K, GgmlDType::Q2K),
    (Format::Q3_K, GgmlDType::Q3K),
    (Format::Q4_K, GgmlDType::Q4K),
    (Format::Q5_K, GgmlDType::Q5K),
    (Format::Q6_K, GgmlDType::Q6K),
];

/// The scalar reference reads the blocks that candle writes as candle itself does.
#[test]
fn blocks_are_read_as_candle_reads_them() {
    let mut random = Random::new(11);
    let numbers: Vec<f32> = (0..4096).map(|_| random.unit() * 3.0).collect();
    let source = Tensor::from_vec(numbers, (8, 512), &Device::Cpu).unwrap();
    for (format, dtype) in SHARED {
        let blocks = QTensor::quantize(&source, dtype).unwrap();
        let bytes = blocks.data().unwrap();
        assert_eq!(format.bytes(4096), Some(bytes.len() as u64), "{format}");
        let mut ours = vec![0.0; 4096];
        dequantize(format, &bytes, &mut ours).unwrap();
        let theirs = blocks.dequantize(&Device::Cpu).unwrap();
        let theirs: Vec<f32> = theirs.flatten_all().unwrap().to_vec1().unwrap();
        same_numbers(format, &ours, &theirs);
    }
}

/// The same for blocks of random bits, which reach every corner of the layouts.
#[test]
fn random_blocks_are_read_as_candle_reads_them() {
    let mut random = Random::new(12);
    for (format, dtype) in SHARED {
        let len = format.bytes(8192).unwrap() as usize;
        // The top bit of every exponent is cleared: infinities and NaN compare with nothing.
        let bytes: Vec<u8> = (0..len).map(|_| random.bits() as u8 & 0xbf).collect();
        let storage = QStorage::from_data(bytes.as_slice().into(), &Device::Cpu, dtype).unwrap();
        let blocks = QTensor::new(storage, 8192).unwrap();
        let theirs = blocks.dequantize(&Device::Cpu).unwrap().to_vec1::<f32>().unwrap();
        let mut ours = vec![0.0; 8192];
        dequantize(format, &bytes, &mut ours).unwrap();
        same_numbers(format, &ours, &theirs);
    }
}

fn same_numbers(format: Format, ours: &[f32], theirs: &[f32]) {
    for (index, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        // The order of multiplications may differ by a rounding.
        let close = (ours - theirs).abs() <= 1e-5 * ours.abs().max(1e-20);
        assert!(close, "{format} element {index}: {ours}, candle reads {theirs}");
    }
}
