//! What holds for templates of either language.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Processor time a refusal may take: 100 ms, and four times that in a test build.
pub(super) const REFUSAL_MAX: Duration =
    Duration::from_millis(if cfg!(debug_assertions) { 400 } else { 100 });

/// Processor time of this thread so far; a busy machine does not change it.
pub(super) fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux has it");
    let nanoseconds = stat.split(' ').next().and_then(|text| text.parse().ok());
    Duration::from_nanos(nanoseconds.expect("begins with nanoseconds"))
}

#[test]
fn the_languages_are_told_apart() {
    let is_jinja =
        |source| matches!(Template::detect(source).unwrap().language, Language::Jinja(_));
    for source in [
        "{% for m in messages %}{{ m.content }}{% endfor %}",
        "{{ bos_token }}{{ messages[0]['content'] }}",
        "{{- messages[0].content }}",
        "{# note #}x",
    ] {
        assert!(is_jinja(source), "{source}");
    }
    for source in [
        "",
        "{{ .Prompt }}",
        "{{- range .Messages }}{{ .Content }}{{ end }}",
        "{{ if .System }}x{{ end }}{{ .Prompt }}",
        "{{ json .Tools }}",
    ] {
        assert!(!is_jinja(source), "{source}");
    }
}

#[test]
fn features_are_read_from_the_template() {
    let features = |source| {
        let Features { tools, thinking, suffix } = Template::detect(source).unwrap().features();
        (tools, thinking, suffix)
    };
    assert_eq!(features("{% if tools %}{{ tools | tojson }}{% endif %}"), (true, false, false));
    assert_eq!(features("{{ messages[0].tools }}{% set x = '<tools>' %}"), (false, false, false));
    assert_eq!(features("{% if '</think>' in content %}{% endif %}"), (false, true, false));
    assert_eq!(features("{% if enable_thinking %}{% endif %} tools"), (false, true, false));
    assert_eq!(features("{{ .Prompt }}{{ .Suffix }}"), (false, false, true));
    assert_eq!(features("{{ range .Tools }}{{ . }}{{ end }}"), (true, false, false));
    assert_eq!(features("{{ range .Messages }}{{ .Thinking }}{{ end }}"), (false, true, false));
    assert_eq!(features("Tools {{ .Prompt }}"), (false, false, false));
}

#[test]
fn messages_travel_as_json() {
    let text = r#"{"role":"assistant","content":"","tool_calls":[{"name":"f","arguments":{"b":1,"a":2}}]}"#;
    let message: Message = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&message).unwrap(), text);
    assert_eq!(serde_json::from_str::<Message>("{}").unwrap(), Message::default());
}

/// Pieces of both languages, put together without sense.
fn soup() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "{{",
        "}}",
        "{%",
        "%}",
        "{{-",
        "-%}",
        " if ",
        " for m in ",
        " end ",
        "endif",
        "endfor",
        " range ",
        ".Messages",
        ".Role",
        "messages",
        "[0]",
        "[::-1]",
        ".content",
        "|",
        "tojson",
        "join",
        " + ",
        " * ",
        "9",
        "'a'",
        "\"b\"",
        "(",
        ")",
        " $x := ",
        " eq ",
        " set x = ",
        " else ",
        "slice",
        " with ",
        " template \"t\" ",
        " define \"t\" ",
        " macro f() ",
        "endmacro",
        "f()",
        "namespace(a=1)",
        "{",
        "}",
        ",",
        ":",
        "~",
        " is defined",
        " not ",
        "\n",
        " text ",
        "é",
    ]);
    prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_or_a_rendering_panic(source in soup()) {
        let messages = [Message { role: "user".into(), content: "x".into(), ..Message::default() }];
        let context = Context { messages: &messages, ..Context::default() };
        for template in [Template::jinja(&source), Template::go(&source)].into_iter().flatten() {
            let _ = template.render(&context);
        }
    }
}
