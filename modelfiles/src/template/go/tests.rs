//! Go templates: the language, the conventions Ollama adds to it, and the limits.

use expect_test::{Expect, expect};
use serde_json::json;

use super::super::tests::{REFUSAL_MAX, processor_time};
use super::super::{Context, Message, Template, TemplateError, ToolCall};

fn message(role: &str, content: &str) -> Message {
    Message { role: role.into(), content: content.into(), ..Message::default() }
}

fn render(source: &str, context: &Context<'_>) -> Result<String, TemplateError> {
    Template::go(source)?.render(context)
}

/// Renders over a conversation with a tool and its call. `.Response` keeps the text of a template
/// that reads nothing else from being appended to.
fn check(source: &str, want: Expect) {
    let call = ToolCall {
        id: Some("c1".into()),
        name: "weather".into(),
        arguments: json!({"city": "Bern", "days": 2}).as_object().cloned().unwrap(),
    };
    let messages = [
        message("system", "Be brief."),
        message("user", "Hi"),
        message("user", "Weather?"),
        Message { tool_calls: vec![call], ..message("assistant", "") },
        Message { tool_name: Some("weather".into()), ..message("tool", "<sun> & 20°") },
    ];
    let tools = [json!({"type": "function", "function": {
        "name": "weather",
        "description": "Tells <it>",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Where"}},
            "required": ["city"],
        },
    }})];
    let context = Context { messages: &messages, tools: &tools, ..Context::default() };
    let shown = render(source, &context).unwrap_or_else(|error| format!("error: {error}"));
    want.assert_eq(&shown);
}

