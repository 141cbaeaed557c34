//! Which tokens play a part: begin, end, filling gaps. The file says so, or their names do.

use tokenizers::models::bpe::Vocab as Ids;

use super::split::PreTokenizer;
use super::vocabulary::Vocabulary;
use super::{Fim, TokenizerError};
use crate::gguf::Gguf;

/// Names that end a turn, most telling first: when the file names no such token, the first of these
/// that exists is it.
const TURN_ENDS: [&str; 11] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
];

/// Further names that end a generation.
const OTHER_ENDS: [&str; 9] = [
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "</s>",
    "[EOS]",
    "<eos>",
    "<turn|>",
    "[e~[",
];

const MESSAGE_END: &str = "<|eom_id|>";

/// A part that a token plays in filling gaps: metadata keys, then names.
struct Part {
    keys: &'static [&'static str],
    names: &'static [&'static str],
}

const FIM_PREFIX: Part = Part {
    keys: &["fim_pre_token_id", "prefix_token_id"],
    names: &[
        "<|fim_prefix|>",
        "<fim-prefix>",
        "<fim_prefix>",
        "<｜fim▁begin｜>",
        "<PRE>",
        "▁<PRE>",
        "<|code_prefix|>",
        "<|prefix|>",
    ],
};
const FIM_SUFFIX: Part = Part {
    keys: &["fim_suf_token_id", "suffix_token_id"],
    names: &[
        "<|fim_suffix|>",
        "<fim-suffix>",
        "<fim_suffix>",
        "<｜fim▁hole｜>",
        "<SUF>",
        "▁<SUF>",
        "<|code_suffix|>",
        "<|suffix|>",
    ],
};
const FIM_MIDDLE: Part = Part {
    keys: &["fim_mid_token_id", "middle_token_id"],
    names: &[
        "<|fim_middle|>",
        "<fim-middle>",
        "<fim_middle>",
        "<｜fim▁end｜>",
        "<MID>",
        "▁<MID>",
        "<|code_middle|>",
        "<|middle|>",
    ],
};

/// Tokens between files: a model that writes one has left the gap, so they end it too.
const FIM_ENDS: [Part; 3] = [
    Part {
        keys: &["fim_pad_token_id"],
        names: &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
    },
    Part {
        keys: &["fim_rep_token_id"],
        names: &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"],
    },
    Part { keys: &["fim_sep_token_id"], names: &["<|file_sep|>"] },
];

/// What holds when the file does not say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Defaults {
    add_bos: bool,
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
}

impl Defaults {
    pub(crate) fn byte_level(pre: PreTokenizer) -> Defaults {
        let add_bos = pre == PreTokenizer::Llama3;
        Defaults { add_bos, bos: None, eos: None, unknown: None }
    }

    /// The places that SentencePiece itself gives to `<unk>`, `<s>` and `</s>`.
    pub(crate) fn sentence_piece() -> Defaults {
        Defaults { add_bos: true, bos: Some(1), eos: Some(2), unknown: Some(0) }
    }
}

/// The tokens that play a part.
#[derive(Debug)]
pub(crate) struct Roles {
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) eot: Option<u32>,
    pub(crate) eom: Option<u32>,
    pub(crate) unknown: Option<u32>,
    pub(crate) add_bos: bool,
    pub(crate) add_eos: bool,
    pub(crate) fim: Option<Fim>,
    /// Every token that ends a generation, in order.
    pub(crate) ends: Vec<u32>,
}

impl Roles {
    /// Reads the roles. Tokens that play one because of their name become control tokens.
    pub(crate) fn read(
        gguf: &Gguf,
        vocabulary: &mut Vocabulary,
        ids: &Ids,
        defaults: Defaults,
    ) -> Result<Roles, TokenizerError> {
        let mut find = Finder { gguf, vocabulary, ids };
        let bos = find.by_key("bos_token_id")?.or(find.in_range(defaults.bos));
        let eos = find.by_key("eos_token_id")?.or(find.in_range(defaults.eos));
        let unknown = find.by_key("unknown_token_id")?.or(find.in_range(defaults.unknown));
        let eot = find.part(&Part { keys: &["eot_token_id"], names: &TURN_ENDS })?;
        let eom = find.part(&Part { keys: &["eom_token_id"], names: &[MESSAGE_END] })?;
        let fim = find.fim()?;
        let mut ends: Vec<u32> = [eos, eot, eom].into_iter().flatten().collect();
        for part in &FIM_ENDS {
            ends.extend(find.part(part)?);
        }
        for name in TURN_ENDS.iter().chain(&OTHER_ENDS).chain([&MESSAGE_END]) {
            ends.extend(find.by_name(name));
        }
        ends.sort_unstable();
        ends.dedup();
        let flag = |key: &str| gguf.get_bool(&format!("tokenizer.ggml.{key}"));
        let add_bos = flag("add_bos_token")?.unwrap_or(defaults.add_bos);
        let add_eos = flag("add_eos_token")?.unwrap_or(false);
        Ok(Roles { bos, eos, eot, eom, unknown, add_bos, add_eos, fim, ends })
    }
}

struct Finder<'a> {
    gguf: &'a Gguf,
    vocabulary: &'a mut Vocabulary,
    ids: &'a Ids,
}

impl Finder<'_> {
    fn in_range(&self, id: Option<u32>) -> Option<u32> {
        id.filter(|&id| (id as usize) < self.vocabulary.len())
    }

    fn by_key(&self, key: &str) -> Result<Option<u32>, TokenizerError> {
        let key = format!("tokenizer.ggml.{key}");
        // Some converters write the largest u32, or -1, for "none".
        let id = match self.gguf.get(&key).map(|value| (value.as_i64(), value.as_u64())) {
            Some((Some(-1), _)) | Some((_, Some(0xffff_ffff))) => None,
            _ => self.gguf.get_u32(&key)?,
        };
        match (id, self.in_range(id)) {
            (Some(id), None) => {
                let problem = format!("{key} is {id}, of {} tokens", self.vocabulary.len());
                Err(TokenizerError::Vocabulary(problem))
            }
            (_, found) => Ok(found),
        }
    }

    fn by_name(&mut self, name: &str) -> Option<u32> {
        let id = self.ids.get(name).copied()?;
        self.vocabulary.make_control(id);
        Some(id)
    }

    fn part(&mut self, part: &Part) -> Result<Option<u32>, TokenizerError> {
        for key in part.keys {
            if let Some(id) = self.by_key(key)? {
                return Ok(Some(id));
            }
        }
        Ok(part.names.iter().find_map(|name| self.by_name(name)))
    }

    fn fim(&mut self) -> Result<Option<Fim>, TokenizerError> {
        let prefix = self.part(&FIM_PREFIX)?;
        let suffix = self.part(&FIM_SUFFIX)?;
        let middle = self.part(&FIM_MIDDLE)?;
        Ok(prefix.zip(suffix).zip(middle).map(|((prefix, suffix), middle)| Fim {
            prefix,
            suffix,
            middle,
        }))
    }
}
