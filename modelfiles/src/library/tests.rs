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
    assert!(find("gpt-5").is_none() && family.size("3b").is_none());
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
