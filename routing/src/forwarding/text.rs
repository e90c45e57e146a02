//! A forwarding table as text, for people and for programs that read what the tools of old print.

use std::fmt;

/// One destination of one function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row<'a> {
    /// The function.
    pub function: &'a str,
    /// Where its calls may go.
    pub destination: &'a str,
    /// The weight; less is better.
    pub weight: f64,
    /// It runs calls itself.
    pub is_final: bool,
}

/// A table's rows, by function and destination. A function's name stands on its first row only; names and weights are
/// padded to the longest; `(F)` marks what is final.
#[derive(Debug, Clone)]
pub struct TableText<'a> {
    rows: Vec<Row<'a>>,
}

impl<'a> TableText<'a> {
    /// The text of these rows, in whatever order they come.
    pub fn new(rows: impl IntoIterator<Item = Row<'a>>) -> Self {
        let mut rows: Vec<_> = rows.into_iter().collect();
        rows.sort_by_key(|row| (row.function, row.destination));
        Self { rows }
    }
}

impl fmt::Display for TableText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widest = |width: fn(&Row<'_>) -> usize| self.rows.iter().map(width).max().unwrap_or(0);
        let name_width = widest(|row| row.function.chars().count());
        let weight_width = widest(|row| weight_text(row.weight).len() + 2);
        let mut before = None;
        for Row { function, destination, weight, is_final } in &self.rows {
            let name = if before == Some(function) { "" } else { function };
            let weight = format!("[{}]", weight_text(*weight));
            let mark = if *is_final { " (F)" } else { "" };
            writeln!(f, "{name:name_width$} {weight:weight_width$} {destination}{mark}")?;
            before = Some(function);
        }
        Ok(())
    }
}

/// Digits of a weight behind the first significant one.
const MORE_DIGITS: u8 = 5;

/// A weight as C's `%g` writes it: six significant digits, no zeros at the end, an exponent where it is very large or
/// small.
pub fn weight_text(weight: f64) -> String {
    if !weight.is_finite() || weight == 0.0 {
        return weight.to_string();
    }
    let scientific = format!("{weight:.*e}", usize::from(MORE_DIGITS));
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let without_zeros = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    match usize::try_from(i32::from(MORE_DIGITS) - exponent) {
        Ok(decimals) if exponent >= -4 => without_zeros(&format!("{weight:.decimals$}")),
        _ => format!("{}e{exponent:+03}", without_zeros(mantissa)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_written_as_c_does() {
        for (weight, text) in [
            (1.0, "1"),
            (49.0, "49"),
            (0.5, "0.5"),
            (1.0 / 3.0, "0.333333"),
            (100_000.0, "100000"),
            (999_999.9, "1e+06"),
            (1_234_567.0, "1.23457e+06"),
            (0.0001, "0.0001"),
            (0.000_012_345_67, "1.23457e-05"),
            (0.0, "0"),
        ] {
            assert_eq!(weight_text(weight), text);
        }
    }

    #[test]
    fn an_empty_table_is_an_empty_text() {
        assert_eq!(TableText::new([]).to_string(), "");
    }
}
