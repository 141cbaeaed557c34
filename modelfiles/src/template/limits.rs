//! What a template may cost. A prompt of a real template stays a hundred times below each.

/// Bytes of a template's text.
pub const SOURCE_BYTES_MAX: usize = 256 << 10;
/// Bytes of a prompt.
pub const OUTPUT_BYTES_MAX: usize = 32 << 20;
/// Steps (instructions of Jinja's machine, nodes of a Go template) that may run.
pub const STEPS_MAX: u64 = 400_000;
/// Macros, blocks and calls within each other, while it runs.
pub const DEPTH_MAX: usize = 64;
/// Words and signs within one pair of braces, which bounds how deep an expression nests.
pub const TAG_TOKENS_MAX: usize = 400;
/// Bytes of text and lists that may be made along the way, apart from what the input's size adds.
pub const WORK_BYTES_MAX: usize = 16 << 20;
/// How many times the conversation's own bytes may be copied beyond that.
pub const WORK_PER_INPUT_BYTE: usize = 64;
