//! Tables for people: columns as wide as their widest cell.

use std::fmt;

/// One column: its title and on which side its cells align.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    title: &'static str,
    numbers: bool,
}

impl Column {
    /// A column of words.
    pub(crate) const fn words(title: &'static str) -> Self {
        Self { title, numbers: false }
    }

    /// A column of numbers, which align on the right.
    pub(crate) const fn numbers(title: &'static str) -> Self {
        Self { title, numbers: true }
    }
}

/// Rows under titles.
#[derive(Debug, Clone)]
pub(crate) struct Table<const N: usize> {
    columns: [Column; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// A table without rows.
    pub(crate) fn new(columns: [Column; N]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row; what could disturb a terminal is left out.
    pub(crate) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| cell.chars().filter(|c| !c.is_control()).collect()));
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| console::measure_text_width(&row[column]));
        cells.chain([self.columns[column].title.len()]).max().unwrap_or(0)
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths: [usize; N] = std::array::from_fn(|column| self.width(column));
        let titles = self.columns.map(|column| column.title.to_owned());
        for row in std::iter::once(&titles).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, column), width) in row.iter().zip(&self.columns).zip(widths) {
                let gap = " ".repeat(width.saturating_sub(console::measure_text_width(cell)));
                let [before, after] = if column.numbers { [gap.as_str(), ""] } else { ["", gap.as_str()] };
                line.extend([before, cell, after, "  "]);
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new([Column::words("NAME"), Column::numbers("CALLS"), Column::words("WHERE")]);
        table.row(["face-detect".into(), "7".into(), "a".into()]);
        table.row(["é".into(), "1234567".into(), String::new()]);
        assert_eq!(table.to_string(), "NAME           CALLS  WHERE\nface-detect        7  a\né            1234567\n");
    }

    #[test]
    fn a_cell_cannot_steer_the_terminal() {
        let mut table = Table::new([Column::words("TEXT")]);
        table.row(["\u{1b}[2Jgone\n".into()]);
        assert_eq!(table.to_string(), "TEXT\n[2Jgone\n");
    }
}
