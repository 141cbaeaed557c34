//! Hands a checked file's tensors to candle.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io::{self, Cursor, Read, Seek, SeekFrom};

use candle_core::Device;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::VersionedMagic;
use candle_core::quantized::gguf_file::{Content, TensorInfo as CandleTensor, Value};
use candle_transformers::models::{quantized_llama, quantized_qwen2};
use dsk_kernels::dequantize::dequantize;
use dsk_kernels::format::Format;

use super::{Precision, Weights};
use crate::executor::ExecutorError;
use crate::gguf::{Gguf, TensorInfo};
use crate::model::{Header, Network, Stretch};

/// Builds candle's model from the file's tensors.
pub(super) fn load(
    network: &Network,
    context_length: u32,
    precision: Precision,
    progress: &mut dyn FnMut(f32),
) -> Result<Weights, ExecutorError> {
    let gguf = network.gguf();
    refuse_unknown(network.header())?;
    let content = content(gguf, network.header(), context_length, precision)?;
    let mut source = Source::new(gguf, precision, progress);
    let weights = match network.header().architecture.name() {
        "llama" => quantized_llama::ModelWeights::from_gguf(content, &mut source, &Device::Cpu)
            .map(Weights::Llama),
        _ => quantized_qwen2::ModelWeights::from_gguf(content, &mut source, &Device::Cpu)
            .map(Weights::Qwen2),
    };
    // The backtrace that candle adds to its text is of no use to anybody.
    let weights = weights.map_err(|error| ExecutorError::Unsupported(first_line(&error)))?;
    refuse_unread(gguf, &source.read)?;
    for tensor in gguf.tensors() {
        gguf.release(tensor);
    }
    Ok(weights)
}

/// Refuses families and settings that candle's two models would run wrongly.
fn refuse_unknown(header: &Header) -> Result<(), ExecutorError> {
    let name = header.architecture.name();
    let plain_heads = header.key_length == header.embedding_length / header.head_count
        && header.value_length == header.key_length
        && header.rotary.dimensions == header.key_length;
    let refused = [
        (name != "llama" && name != "qwen2", name),
        (!plain_heads, "heads of a size of their own"),
        (header.rotary.stretch != Stretch::None, "a stretched rotary embedding"),
        (header.rotary.magnitude != 1.0, "a scaled rotary embedding"),
        (header.window.is_some(), "a sliding attention window"),
        (header.score_cap.is_some() || header.logit_cap.is_some(), "capped scores or logits"),
    ];
    match refused.into_iter().find(|(refuse, _)| *refuse) {
        None => Ok(()),
        Some((_, what)) => {
            Err(ExecutorError::Unsupported(format!("candle has no code for {what}")))
        }
    }
}

/// The header that candle would have read, made from ours.
fn content(
    gguf: &Gguf,
    header: &Header,
    context_length: u32,
    precision: Precision,
) -> Result<Content, ExecutorError> {
    let tensor_infos = gguf
        .tensors()
        .iter()
        .enumerate()
        .map(|(index, info)| Ok((info.name.clone(), of_tensor(info, index, precision)?)))
        .collect::<Result<HashMap<_, _>, ExecutorError>>()?;
    Ok(Content {
        magic: VersionedMagic::GgufV3,
        metadata: metadata(header, context_length),
        tensor_infos,
        tensor_data_offset: 0,
    })
}

/// The keys that candle asks for.
fn metadata(header: &Header, context_length: u32) -> HashMap<String, Value> {
    let integers = [
        ("attention.head_count", header.head_count),
        ("attention.head_count_kv", header.head_count_kv),
        ("block_count", header.block_count),
        ("embedding_length", header.embedding_length),
        ("rope.dimension_count", header.key_length),
        // Only the size of the rope tables follows from it.
        ("context_length", context_length),
    ];
    let floats = [
        ("attention.layer_norm_rms_epsilon", header.rms_epsilon),
        ("rope.freq_base", header.rotary.base),
    ];
    let key = |name: &str| format!("{}.{name}", header.architecture);
    let integers = integers.into_iter().map(|(name, value)| (key(name), Value::U32(value)));
    let floats = floats.into_iter().map(|(name, value)| (key(name), Value::F32(value)));
    integers.chain(floats).collect()
}

