//! Lines in, steps and conversation out.

use super::*;
use expect_test::{Expect, expect};

/// Types lines into a fresh session and renders every step, then the conversation.
fn check(lines: &[&str], expected: Expect) {
    let mut session = Session::new("m");
    let mut text = String::new();
    for line in lines {
        text.push_str(&match session.line(line) {
            Step::Ask => {
                session.answered("an answer".to_owned(), String::new());
                "ask\n".to_owned()
            }
            Step::Say(message) => format!("say {}\n", message.lines().next().unwrap_or("")),
            step => format!("{step:?}\n"),
        });
    }
    for turn in session.conversation() {
        text.push_str(&format!("{}: {:?}\n", turn.role.name(), turn.content));
    }
    expected.assert_eq(&text);
}

#[test]
fn plain_lines_are_questions() {
    check(
        &["  hello ", "", "   ", "/home/me/x.txt is a path"],
        expect![[r#"
            ask
            Next
            Next
            ask
            user: "hello"
            assistant: "an answer"
            user: "/home/me/x.txt is a path"
            assistant: "an answer"
        "#]],
    );
}

#[test]
fn fences_hold_several_lines() {
    check(
        &[
            "\"\"\"first",
            "/bye is text here",
            "",
            "last\"\"\"",
            "\"\"\"one line\"\"\"",
            "\"\"\"",
            "x",
            "\"\"\"",
        ],
        expect![[r#"
            Next
            Next
            Next
            ask
            ask
            Next
            Next
            ask
            user: "first\n/bye is text here\n\nlast"
            assistant: "an answer"
            user: "one line"
            assistant: "an answer"
            user: "x"
            assistant: "an answer"
        "#]],
    );
}

#[test]
fn the_system_message_goes_first_and_may_have_several_lines() {
    check(
        &["hi", "/set system Be terse.", "/show system", "/set system \"\"\"Be", "kind.\"\"\""],
        expect![[r#"
            ask
            say Set system message.
            say Be terse.
            Next
            say Set system message.
            system: "Be\nkind."
            user: "hi"
            assistant: "an answer"
        "#]],
    );
}

#[test]
fn clear_forgets_everything_said() {
    check(
        &["/set system S", "hi", "/clear", "/show system"],
        expect![[r#"
            say Set system message.
            ask
            say Cleared session context.
            say No system message is set in this session.
        "#]],
    );
}

#[test]
fn steps_for_the_caller() {
    check(
        &["/save a", "/load b", "/list", "/show template", "/bye", "/nope"],
        expect![[r#"
            Save("a")
            Load("b")
            List
            Show(Template)
            Exit
            say Unknown command '/nope'. Type /? for help
        "#]],
    );
}

#[test]
fn parameters_are_typed_and_stops_add_up() {
    let mut session = Session::new("m");
    for line in ["temperature 0.5", "num_ctx 2048", "stop <a>", "stop <b>"] {
        assert!(matches!(session.line(&format!("/set parameter {line}")), Step::Say(_)));
    }
    let text = serde_json::to_string(&session.options).unwrap();
    expect![[r#"{"temperature":0.5,"num_ctx":2048,"stop":["<a>","<b>"]}"#]].assert_eq(&text);
}

#[test]
fn a_bad_parameter_is_said_and_changes_nothing() {
    let mut session = Session::new("m");
    for line in ["temperature warm", "no_such_thing 1"] {
        let Step::Say(said) = session.line(&format!("/set parameter {line}")) else {
            panic!("{line} was accepted silently");
        };
        assert!(said.starts_with("Couldn't set parameter:"), "{said}");
    }
    assert!(session.options.is_empty());
}

#[test]
fn settings_are_kept() {
    let mut session = Session::new("m");
    for line in ["verbose", "nowordwrap", "nohistory", "nothink"] {
        session.line(&format!("/set {line}"));
    }
    assert!(session.verbose && !session.wordwrap && !session.history);
    assert_eq!(session.think, Some(Think::Switch(false)));
}

#[test]
fn an_answer_that_never_came_takes_its_question_back() {
    let mut session = Session::new("m");
    assert_eq!(session.line("hi"), Step::Ask);
    session.answered(String::new(), String::new());
    assert_eq!(session.turns(), []);
}

#[test]
fn abandoning_a_message_returns_to_the_prompt() {
    let mut session = Session::new("m");
    session.line("\"\"\"half");
    assert!(session.in_message());
    session.abandon_message();
    assert_eq!(session.line("/bye"), Step::Exit);
}
