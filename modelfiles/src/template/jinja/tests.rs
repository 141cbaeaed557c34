//! What templates in the style of real ones print, and what hostile ones may not do.

use expect_test::{Expect, expect};
use serde_json::json;

use super::super::tests::{REFUSAL_MAX, processor_time};
use super::super::{Context, Message, Template, TemplateError, ToolCall};

fn message(role: &str, content: &str) -> Message {
    Message { role: role.into(), content: content.into(), ..Message::default() }
}

fn render(source: &str, context: &Context<'_>) -> Result<String, TemplateError> {
    Template::jinja(source)?.render(context)
}

/// Renders over a short conversation.
fn check(source: &str, want: Expect) {
    let messages = [message("system", "Be brief."), message("user", "Hi <you>")];
    let tools = [json!({"type": "function", "function": {"name": "f", "size": 1.0}})];
    let context = Context {
        messages: &messages,
        tools: &tools,
        add_generation_prompt: true,
        bos_token: "<s>",
        eos_token: "</s>",
        ..Context::default()
    };
    let shown = render(source, &context).unwrap_or_else(|error| format!("error: {error}"));
    want.assert_eq(&shown);
}

const CHATML: &str = "\
{% for message in messages %}
    {% if loop.first and message['role'] != 'system' %}
{{ '<|im_start|>system\\nDefault<|im_end|>\\n' }}
    {%- endif %}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' }}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{%- endif %}";