/// A tensor's offset, as candle is told it, is its place in the table: files of a model have the same ones.
fn of_tensor(
    info: &TensorInfo,
    index: usize,
    precision: Precision,
) -> Result<CandleTensor, ExecutorError> {
    let format = match precision {
        Precision::Packed => info.format.known(),
        Precision::Unpacked => Some(Format::F32),
    };
    let Some(ggml_dtype) = format.and_then(dtype) else {
        let text = format!("tensor {:?} has format {}", info.name, info.format);
        return Err(ExecutorError::Unsupported(text));
    };
    // candle counts the slowest varying extent first.
    let shape: Vec<usize> = info.shape.iter().rev().map(|&extent| extent as usize).collect();
    Ok(CandleTensor { ggml_dtype, shape: shape.into(), offset: index as u64 })
}

fn dtype(format: Format) -> Option<GgmlDType> {
    Some(match format {
        Format::F32 => GgmlDType::F32,
        Format::F16 => GgmlDType::F16,
        Format::BF16 => GgmlDType::BF16,
        Format::Q4_0 => GgmlDType::Q4_0,
        Format::Q4_1 => GgmlDType::Q4_1,
        Format::Q5_0 => GgmlDType::Q5_0,
        Format::Q5_1 => GgmlDType::Q5_1,
        Format::Q8_0 => GgmlDType::Q8_0,
        Format::Q2_K => GgmlDType::Q2K,
        Format::Q3_K => GgmlDType::Q3K,
        Format::Q4_K => GgmlDType::Q4K,
        Format::Q5_K => GgmlDType::Q5K,
        Format::Q6_K => GgmlDType::Q6K,
        _ => return None,
    })
}

/// A tensor that candle never asked for is part of a model that candle would run wrongly.
fn refuse_unread(gguf: &Gguf, read: &HashSet<u64>) -> Result<(), ExecutorError> {
    let mut all = gguf.tensors().iter().enumerate();
    match all.find(|(index, _)| !read.contains(&(*index as u64))) {
        None => Ok(()),
        Some((_, info)) => {
            let text = format!("candle has no use for tensor {:?}", info.name);
            Err(ExecutorError::Unsupported(text))
        }
    }
}

fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// The data section, as far as it is tensors: a seek goes to the start of one, reads stay in it.
struct Source<'a> {
    gguf: &'a Gguf,
    precision: Precision,
    /// The tensor that is being read, in the form candle was told of.
    tensor: Cursor<Cow<'a, [u8]>>,
    /// Offsets of the tensors that were read.
    read: HashSet<u64>,
    bytes_read: u64,
    bytes_all: u64,
    progress: &'a mut dyn FnMut(f32),
}

impl<'a> Source<'a> {
    fn new(gguf: &'a Gguf, precision: Precision, progress: &'a mut dyn FnMut(f32)) -> Source<'a> {
        let tensors = gguf.tensors();
        Source {
            gguf,
            precision,
            tensor: Cursor::new(Cow::Borrowed(&[])),
            read: HashSet::new(),
            bytes_read: 0,
            bytes_all: tensors.iter().filter_map(|info| info.bytes).sum(),
            progress,
        }
    }

    /// Makes the tensor that starts at `offset` the one to read.
    fn open(&mut self, offset: u64) -> io::Result<()> {
        let nothing = || io::Error::new(io::ErrorKind::InvalidInput, "no tensor starts there");
        let index = usize::try_from(offset).map_err(io::Error::other)?;
        let info = self.gguf.tensors().get(index).ok_or_else(nothing)?;
        let bytes = self.gguf.tensor_bytes(info).map_err(io::Error::other)?;
        self.read.insert(offset);
        self.bytes_read += bytes.len() as u64;
        self.tensor = Cursor::new(match (self.precision, info.format.known()) {
            (Precision::Unpacked, Some(format)) if format != Format::F32 => {
                Cow::Owned(unpack(format, bytes, info.elements)?)
            }
            _ => Cow::Borrowed(bytes),
        });
        // Tied embeddings are read twice.
        let share = self.bytes_read as f32 / self.bytes_all.max(1) as f32;
        (self.progress)(share.min(1.0));
        Ok(())
    }
}

/// The bytes of a tensor as f32.
fn unpack(format: Format, blocks: &[u8], elements: u64) -> io::Result<Vec<u8>> {
    let mut values = vec![0.0f32; elements as usize];
    dequantize(format, blocks, &mut values).map_err(io::Error::other)?;
    Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

impl Seek for Source<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match to {
            // candle asks how long the file is, to see whether a tensor lies inside. Ours do, and
            // unpacked they are longer than the file.
            SeekFrom::End(0) => Ok(u64::MAX),
            SeekFrom::Start(offset) => self.open(offset).map(|()| offset),
            _ => Err(io::Error::new(io::ErrorKind::Unsupported, "tensors are sought by offset")),
        }
    }
}

impl Read for Source<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.tensor.read(out)
    }
}
