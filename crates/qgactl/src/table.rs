//! Tables for people: columns as wide as what stands in them, two blanks between.

/// A table with the heads of its columns; rows that lack cells at the end are filled up. What stands in a column whose
/// head begins with `>` is set to the right, as numbers are.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let columns: Vec<_> = heads
        .iter()
        .enumerate()
        .map(|(column, head)| {
            let name = head.trim_start_matches('>');
            let widest = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
            (name, widest.unwrap_or(0).max(name.chars().count()), head.starts_with('>'))
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
    head + &rows.collect::<String>()
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
}
