//! Writes GGUF files for tests: any header, and tiny models that really run.

use dsk_kernels::format::Format;
use families::TINY;

pub mod families;

/// A GGUF file in the making. Nothing is checked: tests write broken files too.
#[derive(Debug, Clone, Default)]
pub struct Writer {
    metadata: Vec<u8>,
    metadata_count: u64,
    tensors: Vec<Tensor>,
}

#[derive(Debug, Clone)]
struct Tensor {
    name: String,
    shape: Vec<u64>,
    type_id: u32,
    data: Vec<u8>,
}

/// The alignment of tensor data in files of this writer: the format's default.
const ALIGNMENT: usize = 32;

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl Writer {
    /// An empty file.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// Adds a key with a value given as its type id and bytes.
    pub fn raw(mut self, key: &str, type_id: u32, value: &[u8]) -> Writer {
        push_text(&mut self.metadata, key);
        self.metadata.extend(type_id.to_le_bytes());
        self.metadata.extend(value);
        self.metadata_count += 1;
        self
    }

    /// Adds an unsigned number of 32 bits.
    pub fn u32(self, key: &str, value: u32) -> Writer {
        self.raw(key, 4, &value.to_le_bytes())
    }

    /// Adds an IEEE single.
    pub fn f32(self, key: &str, value: f32) -> Writer {
        self.raw(key, 6, &value.to_le_bytes())
    }

    /// Adds a truth value.
    pub fn bool(self, key: &str, value: bool) -> Writer {
        self.raw(key, 7, &[u8::from(value)])
    }

    /// Adds a string.
    pub fn str(self, key: &str, value: &str) -> Writer {
        let mut bytes = Vec::new();
        push_text(&mut bytes, value);
        self.raw(key, 8, &bytes)
    }

    /// Adds an array of strings.
    pub fn strings(self, key: &str, values: &[impl AsRef<str>]) -> Writer {
        let mut bytes = array_start(8, values.len());
        for value in values {
            push_text(&mut bytes, value.as_ref());
        }
        self.raw(key, 9, &bytes)
    }

    /// Adds an array of signed numbers of 32 bits.
    pub fn i32s(self, key: &str, values: &[i32]) -> Writer {
        let mut bytes = array_start(5, values.len());
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self.raw(key, 9, &bytes)
    }

    /// Adds an array of IEEE singles.
    pub fn f32s(self, key: &str, values: &[f32]) -> Writer {
        let mut bytes = array_start(6, values.len());
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self.raw(key, 9, &bytes)
    }

    /// Adds a tensor of type `type_id` with these bytes.
    pub fn tensor(mut self, name: &str, shape: &[u64], type_id: u32, data: Vec<u8>) -> Writer {
        self.tensors.push(Tensor { name: name.to_owned(), shape: shape.to_vec(), type_id, data });
        self
    }

    /// The model as `count` files: the first has the metadata, each some of the tensors.
    pub fn split(&self, count: usize) -> Vec<Vec<u8>> {
        let share = self.tensors.len().div_ceil(count.max(1)).max(1);
        let part = |number: usize| {
            let start = if number == 0 { self.clone() } else { Writer::new() };
            let first = (number * share).min(self.tensors.len());
            let last = (first + share).min(self.tensors.len());
            let tensors = self.tensors[first..last].to_vec();
            Writer { tensors, ..start }.part_of(number, count, self.tensors.len()).finish()
        };
        (0..count).map(part).collect()
    }

    /// Adds the keys of part `number`, from 0, of a model with so many tensors.
    pub fn part_of(self, number: usize, count: usize, tensors: usize) -> Writer {
        self.raw("split.no", 2, &(number as u16).to_le_bytes())
            .raw("split.count", 2, &(count as u16).to_le_bytes())
            .raw("split.tensors.count", 5, &(tensors as i32).to_le_bytes())
    }

    /// The bytes of the file.
    pub fn finish(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend(self.metadata_count.to_le_bytes());
        out.extend(&self.metadata);
        let mut offset = 0usize;
        for tensor in &self.tensors {
            push_text(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            out.extend(tensor.shape.iter().flat_map(|extent| extent.to_le_bytes()));
            out.extend(tensor.type_id.to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset += tensor.data.len().next_multiple_of(ALIGNMENT);
        }
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        for tensor in &self.tensors {
            out.extend(&tensor.data);
            out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        }
        out
    }
}

fn array_start(element: u32, len: usize) -> Vec<u8> {
    let mut bytes = element.to_le_bytes().to_vec();
    bytes.extend((len as u64).to_le_bytes());
    bytes
}

/// Numbers that look random and are the same for the same seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Starts a sequence.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number from 0 up to, but not including, `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end.max(1) as u64) as usize
    }

    /// A number from -1 to 1.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// Bytes of `count` random single-precision weights around `centre`.
    pub fn weights(&mut self, count: u64, centre: f32, spread: f32) -> Vec<u8> {
        (0..count).flat_map(|_| (centre + spread * self.unit()).to_le_bytes()).collect()
    }
}

