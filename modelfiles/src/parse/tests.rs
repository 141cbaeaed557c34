//! What a text parses to, and what is said of a bad one.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::modelfile::representable;

/// The instructions as written back, then the diagnostics.
fn check(text: &str, want: Expect) {
    let parsed = parse(text);
    let faults: String = parsed.diagnostics.iter().map(|fault| format!("! {fault}\n")).collect();
    want.assert_eq(&format!("{}{faults}", parsed.modelfile));
}

#[test]
fn every_instruction_is_read() {
    check(
        r#"# a comment
from smollm2:135m
Parameter temperature 0.5
PARAMETER stop "<|im_end|>"
PARAMETER stop  </s>
TEMPLATE """{{ .System }}
{{ .Prompt }}"""
SYSTEM  be brief   
ADAPTER ./lora.gguf
LICENSE """
MIT
"""
MESSAGE user Is "this" ok?
MESSAGE assistant """Yes,
it is."""
DRAFT tiny
RENDERER plain
PARSER plain
REQUIRES 0.1.0
"#,
        expect![[r#"
            FROM smollm2:135m
            PARAMETER temperature 0.5
            PARAMETER stop <|im_end|>
            PARAMETER stop </s>
            TEMPLATE """{{ .System }}
            {{ .Prompt }}"""
            SYSTEM be brief
            ADAPTER ./lora.gguf
            LICENSE """
            MIT
            """
            MESSAGE user Is "this" ok?
            MESSAGE assistant """Yes,
            it is."""
            DRAFT tiny
            RENDERER plain
            PARSER plain
            REQUIRES 0.1.0
        "#]],
    );
}

#[test]
fn each_fault_has_its_place_and_a_hint() {
    check(
        "FORM x\nFROM y\nBANANA \"\"\"a\nb\"\"\"\n  PARAMETER temprature 1\nPARAMETER top_k many\n\
         PARAMETER top_k\nPARAMETER\nMESSAGE usr hi\nMESSAGE user\nREQUIRES new\nTEMPLATE {{ if }}\n\
         PARAMETER use_mmap perhaps\nPARAMETER top_p wide\nSYSTEM \"\"\"never\nADAPTER\n",
        expect![[r#"
            FROM y
            REQUIRES new
            TEMPLATE {{ if }}
            ! 1:1: unknown instruction `FORM` (did you mean FROM?)
            ! 3:1: unknown instruction `BANANA` (instructions are FROM, PARAMETER, TEMPLATE, SYSTEM, ADAPTER, LICENSE, MESSAGE, DRAFT, RENDERER, PARSER, REQUIRES)
            ! 5:13: unknown parameter `temprature` (did you mean temperature?)
            ! 6:17: option "top_k" must be of type integer
            ! 7:16: PARAMETER top_k needs a value
            ! 8:10: PARAMETER needs a name and a value
            ! 9:9: unknown role `usr` in MESSAGE (did you mean user?)
            ! 10:13: MESSAGE needs a value
            ! 11:10: REQUIRES: `new` is no version (write it as 1.2.3)
            ! 12:10: TEMPLATE: line 1: a value is missing
            ! 13:20: option "use_mmap" must be of type boolean
            ! 14:17: option "top_p" must be of type float32
            ! 15:8: SYSTEM: the quoted text never ends (end the text with """ at the end of a line)
            ! 16:8: ADAPTER needs a value
        "#]],
    );
}

#[test]
fn a_missing_from_is_told_once() {
    check(
        "SYSTEM x",
        expect![[r#"
        SYSTEM x
        ! 1:1: no FROM instruction (begin with FROM and a model's name or a GGUF file)
    "#]],
    );
    check(
        "FROM",
        expect![[r#"
        ! 1:5: FROM needs a value
    "#]],
    );
    check(
        "",
        expect![[r#"
        ! 1:1: no FROM instruction (begin with FROM and a model's name or a GGUF file)
    "#]],
    );
}

#[test]
fn windows_line_ends_and_marks_change_nothing() {
    let unix = "FROM x\nSYSTEM \"\"\"a\nb\"\"\"\nPARAMETER seed 7\n";
    let windows = format!("\u{feff}{}", unix.replace('\n', "\r\n"));
    assert_eq!(parse(&windows), parse(unix));
    let utf16: Vec<u8> = windows.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(parse_bytes(&utf16), parse(unix));
    assert!(parse(unix).diagnostics.is_empty());
}

#[test]
fn quotes_close_only_at_the_end_of_a_line() {
    let system = |text: &str| parse(text).modelfile.system().map(String::from);
    assert_eq!(system("SYSTEM \"say \"hi\" now\""), Some("say \"hi\" now".into()));
    assert_eq!(system("SYSTEM \"two\nlines\"  \n"), Some("two\nlines".into()));
    assert_eq!(system("SYSTEM \"\"\"a \"\"\" b\"\"\""), Some("a \"\"\" b".into()));
    assert_eq!(system("SYSTEM \"\""), Some(String::new()));
    assert_eq!(system("SYSTEM # not a comment"), Some("# not a comment".into()));
}

#[test]
fn places_count_characters() {
    let parsed = parse("FROM x\n\tSYSTEM é\n  MESSAGE ünter x");
    let places: Vec<_> = parsed.modelfile.instructions.iter().map(|i| (i.line, i.column)).collect();
    assert_eq!(places, [(1, 1), (2, 2)]);
    assert_eq!((parsed.diagnostics[0].line, parsed.diagnostics[0].column), (3, 11));
}

#[test]
fn sizes_are_bounded() {
    let huge = "x".repeat(TEXT_BYTES_MAX + 1);
    assert!(parse(&huge).diagnostics[0].message.contains("limit of 16777216"));
    assert!(parse_bytes(&vec![b' '; 2 * TEXT_BYTES_MAX + 1]).diagnostics.len() == 1);
    let many = "FROM x\n".repeat(INSTRUCTIONS_MAX + 5);
    let parsed = parse(&many);
    assert_eq!(parsed.modelfile.instructions.len(), INSTRUCTIONS_MAX);
    assert_eq!(parsed.diagnostics.len(), 1);
    let noise = "WHAT\n".repeat(1_000_000);
    assert_eq!(parse(&noise).diagnostics.len(), DIAGNOSTICS_MAX + 1);
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    assert!(parse_bytes(b"FROM \xff").diagnostics[0].message.contains("not UTF-8"));
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{0,12}", "[a-z \"\n\t\r\u{e9}\u{2028}#]{0,24}", any::<String>()]
        .prop_filter("cannot be written", |text| representable(text))
}

fn instruction() -> impl Strategy<Value = InstructionKind> {
    let word = "[a-z][a-z0-9:./-]{0,12}";
    prop_oneof![
        word.prop_map(InstructionKind::From),
        word.prop_map(InstructionKind::Adapter),
        word.prop_map(InstructionKind::Draft),
        text().prop_map(InstructionKind::System),
        text().prop_map(InstructionKind::License),
        text().prop_map(InstructionKind::Renderer),
        text().prop_map(|value| InstructionKind::Parameter {
            name: "stop".into(),
            value: ParameterText(value)
        }),
        (0..ROLES.len(), text()).prop_map(|(role, content)| InstructionKind::Message {
            role: ROLES[role].into(),
            content
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_reads_back(kinds in prop::collection::vec(instruction(), 0..8)) {
        let instructions: Vec<Instruction> = [InstructionKind::From("x".into())]
            .into_iter()
            .chain(kinds)
            .map(|kind| Instruction { line: 1, column: 1, kind })
            .collect();
        let modelfile = Modelfile { instructions };
        let parsed = parse(&modelfile.to_string());
        prop_assert_eq!(&parsed.diagnostics, &vec![]);
        prop_assert_eq!(parsed.modelfile, modelfile);
    }

    #[test]
    fn any_text_parses_to_what_can_be_written(text in any::<String>()) {
        let parsed = parse(&text);
        prop_assert_eq!(&parse(&parsed.modelfile.to_string()).modelfile, &parsed.modelfile);
    }

    #[test]
    fn near_modelfiles_parse_to_what_can_be_written(
        text in "((FROM|SYSTEM|MESSAGE user|PARAMETER stop|LICENSE)[ \"\na-z\r]{0,9}\n?){0,8}"
    ) {
        let parsed = parse(&text);
        prop_assert_eq!(&parse(&parsed.modelfile.to_string()).modelfile, &parsed.modelfile);
    }
}
