//! The library is complete, and its figures are possible.

use expect_test::expect;

use super::*;
use crate::template::{Context, Message, Template};

#[test]
fn every_family_has_all_its_sizes() {
    let listed: String = families()
        .iter()
        .map(|family| {
            let tags: Vec<&str> = family.sizes.iter().map(|size| size.tag.as_str()).collect();
            format!("{}: {} (default {})\n", family.name, tags.join(" "), family.default)
        })
        .collect();
    expect![[r#"
        deepseek-r1: 1.5b 7b 8b 14b 32b 70b 671b (default 7b)
        qwen2.5-coder: 0.5b 1.5b 3b 7b 14b 32b (default 7b)
        smollm2: 135m 360m 1.7b (default 1.7b)
    "#]]
    .assert_eq(&listed);
}

#[test]
fn every_modelfile_parses_without_fault_and_names_its_size_and_licence() {
    for family in families() {
        assert_eq!(parse(family.modelfile).diagnostics, [], "{}", family.name);
        for size in &family.sizes {
            let modelfile = family.modelfile_of(size);
            assert_eq!(parse(&modelfile.to_string()).modelfile, modelfile);
            let want = format!("{}:{}", family.name, size.tag);
            assert_eq!(modelfile.from().collect::<Vec<_>>(), [want.as_str()]);
            assert_eq!(modelfile.licenses().collect::<Vec<_>>(), [size.license.as_str()]);
        }
    }
}

#[test]
fn sizes_of_files_follow_from_parameters_and_precision() {
    // Bits a weight takes, from the layout of the blocks. Mixed precisions vary with the shape.
    let bits = |quant: &str| match quant {
        "Q4_K_M" => (4.5, 6.6),
        "Q5_K_M" => (5.5, 6.0),
        "Q6_K" => (6.5, 6.65),
        "Q8_0" => (8.3, 8.7),
        "F16" => (15.9, 16.2),
        other => panic!("no bits known for {other}"),
    };
    for family in families() {
        for size in &family.sizes {
            for pair in size.variants.windows(2) {
                assert!(pair[0].bytes < pair[1].bytes, "{} {}", family.name, size.tag);
            }
            for variant in &size.variants {
                let per_weight = variant.bytes as f64 * 8.0 / size.parameters as f64;
                let (low, high) = bits(&variant.quant);
                assert!(
                    (low..=high).contains(&per_weight),
                    "{}:{} {} has {per_weight:.2} bits a weight",
                    family.name,
                    size.tag,
                    variant.quant
                );
            }
        }
    }
}

#[test]
fn names_and_tags_are_found() {
    let family = find("deepseek-r1:7b").expect("is in the library");
    assert_eq!(family.size("latest").map(|size| size.tag.as_str()), Some("7b"));
    let size = family.size("1.5b").expect("is in the library");
    assert_eq!(size.variant("q4_k_m").map(|variant| variant.bytes), Some(1_120_000_000));
    let tags: Vec<_> = size.variants.iter().map(|variant| size.tag_of(variant)).collect();
    assert_eq!(tags[0], "1.5b-qwen-distill-q4_K_M");
    assert_eq!(tags[4], "1.5b-qwen-distill-fp16");
    assert!(find("gpt-5").is_none() && family.size("3b").is_none());
}

/// The weights of one layer's attention, its norms included.
fn attention(shape: &Shape) -> u64 {
    let [width, heads, kv_heads, head] =
        [shape.embedding, shape.heads, shape.kv_heads, shape.head].map(u64::from);
    if let Some(latent) = &shape.latent {
        let [query, kv, rotary, value] =
            [latent.query_rank, latent.kv_rank, latent.rotary, latent.value].map(u64::from);
        let query = width * query + query + query * heads * head;
        let unpacked = heads * (head - rotary + value);
        return query + width * (kv + rotary) + kv + kv * unpacked + heads * value * width + width;
    }
    let (queries, keys) = (heads * head, kv_heads * head);
    let biases = if shape.architecture == "qwen2" { queries + 2 * keys } else { 0 };
    2 * width * queries + 2 * width * keys + biases + width
}

/// The weights of the feed-forward part of one layer, its norm included.
fn feed_forward(shape: &Shape, layer: u32) -> u64 {
    let gated = |inner: u32| 3 * u64::from(shape.embedding) * u64::from(inner);
    let norm = u64::from(shape.embedding);
    match &shape.experts {
        Some(experts) if layer >= experts.dense_layers => {
            let all = u64::from(experts.count + experts.shared);
            // A row that scores the experts, and the bias it is corrected by.
            let router = u64::from(experts.count) * (u64::from(shape.embedding) + 1);
            all * gated(experts.feed_forward) + router + norm
        }
        _ => gated(shape.feed_forward) + norm,
    }
}

#[test]
fn shapes_have_as_many_weights_as_their_makers_count() {
    for family in families() {
        for size in &family.sizes {
            let shape = &size.shape;
            let layers: u64 =
                (0..shape.layers).map(|layer| attention(shape) + feed_forward(shape, layer)).sum();
            let tables = shape.embedding_table() * if shape.tied { 1 } else { 2 };
            let counted = layers + tables + u64::from(shape.embedding);
            assert_eq!(counted, size.parameters, "{}:{}", family.name, size.tag);
        }
    }
}

#[test]
fn shapes_are_possible() {
    for family in families() {
        for size in &family.sizes {
            let (shape, what) = (&size.shape, format!("{}:{}", family.name, size.tag));
            assert!(["llama", "qwen2", "deepseek2"].contains(&shape.architecture.as_str()));
            assert_eq!(shape.heads % shape.kv_heads, 0, "{what}");
            assert!(
                shape.latent.is_some() || shape.heads * shape.head == shape.embedding,
                "{what}"
            );
            assert!((8192..=163_840).contains(&shape.context), "{what}");
            assert!(size.active_parameters() <= size.parameters, "{what}");
        }
    }
}

#[test]
fn the_cache_of_a_token_follows_from_the_shape() {
    let elements = |name: &str, tag: &str| {
        let size = find(name).and_then(|family| family.size(tag)).expect("is in the library");
        (size.shape.kv_elements(), size.active_parameters())
    };
    assert_eq!(elements("deepseek-r1", "7b"), (1024, 7_070_619_136));
    assert_eq!(elements("deepseek-r1", "671b"), (576, 37_000_000_000));
    assert_eq!(elements("smollm2", "135m"), (384, 134_515_008));
}

/// The prompt of one question to the family's template, as Ollama's dialect would ask it.
fn prompt(family: &str, think: Option<bool>, suffix: Option<&str>) -> String {
    let modelfile = parse(find(family).expect("is in the library").modelfile).modelfile;
    let template = Template::detect(modelfile.template().expect("has one")).expect("parses");
    let message = |role: &str, content: &str| Message {
        role: role.into(),
        content: content.into(),
        ..Message::default()
    };
    let mut messages =
        vec![message("user", "Hi"), message("assistant", "Yes?"), message("user", "2+2")];
    messages.extend(modelfile.system().map(|system| message("system", system)));
    messages.rotate_right(usize::from(modelfile.system().is_some()));
    let context = Context {
        messages: &messages,
        add_generation_prompt: true,
        think,
        suffix,
        ..Context::default()
    };
    template.render(&context).expect("renders")
}

#[test]
fn templates_make_the_prompts_the_models_were_trained_on() {
    expect![[r#"
        <｜User｜>Hi<｜Assistant｜>Yes?<｜end▁of▁sentence｜><｜User｜>2+2<｜Assistant｜><think>
    "#]]
    .assert_eq(&prompt("deepseek-r1", None, None));
    expect![[r#"
        <｜User｜>Hi<｜Assistant｜>Yes?<｜end▁of▁sentence｜><｜User｜>2+2<｜Assistant｜><think>

        </think>

    "#]]
    .assert_eq(&prompt("deepseek-r1", Some(false), None));
    expect![[r#"
        <|im_start|>system
        You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
        <|im_start|>user
        Hi<|im_end|>
        <|im_start|>assistant
        Yes?<|im_end|>
        <|im_start|>user
        2+2<|im_end|>
        <|im_start|>assistant
    "#]]
    .assert_eq(&prompt("smollm2", None, None));
    expect![[r#"
        <|im_start|>system
        You are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>
        <|im_start|>user
        Hi<|im_end|>
        <|im_start|>assistant
        Yes?<|im_end|>
        <|im_start|>user
        2+2<|im_end|>
        <|im_start|>assistant
    "#]]
    .assert_eq(&prompt("qwen2.5-coder", None, None));
    expect!["<|fim_prefix|>2+2<|fim_suffix|>}<|fim_middle|>"].assert_eq(&prompt(
        "qwen2.5-coder",
        None,
        Some("}"),
    ));
}
