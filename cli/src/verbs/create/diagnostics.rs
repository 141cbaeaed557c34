//! A Modelfile's mistake with its place, its line and a caret below it.

use dsk_modelfiles::Diagnostic;

/// Characters of a line that are shown around the mistake.
const WINDOW_CHARACTERS: usize = 80;

/// Renders one diagnostic.
pub(super) fn render(file: &str, text: &str, diagnostic: &Diagnostic) -> String {
    let Diagnostic { line, column, message, hint } = diagnostic;
    let mut out = format!("{file}:{line}:{column}: {message}");
    if let Some(shown) = text.lines().nth((*line as usize).saturating_sub(1)) {
        let (window, caret) = window(shown, (*column as usize).saturating_sub(1));
        let margin = " ".repeat(line.to_string().len());
        out.push_str(&format!("\n {line} | {window}\n {margin} | {}^", " ".repeat(caret)));
    }
    if let Some(hint) = hint {
        out.push_str(&format!("\n   = {hint}"));
    }
    out
}

/// The part of a line that holds the column, and the column within it. Tabs become spaces, so
/// that the caret stands where the eye looks.
fn window(line: &str, column: usize) -> (String, usize) {
    let characters: Vec<char> =
        line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let column = column.min(characters.len());
    let start = column.saturating_sub(WINDOW_CHARACTERS / 2);
    let shown = characters.iter().skip(start).take(WINDOW_CHARACTERS).collect();
    (shown, column - start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn diagnostic(line: u32, column: u32, hint: Option<&str>) -> Diagnostic {
        Diagnostic { line, column, message: "what is this".into(), hint: hint.map(str::to_owned) }
    }

    #[test]
    fn the_caret_stands_below_the_mistake() {
        let text = "FROM m\n\tPARAMETR x 1\n";
        expect![[r#"
            Modelfile:2:2: what is this
             2 |  PARAMETR x 1
               |  ^
               = did you mean PARAMETER?"#]]
        .assert_eq(&render("Modelfile", text, &diagnostic(2, 2, Some("did you mean PARAMETER?"))));
    }

    #[test]
    fn a_long_line_is_cut_around_the_mistake() {
        let text = "é".repeat(1000);
        let shown = render("M", &text, &diagnostic(1, 500, None));
        assert!(shown.lines().all(|line| line.chars().count() < 100), "{shown}");
    }

    #[test]
    fn a_place_past_the_end_has_no_line() {
        assert_eq!(render("M", "FROM m", &diagnostic(9, 1, None)), "M:9:1: what is this");
    }
}
