//! No text makes a template machine panic or run on: every rendering ends within its limits.
#![no_main]

use dsk_modelfiles::template::{Context, Message, Template};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &str| {
    let message = |role: &str, content: &str| Message {
        role: role.into(),
        content: content.into(),
        ..Message::default()
    };
    let messages = [message("system", "s"), message("user", "a\nb"), message("assistant", "c")];
    let context = Context { messages: &messages, bos_token: "<s>", ..Context::default() };
    for template in [Template::jinja(source), Template::go(source)].into_iter().flatten() {
        let _ = template.render(&context);
    }
});
