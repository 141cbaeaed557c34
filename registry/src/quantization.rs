//! The names of quantizations, as they stand in tags and in the names of files.

/// Every name that llama.cpp gives a file, and a few of the larger mixes that publishers add.
const NAMES: [&str; 51] = [
    "F32", "F16", "BF16", "Q8_0", "Q8_1", "Q8_K", "Q8_K_XL", "Q6_K", "Q6_K_L", "Q6_K_XL", "Q5_0",
    "Q5_1", "Q5_K", "Q5_K_S", "Q5_K_M", "Q5_K_L", "Q5_K_XL", "Q4_0", "Q4_1", "Q4_K", "Q4_K_S",
    "Q4_K_M", "Q4_K_L", "Q4_K_XL", "Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8", "Q3_K", "Q3_K_S", "Q3_K_M",
    "Q3_K_L", "Q3_K_XL", "Q2_K", "Q2_K_S", "Q2_K_L", "Q2_K_XL", "IQ1_S", "IQ1_M", "IQ2_XXS",
    "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS", "TQ1_0",
    "TQ2_0", "MXFP4",
];

/// Other spellings of the same.
const ALIASES: [(&str, &str); 3] = [("FP16", "F16"), ("FP32", "F32"), ("MXFP4_MOE", "MXFP4")];

/// The quantization that a tag or the name of a file states, as llama.cpp writes it: `Q4_K_M` for
/// `7b-distill-qwen-q4_k_m`. Of several the last counts.
pub fn quantization(text: &str) -> Option<&'static str> {
    split(text).map(|(_, name)| name)
}

/// The text before the quantization, without what joins them, and the quantization.
pub(crate) fn split(text: &str) -> Option<(&str, &'static str)> {
    let aliases = ALIASES.iter().copied();
    let spellings = NAMES.iter().map(|name| (*name, *name)).chain(aliases);
    let found =
        spellings.filter_map(|(spelling, name)| Some((last(text, spelling)?, spelling, name)));
    // `Q4_0` ends no later than `Q4_0_4_4` does where both are found, and is shorter.
    let (at, _, name) = found.max_by_key(|(at, spelling, _)| (*at, spelling.len()))?;
    Some((text[..at].trim_end_matches(['-', '_', '.']), name))
}

/// Where `spelling` stands last as a whole word: bounded by the ends or by what joins words.
fn last(text: &str, spelling: &str) -> Option<usize> {
    let (text, spelling) = (text.as_bytes(), spelling.as_bytes());
    let starts = 0..(text.len() + 1).saturating_sub(spelling.len());
    starts.rev().find(|&at| {
        let end = at + spelling.len();
        let before = at == 0 || matches!(text[at - 1], b'-' | b'_' | b'.');
        let after = end == text.len() || matches!(text[end], b'-' | b'.');
        before && after && text[at..end].eq_ignore_ascii_case(spelling)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_files_name_their_quantization() {
        let cases = [
            ("7b-q4_K_M", Some(("7b", "Q4_K_M"))),
            ("7b-distill-qwen-q8_0", Some(("7b-distill-qwen", "Q8_0"))),
            ("Q5_K_M", Some(("", "Q5_K_M"))),
            ("q4_k_m", Some(("", "Q4_K_M"))),
            ("7b-instruct-fp16", Some(("7b-instruct", "F16"))),
            ("1.5b-bf16", Some(("1.5b", "BF16"))),
            ("UD-IQ2_XXS", Some(("UD", "IQ2_XXS"))),
            ("20b-mxfp4", Some(("20b", "MXFP4"))),
            ("Model-7B-Q4_K_M.gguf", Some(("Model-7B", "Q4_K_M"))),
            ("model_q4_0.gguf", Some(("model", "Q4_0"))),
            ("model-Q4_0_4_4.gguf", Some(("model", "Q4_0_4_4"))),
            ("big-Q8_0-00001-of-00002.gguf", Some(("big", "Q8_0"))),
            ("f16-to-q6_K", Some(("f16-to", "Q6_K"))),
            ("latest", None),
            ("7b", None),
            ("1.5b", None),
            ("q4", None),
            ("Q4_K_M2", None),
            ("xQ4_0", None),
            ("q5_9", None),
            ("", None),
            ("é-Q4_0é", None),
        ];
        for (text, expected) in cases {
            assert_eq!(split(text), expected, "{text}");
        }
    }

    #[test]
    fn every_name_is_found_in_any_case_and_as_itself() {
        for name in NAMES {
            assert_eq!(quantization(&format!("7b-{}", name.to_lowercase())), Some(name));
            assert_eq!(quantization(name), Some(name));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[-_.é]?(q4_0|Q4_K_M|[a-zé0-9_.-]{0,4}){0,4}") {
            if let Some((before, _)) = split(&text) {
                assert!(text.starts_with(before));
            }
        }
    }
}
