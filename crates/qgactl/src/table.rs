//! Tables: columns as wide as their contents, two spaces between.
//!
//! The contents come from a guest, which may be hostile. So each cell is a [`piece`], a cell that is too wide overflows
//! its column, and only the first rows of too many are shown.

use crate::render::piece;

/// Widest column: every row is padded to it.
pub(crate) const WIDEST_COLUMN: usize = 256;
/// Most rows that are shown: more than a user reads, and than guests have of anything.
pub(crate) const MAX_ROWS: usize = 10_000;

/// A table with the heads of its columns. Missing cells at the end of a row are empty. A column whose head begins with
/// `>` is aligned to the right, as numbers are.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let is_cut = rows.len() > MAX_ROWS;
    let cells = |row: &Vec<String>| row.iter().map(|cell| piece(cell)).collect();
    let rows: Vec<Vec<String>> = rows.iter().take(MAX_ROWS).map(cells).collect();
    let columns: Vec<_> = heads
        .iter()
        .enumerate()
        .map(|(column, head)| {
            let name = head.trim_start_matches('>');
            let widest = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
            (name, widest.unwrap_or(0).max(name.chars().count()).min(WIDEST_COLUMN), head.starts_with('>'))
        })
        .collect();
    let line = |cells: &[&str]| {
        let mut line = String::new();
        for (cell, (_, width, is_right)) in cells.iter().zip(&columns) {
            line += &if *is_right { format!("{cell:>width$}  ") } else { format!("{cell:width$}  ") };
        }
        format!("{}\n", line.trim_end())
    };
    let head = line(&columns.iter().map(|(name, ..)| *name).collect::<Vec<_>>());
    let rows = rows.iter().map(|row| line(&row.iter().map(String::as_str).collect::<Vec<_>>()));
    let rest = if is_cut { "... and more, which --json shows\n" } else { "" };
    head + &rows.collect::<String>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(heads: &[&str], rows: &[&[&str]], expected: &str) {
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| (*cell).into()).collect()).collect();
        assert_eq!(table(heads, &rows), expected);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_numbers_stand_to_the_right() {
        check(
            &["name", ">bytes", "note"],
            &[&["a", "1", "first"], &["löng name", "12345678", ""], &["b", "-"]],
            "name          bytes  note\na                 1  first\nlöng name  12345678\nb                 -\n",
        );
    }

    #[test]
    fn a_table_without_rows_is_its_heads() {
        check(&["a", ">b"], &[], "a  b\n");
    }

    #[test]
    fn control_characters_are_escaped_and_no_cell_makes_a_row() {
        check(&["a", "b"], &[&["\u{1b}[2J", "1"], &["x\ny", "2"]], "a          b\n\\u001b[2J  1\nx\\u000ay   2\n");
    }

    #[test]
    fn a_cell_that_is_too_wide_widens_no_other() {
        let long = "x".repeat(70_000);
        let text = table(&["a", "b"], &[vec![long, "1".into()], vec!["y".into(), "2".into()]]);
        let lengths: Vec<_> = text.lines().map(str::len).collect();
        assert_eq!(lengths, [WIDEST_COLUMN + 3, 4096 + 3 + 3, WIDEST_COLUMN + 3]);
    }

    #[test]
    fn too_many_rows_are_announced() {
        let text = table(&["a"], &vec![vec!["x".into()]; MAX_ROWS + 1]);
        assert_eq!(text.lines().count(), 1 + MAX_ROWS + 1);
        assert!(text.ends_with("x\n... and more, which --json shows\n"));
    }
}
