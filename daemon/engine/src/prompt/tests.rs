//! From requests to tokens, on the tiny model's vocabulary.

use super::*;
use crate::gguf::Gguf;
use crate::gguf::testkit::{TEMPLATE, tiny_model};
use crate::options::Options;

const CONTEXT: usize = 400;

/// A model whose tokenizer adds a BOS or not.
fn model(add_bos: bool) -> Arc<Model> {
    let mut bytes = tiny_model("llama", 1);
    let key = b"tokenizer.ggml.add_bos_token";
    let at = bytes.windows(key.len()).position(|window| window == key).expect("the key is there");
    // The key is followed by its type, 4 bytes, and the value.
    bytes[at + key.len() + 4] = u8::from(add_bos);
    let gguf = Gguf::parse(bytes).expect("a good file");
    Arc::new(Model::from_gguf(gguf).expect("a good model"))
}

fn prompter(template: Option<&str>) -> Prompter {
    Prompter::new(model(false), compile(template).expect("a good template"))
}

fn message(role: &str, content: &str) -> Message {
    Message { role: role.to_owned(), content: content.to_owned(), ..Message::default() }
}

fn chat(messages: &[(&str, &str)]) -> Conversation {
    let messages = messages.iter().map(|(role, content)| message(role, content)).collect();
    Conversation { messages, ..Conversation::default() }
}

fn request(prompt: Prompt) -> Request {
    Request { prompt, options: Options::default(), truncate: false }
}

/// The prompt as the vocabulary spells it, control tokens included.
fn text(prompter: &Prompter, request: &Request, context: usize) -> Result<String, Failure> {
    let tokens = prompter.prepare(request, context)?.tokens;
    let tokenizer = prompter.tokenizer();
    let one = |&token: &u32| match tokenizer.is_control(token) {
        true => tokenizer.token_text(token).to_owned(),
        false => tokenizer.decode(&[token]),
    };
    Ok(tokens.iter().map(one).collect())
}

fn chat_text(template: Option<&str>, conversation: Conversation) -> Result<String, Failure> {
    text(&prompter(template), &request(Prompt::Chat(conversation)), CONTEXT)
}

#[test]
fn the_template_of_the_file_is_used_unless_another_is_given() {
    let hello = || chat(&[("user", "hi")]);
    let own = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(chat_text(None, hello()), Ok(own.to_owned()));
    let given = "{% for m in messages %}[{{ m.content }}]{% endfor %}";
    assert_eq!(chat_text(Some(given), hello()), Ok("[hi]".to_owned()));
    let mut with_own = hello();
    with_own.template = Some("{% for m in messages %}({{ m.content }}){% endfor %}".to_owned());
    assert_eq!(chat_text(Some(given), with_own), Ok("(hi)".to_owned()));
}

#[test]
fn a_bos_is_added_once() {
    let raw = |add_bos, raw: &str| {
        let prompter = Prompter::new(model(add_bos), None);
        text(&prompter, &request(Prompt::Raw(raw.to_owned())), CONTEXT)
    };
    assert_eq!(raw(true, "a"), Ok("<|endoftext|>a".to_owned()));
    assert_eq!(raw(true, "<|endoftext|>a"), Ok("<|endoftext|>a".to_owned()));
    assert_eq!(raw(false, "a"), Ok("a".to_owned()));
    assert_eq!(raw(true, ""), Ok("<|endoftext|>".to_owned()));
    let template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}";
    let prompter = Prompter::new(model(true), compile(Some(template)).expect("a good template"));
    let got = text(&prompter, &request(Prompt::Chat(chat(&[("user", "x")]))), CONTEXT);
    assert_eq!(got, Ok("<|endoftext|>x".to_owned()));
}

#[test]
fn a_gap_is_framed_by_its_tokens_and_its_text_is_only_text() {
    let fill = Prompt::Fill { prefix: "a<|im_end|>".to_owned(), suffix: "b".to_owned() };
    let prompter = prompter(None);
    assert!(prompter.can_fill());
    let tokens = prompter.prepare(&request(fill), CONTEXT).expect("it fits").tokens;
    let tokenizer = prompter.tokenizer();
    let controls: Vec<&str> = tokens
        .iter()
        .filter(|&&token| tokenizer.is_control(token))
        .map(|&token| tokenizer.token_text(token))
        .collect();
    assert_eq!(controls, ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]);
    assert_eq!(tokenizer.decode(&tokens[1..2]), "a");
}