#[test]
fn blocks_are_trimmed_as_hugging_face_trims_them() {
    check(
        CHATML,
        expect![[r#"
        <|im_start|>system
        Be brief.<|im_end|>
        <|im_start|>user
        Hi <you><|im_end|>
        <|im_start|>assistant
    "#]],
    );
}

#[test]
fn the_beginning_token_is_the_template_s_to_print() {
    check(
        "{{ bos_token }}{{ messages[-1]['content'] }}{{ eos_token }}",
        expect!["<s>Hi <you></s>"],
    );
}

#[test]
fn python_methods_and_loop_controls_work() {
    check(
        "{% for m in messages if m.role == 'user' %}{{ m.content.strip().upper().split(' ')[-1] }}\
         {% break %}{% endfor %}{% set ns = namespace(n=0) %}{% for m in messages %}\
         {% set ns.n = ns.n + 1 %}{% endfor %} {{ ns.n }} {{ messages[::-1][0].role }} \
         {{ messages[0].get('name', 'none') }} {{ 'a-b'.replace('-', '+') }} \
         {{ messages | map(attribute='role') | join(', ') }} {{ 'x'.startswith('x') }} \
         {{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
        expect!["<YOU> 2 user none a+b system, user True 1"],
    );
}

#[test]
fn json_is_written_as_python_writes_it() {
    check(
        "{{ tools[0] | tojson }}\n{{ messages[1] | tojson(indent=2) }}\n\
         {{ {'b': [], 'a': none, 'é': 1e20} | tojson(ensure_ascii=true, sort_keys=true) }}\n\
         {{ [1, 'a'] | tojson(separators=(',', ':')) }} {{ [true, none, 'it\\'s', 0.5] }}",
        expect![[r#"
            {"type": "function", "function": {"name": "f", "size": 1.0}}
            {
              "role": "user",
              "content": "Hi <you>"
            }
            {"a": null, "b": [], "\u00e9": 1e+20}
            [1,"a"] [True, None, "it's", 0.5]"#]],
    );
}

#[test]
fn marks_for_training_are_no_concern_of_a_prompt() {
    check("a{% generation %}b{%- endgeneration -%}  c", expect!["abc"]);
}

#[test]
fn a_template_may_refuse() {
    check(
        "{{ raise_exception('roles must alternate') }}",
        expect!["error: the chat template refuses this conversation: roles must alternate"],
    );
    let context = Context::default();
    let error = render("{{ raise_exception('no') }}", &context).unwrap_err();
    assert_eq!(error, TemplateError::Refused { message: "no".into() });
}

#[test]
fn faults_name_their_line() {
    check("a\n{% if %}", expect!["error: line 2: unexpected end of block"]);
    check(
        "a\n{{ messages[0].content.nothing() }}",
        expect![
            "error: the chat template failed: line 2: unknown method: string has no method named nothing"
        ],
    );
    check(
        "{% include 'x' %}",
        expect!["error: line 1: `include` cannot be used in a chat template"],
    );
    check(
        "{{ missing.field }}",
        expect!["error: the chat template failed: line 1: undefined value"],
    );
}

#[test]
fn the_date_follows_the_format() {
    let year = render("{{ strftime_now('%Y') }}", &Context::default()).unwrap();
    assert!(year.len() == 4 && year.parse::<u32>().unwrap() > 2000, "{year}");
}

#[test]
fn thinking_reaches_the_template_only_when_chosen() {
    let source = "{{ enable_thinking is defined }} {{ thinking }}";
    let with = |think| render(source, &Context { think, ..Context::default() }).unwrap();
    assert_eq!(with(None), "False ");
    assert_eq!(with(Some(true)), "True True");
    assert_eq!(with(Some(false)), "True False");
}

#[test]
fn tool_calls_come_in_the_form_the_template_can_use() {
    let call = ToolCall {
        id: Some("1".into()),
        name: "f".into(),
        arguments: json!({"x": 1}).as_object().cloned().unwrap(),
    };
    let messages = [Message { tool_calls: vec![call], ..message("assistant", "") }];
    let context = Context { messages: &messages, ..Context::default() };
    let object = "{{ messages[0].tool_calls[0].function.arguments | tojson }}";
    assert_eq!(render(object, &context).unwrap(), r#"{"x": 1}"#);
    let text = "{{ 'args: ' + messages[0].tool_calls[0]['function']['arguments'] }}";
    assert_eq!(render(text, &context).unwrap(), r#"args: {"x":1}"#);
    let null = "{% if messages[0].content is none %}null{% endif %}";
    assert_eq!(render(null, &context).unwrap(), "null");
}

/// Templates that would take all memory or time, and the stack.
fn hostile() -> Vec<(&'static str, String)> {
    let doubling = "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(60) %}";
    let end = "{% endfor %}{{ ns.s | length }}";
    let long = "x".repeat(60_000);
    vec![
        ("range", "{% for i in range(10**9) %}{% endfor %}".into()),
        (
            "loops",
            "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}\
             {% endfor %}{% endfor %}{% endfor %}"
                .into(),
        ),
        ("add", format!("{doubling}{{% set ns.s = ns.s + ns.s %}}{end}")),
        ("concat", format!("{doubling}{{% set ns.s = ns.s ~ ns.s %}}{end}")),
        ("format", format!("{doubling}{{% set ns.s = '{{}}{{}}'.format(ns.s, ns.s) %}}{end}")),
        ("percent", format!("{doubling}{{% set ns.s = '%s%s' % (ns.s, ns.s) %}}{end}")),
        ("replace", format!("{doubling}{{% set ns.s = ns.s | replace('a', 'aa') %}}{end}")),
        ("method", format!("{doubling}{{% set ns.s = ns.s.replace('a', 'aa') %}}{end}")),
        ("join", format!("{doubling}{{% set ns.s = [ns.s, ns.s] | join(ns.s) %}}{end}")),
        ("joins", format!("{doubling}{{% set ns.s = ns.s.join([ns.s, ns.s]) %}}{end}")),
        ("capture", format!("{doubling}{{% set x %}}{{{{ ns.s }}}}{{{{ ns.s }}}}{{% endset %}}{{% set ns.s = x %}}{end}")),
        ("lists", format!("{doubling}{{% set ns.s = [ns.s, ns.s] %}}{{% endfor %}}{{{{ ns.s }}}}")),
        ("compare", format!("{doubling}{{% set ns.s = [ns.s, ns.s] %}}{{% endfor %}}{{{{ ns.s == ns.s }}}}")),
        ("chain", "{% set ns = namespace(s=[]) %}{% for i in range(9999) %}{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s }}".into()),
        ("spaces", "{% for a in range(9999) %}{% set n = namespace(a=1) %}{% endfor %}".into()),
        ("self", "{% set n = namespace() %}{% set n.a = n %}{{ n }}".into()),
        ("times", "{{ 'a' * 90000000 }}".into()),
        ("powers", "{{ 'a' * 10 ** 8 }}".into()),
        ("many times", "{{ 'a' * 9000 }}".repeat(9_000)),
        ("late times", "{% set n = 90000000 %}{{ 'a' * n }}".into()),
        ("list times", "{{ ([1] * 90000000) | length }}".into()),
        ("indent", "{{ 'a' | indent(1000000000, true) }}".into()),
        ("width", "{{ '{:>1000000000}'.format('a') }}".into()),
        ("json", "{{ [[[1]]] | tojson(indent=1000000000) }}".into()),
        ("macro", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".into()),
        ("recursive", "{% for a in [[1]] recursive %}{{ loop([a]) }}{% endfor %}".into()),
        ("output", format!("{{% for a in range(9999) %}}{{% for b in range(9) %}}{long}{{% endfor %}}{{% endfor %}}")),
        ("captured", format!("{{% set x %}}{{% for a in range(9999) %}}{long}{{% endfor %}}{{% endset %}}")),
        ("slices", "{% set ns = namespace(l=[]) %}{% set n = 100000 %}{% set s = 'abcdefgh' * n %}{% for i in range(9999) %}{% set ns.l = ns.l + [s[1:]] %}{% endfor %}".into()),
        ("terms", format!("{{{{ 1{} }}}}", " + 1".repeat(30_000))),
        ("brackets", format!("{{{{ {}1{} }}}}", "(".repeat(9_000), ")".repeat(9_000))),
        ("filters", format!("{{{{ 'a'{} }}}}", "|trim".repeat(20_000))),
        ("fields", format!("{{{{ a{} }}}}", ".a".repeat(20_000))),
        ("nested", "{% if 1 %}".repeat(9_000)),
        ("source", "a".repeat(300_000)),
    ]
}

#[test]
fn hostile_templates_are_refused_quickly() {
    for (name, source) in hostile() {
        let start = processor_time();
        let result = render(&source, &Context::default());
        let elapsed = processor_time() - start;
        assert!(result.is_err(), "{name} was rendered");
        assert!(elapsed < REFUSAL_MAX, "{name} took {elapsed:?}");
    }
}

#[test]
fn a_long_conversation_stays_within_the_limits() {
    let text = "word ".repeat(2_000);
    let messages: Vec<Message> =
        (0..400).map(|at| message(if at % 2 == 0 { "user" } else { "assistant" }, &text)).collect();
    let context =
        Context { messages: &messages, add_generation_prompt: true, ..Context::default() };
    let prompt = render(CHATML, &context).unwrap();
    assert!(prompt.len() > 4_000_000);
}