#[test]
fn actions_and_trimming() {
    check(
        "a  {{- /* note */ -}}  b {{ \"q\\\"\\u00e9\" }}{{ `raw\\n` }}{{ 'x' }} {{- 1 }} {{.Messages|len}}",
        expect![[r#"ab q"éraw\n1201 4"#]],
    );
}

#[test]
fn conditions_and_comparisons() {
    check(
        "{{ if and .System (not .Think) }}1{{ else }}2{{ end }}{{ if .Suffix }}3{{ else if eq 1 2 }}4\
         {{ else }}5{{ end }}{{ with .Nothing }}6{{ else with .System }}{{ . }}{{ end }} \
         {{ or .Suffix \"none\" }} {{ eq \"a\" \"b\" \"a\" }} {{ lt 1 2 }} {{ ge 1.5 2 }} {{ ne 1 1 }}\
         {{ if .Messages }}{{ end }}",
        expect!["15Be brief. none true true false false"],
    );
}

#[test]
fn ranges_and_variables() {
    check(
        "{{ $last := -1 }}{{ range $i, $m := .Messages }}{{ if eq $m.Role \"user\" }}{{ $last = $i }}\
         {{ end }}{{ end }}{{ $last }} {{ range .Messages }}{{ if eq .Role \"assistant\" }}{{ continue }}\
         {{ end }}{{ .Role }} {{ if eq .Role \"user\" }}{{ break }}{{ end }}{{ end }}\
         {{ range .Nothing }}x{{ else }}empty{{ end }} {{ range 3 }}{{ . }}{{ end }}",
        expect!["1 system user empty 012"],
    );
}

#[test]
fn functions() {
    check(
        "{{ printf \"%s|%5d|%-4s|%q|%.2f|%%\" \"a\" 7 \"b\" \"c\" 1.5 }} {{ print 1 2 \"x\" 3 }} \
         {{ index .Messages 1 | json }} {{ len (slice .Messages 1) }} {{ slice \"hello\" 1 3 }} \
         {{ html \"<a>\" }} {{ urlquery \"a b&\" }} {{ toTypeScriptType \"integer\" }} \
         {{ len currentDate }}",
        expect![[
            r#"a|    7|b   |"c"|1.50|% 1 2x3 {"role":"user","content":"Hi\n\nWeather?"} 3 el &lt;a&gt; a+b%26 number 10"#
        ]],
    );
}

#[test]
fn defined_templates_see_only_their_data() {
    check(
        "{{ define \"role\" }}[{{ .Role }}{{ $.Role }}]{{ end }}\
         {{ range .Messages }}{{ template \"role\" . }}{{ end }}{{ block \"b\" .System }}<{{ . }}>{{ end }}",
        expect!["[systemsystem][useruser][assistantassistant][tooltool]<Be brief.>"],
    );
}

#[test]
fn tools_print_as_json_in_go_s_order() {
    check(
        "{{ range .Tools }}{{ .Function.Name }}: {{ . }}\n{{ .Function.Parameters.Required }}\
         {{ range $name, $p := .Function.Parameters.Properties }} {{ $name }}={{ $p.Type }}{{ end }}\
         {{ end }}\n{{ range .Messages }}{{ range .ToolCalls }}{{ .Function.Name }}\
         {{ .Function.Arguments }}{{ end }}{{ end }}",
        expect![[r#"
            weather: {"type":"function","function":{"name":"weather","description":"Tells \u003cit\u003e","parameters":{"type":"object","required":["city"],"properties":{"city":{"type":"string","description":"Where"}}}}}
            ["city"] city=string
            weather{"city":"Bern","days":2}"#]],
    );
}

#[test]
fn messages_of_one_role_are_joined_and_tool_results_are_not() {
    check(
        "{{ .System }}/{{ range .Messages }}<{{ .Role }}:{{ .Content }}{{ .ToolName }}>{{ end }}",
        expect![[r#"
            Be brief./<system:Be brief.><user:Hi

            Weather?><assistant:><tool:<sun> & 20°weather>"#]],
    );
}

#[test]
fn a_template_of_one_exchange_runs_for_each_and_ends_where_the_answer_begins() {
    let messages = [
        message("system", "S"),
        message("user", "one"),
        message("assistant", "1"),
        message("user", "two"),
    ];
    let context = Context { messages: &messages, ..Context::default() };
    let source = "{{ if .System }}[{{ .System }}]{{ end }}Q:{{ .Prompt }}\nA:{{ .Response }}</s>\n";
    assert_eq!(render(source, &context).unwrap(), "[S]Q:one\nA:1</s>\nQ:two\nA:");
    let open = "{{ .System }}|{{ .Prompt }}>";
    assert_eq!(render(open, &context).unwrap(), "S|one>1|two>");
}

#[test]
fn a_gap_is_filled_from_prompt_and_suffix() {
    let messages = [message("user", "fn f() {")];
    let source = "{{ if .Suffix }}<P>{{ .Prompt }}<S>{{ .Suffix }}<M>{{ else }}\
                  {{ range .Messages }}{{ .Content }}{{ end }}{{ end }}";
    let with = |suffix| {
        render(source, &Context { messages: &messages, suffix, ..Context::default() }).unwrap()
    };
    assert_eq!(with(Some("}")), "<P>fn f() {<S>}<M>");
    assert_eq!(with(None), "fn f() {");
}

#[test]
fn thinking_is_told_apart_from_unset() {
    let source = "{{ .IsThinkSet }} {{ .Think }}{{ .Messages }}";
    let with = |think| render(source, &Context { think, ..Context::default() }).unwrap();
    assert_eq!(with(None), "false false[]");
    assert_eq!(with(Some(true)), "true true[]");
    assert_eq!(with(Some(false)), "true false[]");
}

#[test]
fn faults_have_their_line() {
    check("a\n{{ if }}", expect!["error: line 2: a value is missing"]);
    check("{{ nonsense . }}", expect!["error: line 1: function `nonsense` is not defined"]);
    check("\n{{ range .Messages }}", expect!["error: line 2: `range` has no end"]);
    check("{{ end }}", expect!["error: line 1: `end` without a block"]);
    check("{{ \"open }}", expect!["error: line 1: the action is never closed with `}}`"]);
    check("{{ break }}", expect!["error: line 1: `break` outside of a range"]);
    check("{{ .System", expect!["error: line 1: the action is never closed with `}}`"]);
    check(
        "{{ template \"none\" }}",
        expect!["error: the chat template failed: template `none` is not defined"],
    );
    check(
        "{{ index .Messages 99 }}",
        expect!["error: the chat template failed: index 99 is out of range"],
    );
    check("{{ $x }}", expect!["error: the chat template failed: variable `$x` is not defined"]);
}

#[test]
fn hostile_templates_are_refused_quickly() {
    let long = "x".repeat(50_000);
    for (name, source) in [
        (
            "loops",
            "{{ range 99999 }}{{ range 99999 }}{{ range 99999 }}{{ end }}{{ end }}{{ end }}".into(),
        ),
        ("count", "{{ range 9223372036854775807 }}{{ end }}".into()),
        ("recursion", "{{ define \"a\" }}{{ template \"a\" }}{{ end }}{{ template \"a\" }}".into()),
        (
            "doubling",
            "{{ $s := \"aaaa\" }}{{ range 60 }}{{ $s = print $s $s }}{{ end }}{{ len $s }}".into(),
        ),
        ("output", format!("{{{{ range 99999 }}}}{long}{{{{ end }}}}")),
        ("literals", format!("{{{{ range 99999 }}}}{{{{ $x := \"{long}\" }}}}{{{{ end }}}}")),
        ("width", "{{ printf \"%1000000000d\" 1 }}".into()),
        ("variables", "{{ $a := 1 }}".repeat(9_000)),
        ("nested", "{{ if 1 }}".repeat(9_000)),
        ("else", format!("{{{{ if 1 }}}}{}", "{{ else if 1 }}".repeat(9_000))),
        ("brackets", format!("{{{{ {}1{} }}}}", "(".repeat(9_000), ")".repeat(9_000))),
        ("words", format!("{{{{ print{} }}}}", " 1".repeat(9_000))),
        ("source", "a".repeat(300_000)),
    ] {
        let start = processor_time();
        let result = render(&source, &Context::default());
        let elapsed = processor_time() - start;
        assert!(matches!(result, Err(TemplateError::Limit { .. })), "{name}: {result:?}");
        assert!(elapsed < REFUSAL_MAX, "{name} took {elapsed:?}");
    }
}
