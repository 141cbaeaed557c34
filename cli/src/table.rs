//! Plain tables: columns as wide as their widest cell, no frames, nothing after the last column.

/// Spaces between two columns.
const GAP: usize = 4;

/// Renders rows under a header, one line each.
pub(crate) fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let widths = widths(header, rows);
    let mut text = line(&mut header.iter().copied(), &widths);
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str), &widths));
    }
    text
}

/// Renders a titled block of `key  value` lines, indented as `dsk show` prints them.
pub(crate) fn block(title: &str, rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
    let mut text = format!("  {title}\n");
    for (key, value) in rows {
        let pad = " ".repeat(width - key.chars().count() + GAP);
        let row = format!("    {key}{pad}{value}");
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

fn widths(header: &[&str], rows: &[Vec<String>]) -> Vec<usize> {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    widths
}

fn line(cells: &mut dyn Iterator<Item = &str>, widths: &[usize]) -> String {
    let mut text = String::new();
    for (cell, width) in cells.zip(widths) {
        text.push_str(cell);
        text.push_str(&" ".repeat(width - cell.chars().count() + GAP));
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn columns_line_up() {
        let rows = [["smollm2:135m", "9077fe9d2ae1", "271 MB"], ["q", "a", ""]]
            .map(|row| row.map(str::to_owned).to_vec());
        expect![[r#"
            NAME            ID              SIZE
            smollm2:135m    9077fe9d2ae1    271 MB
            q               a
        "#]]
        .assert_eq(&render(&["NAME", "ID", "SIZE"], &rows));
    }

    #[test]
    fn an_empty_table_is_its_header() {
        assert_eq!(render(&["NAME", "ID"], &[]), "NAME    ID\n");
    }

    #[test]
    fn blocks_align_their_values() {
        let rows = [("architecture", "llama"), ("parameters", "134.52M"), ("x", "")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        expect![[r#"
            $ dsk show
              Model
                architecture    llama
                parameters      134.52M
                x
        "#]]
        .assert_eq(&format!("$ dsk show\n{}", block("Model", &rows)));
    }
}
