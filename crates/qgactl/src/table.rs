//! Tables for people: columns as wide as what stands in them, numbers to the right, two blanks between.

/// A table with the heads of its columns; rows that lack cells at the end are filled up.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let cell = |row: &[String], column: usize| row.get(column).cloned().unwrap_or_default();
    let columns: Vec<_> = (0..heads.len())
        .map(|column| {
            let cells = rows.iter().map(|row| cell(row, column));
            let width = cells.clone().map(|cell| cell.chars().count()).chain([heads[column].len()]).max();
            let is_numeric =
                cells.clone().any(|cell| is_number(&cell)) && cells.clone().all(|cell| is_number_or_none(&cell));
            (width.unwrap_or(0), is_numeric)
        })
        .collect();
    let line = |cells: Vec<String>| {
        let mut line = String::new();
        for (cell, (width, is_numeric)) in cells.iter().zip(&columns) {
            let blanks = " ".repeat(width - cell.chars().count());
            line += &if *is_numeric { blanks + cell } else { format!("{cell}{blanks}") };
            line += "  ";
        }
        format!("{}\n", line.trim_end())
    };
    let head = line(heads.iter().map(|head| (*head).to_owned()).collect());
    head + &rows.iter().map(|row| line((0..heads.len()).map(|column| cell(row, column)).collect())).collect::<String>()
}

/// Begins with a digit; a unit or a sign may follow.
fn is_number(cell: &str) -> bool {
    cell.starts_with(|byte: char| byte.is_ascii_digit())
}

fn is_number_or_none(cell: &str) -> bool {
    cell.is_empty() || cell == "-" || is_number(cell)
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
            &["name", "bytes", "note"],
            &[&["a", "1", "first"], &["long name", "12345678", ""], &["b", "-"]],
            "name          bytes  note\na                 1  first\nlong name  12345678\nb                 -\n",
        );
    }

    #[test]
    fn a_table_without_rows_is_its_heads() {
        check(&["a", "b"], &[], "a  b\n");
    }
}