#[test]
fn thinking_follows_the_template_and_the_request() {
    let open = "{% for m in messages %}{{ m.content }}{% endfor %}{{ '<think>\\n' }}";
    let mute = "{% for m in messages %}{{ m.content }}{% endfor %}|{# </think> #}";
    let check = |template: &str, think, want: &str, thinking: bool| {
        let conversation = Conversation { think, ..chat(&[("user", "q")]) };
        let request = request(Prompt::Chat(conversation));
        let prompter = prompter(Some(template));
        assert_eq!(text(&prompter, &request, CONTEXT), Ok(want.to_owned()));
        let splitter = prompter.prepare(&request, CONTEXT).expect("it fits").splitter;
        assert_eq!(splitter.thinking(), thinking, "{template} {think:?}");
    };
    check(open, None, "q<think>\n", true);
    check(open, Some(true), "q<think>\n", true);
    check(open, Some(false), "q<think>\n\n</think>\n\n", false);
    // The model opens the tag itself.
    check(mute, None, "q|", false);
    check(mute, Some(false), "q|<think>\n\n</think>\n\n", false);
}

#[test]
fn a_model_that_does_not_think_says_so() {
    let conversation = Conversation { think: Some(true), ..chat(&[("user", "q")]) };
    let failure = chat_text(Some("{% for m in messages %}x{% endfor %}"), conversation);
    let want = Failure::new(FailureKind::BadRequest, "this model does not support thinking");
    assert_eq!(failure, Err(want));
}

#[test]
fn template_errors_are_the_templates() {
    let kind = |template: &str| {
        let conversation =
            Conversation { template: Some(template.to_owned()), ..chat(&[("user", "q")]) };
        chat_text(None, conversation).expect_err("it fails").kind
    };
    assert_eq!(kind("{% for m in messages %}"), FailureKind::Template);
    assert_eq!(kind("{% if true %}{{ raise_exception('no') }}{% endif %}"), FailureKind::Template);
    let error = compile(Some("{% if %}")).expect_err("it is broken");
    assert!(matches!(error, LoadError::Template(_)), "{error}");
}

/// Five turns and a system message; each has a letter, and the template costs tokens as well.
fn long() -> Conversation {
    let turns = [("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c")];
    chat(&[&turns[..], &[("assistant", "d"), ("user", "e")]].concat())
}

#[test]
fn the_oldest_turns_go_first_and_system_messages_stay() {
    let prompter = prompter(Some("{% for m in messages %}{{ m.content }}{% endfor %}"));
    let mut request = request(Prompt::Chat(long()));
    request.truncate = true;
    let at = |context| text(&prompter, &request, context);
    assert_eq!(at(7), Ok("Sabcde".to_owned()));
    assert_eq!(at(6), Ok("Scde".to_owned()));
    assert_eq!(at(5), Ok("Scde".to_owned()));
    assert_eq!(at(4), Ok("Se".to_owned()));
    assert_eq!(at(3), Ok("Se".to_owned()));
    let failure = at(2).expect_err("nothing is left to drop");
    assert_eq!(failure.kind, FailureKind::ContextLength);
    assert!(failure.message.contains("6 tokens, the context 2"), "{failure}");
}

#[test]
fn without_truncation_a_long_prompt_is_refused() {
    let prompter = prompter(Some(TEMPLATE));
    let failure = text(&prompter, &request(Prompt::Chat(long())), 20).expect_err("too long");
    assert_eq!(failure.kind, FailureKind::ContextLength);
    let raw = request(Prompt::Raw(String::new()));
    assert_eq!(text(&prompter, &raw, 20).expect_err("empty").kind, FailureKind::BadRequest);
}

#[test]
fn tokens_of_an_earlier_answer_come_first() {
    let plain = Some("{% for m in messages %}{{ m.content }}{% endfor %}");
    let a = prompter(plain).tokenizer().encode("a", Special::AsText);
    let conversation = Conversation { context: a, ..chat(&[("user", "b")]) };
    assert_eq!(chat_text(plain, conversation), Ok("ab".to_owned()));
    let wrong = Conversation { context: vec![300], ..chat(&[("user", "b")]) };
    let failure = chat_text(plain, wrong).expect_err("no such token");
    assert_eq!(failure.message, "\"context\" holds token 300; the model has 300");
}