/// The chat template of the tiny models.
pub const TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message['role'] }}\n\
    {{ message['content'] }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Marks of the tiny vocabulary, after bytes and merges: name and token type.
const MARKS: [(&str, i32); 9] = [
    ("<|endoftext|>", 3),
    ("<|im_start|>", 3),
    ("<|im_end|>", 3),
    ("<think>", 4),
    ("</think>", 4),
    ("<|fim_prefix|>", 3),
    ("<|fim_suffix|>", 3),
    ("<|fim_middle|>", 3),
    ("<tool_call>", 4),
];

/// Pairs that merge in the tiny vocabulary, as byte-level BPE spells them.
const MERGES: [&str; 35] = [
    "Ġ t", "Ġ a", "h e", "i n", "r e", "o n", "Ġt he", "e r", "Ġ s", "a t", "Ġ w", "Ġ o", "e n",
    "Ġ c", "i t", "i s", "a n", "o r", "e s", "Ġ b", "e d", "Ġ f", "in g", "Ġ p", "o u", "Ġa n",
    "a l", "a r", "Ġt o", "Ġ m", "Ġo f", "Ġ in", "Ġ d", "Ġ h", "Ġan d",
];

/// How byte-level BPE spells each byte: printable characters as themselves, others from U+0100 on.
fn byte_spellings() -> Vec<String> {
    let printable = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut shifted = (0x100..).filter_map(char::from_u32);
    (0..=u8::MAX)
        .map(|byte| match printable(byte) {
            true => char::from(byte).to_string(),
            false => shifted.next().map(String::from).unwrap_or_default(),
        })
        .collect()
}

/// Adds a byte-level vocabulary of 300 tokens: 256 bytes, the merges, the marks.
pub fn tiny_tokenizer(writer: Writer, pre: &str) -> Writer {
    let merged = MERGES.map(|merge| merge.replace(' ', ""));
    let mut tokens = byte_spellings();
    tokens.extend(merged);
    let mut types = vec![1; tokens.len()];
    let first_mark = tokens.len() as u32;
    tokens.extend(MARKS.iter().map(|(name, _)| (*name).to_owned()));
    types.extend(MARKS.iter().map(|(_, kind)| *kind));
    writer
        .str("tokenizer.ggml.model", "gpt2")
        .str("tokenizer.ggml.pre", pre)
        .strings("tokenizer.ggml.tokens", &tokens)
        .i32s("tokenizer.ggml.token_type", &types)
        .strings("tokenizer.ggml.merges", &MERGES)
        .u32("tokenizer.ggml.bos_token_id", first_mark)
        .u32("tokenizer.ggml.eos_token_id", first_mark + 2)
        .bool("tokenizer.ggml.add_bos_token", false)
        .str("tokenizer.chat_template", TEMPLATE)
}

/// Tokens of context of a tiny model.
pub const TINY_CONTEXT: u32 = 512;

/// A whole model of architecture `llama` or `qwen2`, about 0.4 MB, with random weights that depend
/// on nothing but `seed`. Its vocabulary is [`tiny_tokenizer`]'s, its template [`TEMPLATE`].
pub fn tiny_model(architecture: &str, seed: u64) -> Vec<u8> {
    tiny_writer(architecture, seed).finish()
}

/// Like [`tiny_model`], still open for more keys and tensors.
pub fn tiny_writer(architecture: &str, seed: u64) -> Writer {
    TINY.with_biases(architecture == "qwen2").writer(architecture, seed)
}

/// The files that fuzzing starts from: small valid ones that between them use every part of the
/// format, and broken versions of each.
pub fn corpus() -> Vec<(String, Vec<u8>)> {
    let nested = [&array_start(9, 1)[..], &array_start(9, 1), &array_start(0, 3), &[1, 2, 3]];
    let scalars = [(0, 1), (1, 1), (2, 2), (3, 2), (5, 4), (10, 8), (11, 8), (12, 8)];
    let scalars = scalars.iter().fold(Writer::new(), |writer, &(kind, bytes)| {
        writer.raw(&format!("scalar.{kind}"), kind, &vec![1; bytes])
    });
    let tensors = Format::ALL.iter().take(12).fold(Writer::new(), |writer, &format| {
        let (elements, bytes) = (format.elements_per_block(), format.bytes_per_block());
        writer.tensor(format.name(), &[elements as u64], format.ggml_id(), vec![0; bytes])
    });
    let summary = Writer::new()
        .str("general.architecture", "llama")
        .u32("general.file_type", 15)
        .u32("llama.context_length", 4096)
        .strings("tokenizer.ggml.tokens", &["a", "b"])
        .f32s("tokenizer.ggml.scores", &[0.0, -1.0])
        .i32s("tokenizer.ggml.token_type", &[1, 3])
        .tensor("token_embd.weight", &[4, 2], 0, vec![0; 32]);
    let valid = [
        ("empty", Writer::new()),
        ("scalars", scalars),
        ("nested", Writer::new().raw("nested", 9, &nested.concat())),
        ("alignment", Writer::new().u32("general.alignment", 64)),
        ("tensors", tensors),
        ("unknown", Writer::new().tensor("t", &[3], 99, vec![0; 3]).bool("b", true)),
        ("summary", summary),
    ];
    let files = valid.iter().map(|(name, writer)| ((*name).to_owned(), writer.finish()));
    let broken = files.clone().flat_map(|(name, bytes)| broken(&name, &bytes));
    files.clone().chain(broken).collect()
}

/// A file cut in the middle, one with a huge count, and one with a few changed bytes.
fn broken(name: &str, bytes: &[u8]) -> [(String, Vec<u8>); 3] {
    let mut huge = bytes.to_vec();
    huge[16..24].copy_from_slice(&(1u64 << 60).to_le_bytes());
    let mut changed = bytes.to_vec();
    let mut random = Random::new(bytes.len() as u64);
    for _ in 0..4 {
        let at = 8 + random.below(bytes.len() - 8);
        changed[at] = random.bits() as u8;
    }
    [
        (format!("{name}-cut"), bytes[..bytes.len() / 2].to_vec()),
        (format!("{name}-huge"), huge),
        (format!("{name}-changed"), changed),
    ]
}
