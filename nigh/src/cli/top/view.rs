//! The figures as tables that fit a terminal: columns by its width, functions by its height.

use std::fmt;

use super::figures::{BrokerFigures, ComputerFigures, Figures, FunctionFigures, Order};
use crate::output::{Column, Table};
use crate::units;

/// Functions that are shown however low the terminal is.
const FUNCTIONS_MIN: usize = 3;
/// Nodes of one kind that are shown at most while functions need room.
const NODES_MAX: usize = 8;

/// Figures for people.
pub(super) struct View<'a> {
    figures: &'a Figures,
    columns: usize,
    rows: usize,
}

impl<'a> View<'a> {
    /// For a terminal of this size.
    pub(super) fn new(figures: &'a Figures, columns: usize, rows: usize) -> Self {
        Self { figures, columns, rows }
    }

    fn functions(&self, shown: &[FunctionFigures]) -> String {
        let narrow = [
            Column::words("FUNCTION"),
            Column::numbers("CALLS/S"),
            Column::numbers("ERR/S"),
            Column::numbers("REFUSED/S"),
            Column::numbers("RUN"),
            Column::numbers("QUEUE"),
            Column::numbers("P50"),
            Column::numbers("P99"),
        ];
        let cells = |one: &FunctionFigures| {
            [
                one.function.clone(),
                rate(one.calls_per_s),
                rate(one.errors_per_s),
                rate(one.refused_per_s),
                one.running.to_string(),
                one.queued.to_string(),
                time(one.p50_us),
                time(one.p99_us),
            ]
        };
        let mut table = Table::new(narrow);
        shown.iter().for_each(|one| table.row(cells(one)));
        // Where the time goes, for those who have the width.
        let wide = ["QUEUED", "INIT", "RUN", "RESET"].map(Column::numbers);
        let means = |one: &FunctionFigures| {
            let known = |us: u64| time((one.calls > 0).then_some(us));
            [
                known(one.queue_us),
                known(one.init_us),
                known(one.run_us),
                time((one.reset_us > 0).then_some(one.reset_us)),
            ]
        };
        let mut beside = Table::new(wide);
        shown.iter().for_each(|one| beside.row(means(one)));
        side_by_side(&table.to_string(), &beside.to_string(), self.columns)
    }

    fn computers(shown: &[ComputerFigures]) -> String {
        let mut table = Table::new([
            Column::words("COMPUTER"),
            Column::numbers("CALLS/S"),
            Column::numbers("CPU 1S"),
            Column::numbers("10S"),
            Column::numbers("30S"),
            Column::numbers("RUN"),
            Column::numbers("QUEUE"),
            Column::numbers("INSTANCES"),
            Column::numbers("MEMORY"),
            Column::words("LABELS"),
        ]);
        for one in shown.iter().filter(|one| one.error.is_none()) {
            let labels: Vec<_> = one.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let [one_s, ten_s, thirty_s] = one.utilisation.map(|share| format!("{:.0}%", share * 100.0));
            table.row([
                one.name.clone(),
                rate(one.calls_per_s),
                one_s,
                ten_s,
                thirty_s,
                format!("{}/{}", one.running, one.workers),
                one.queued.to_string(),
                if one.modelled { "modelled".to_owned() } else { format!("{}/{}", one.instances, one.instances_max) },
                units::size(one.resident_bytes),
                labels.join(","),
            ]);
        }
        table.to_string()
    }

    fn brokers(shown: &[BrokerFigures]) -> String {
        let mut table = Table::new([
            Column::words("BROKER"),
            Column::numbers("CALLS/S"),
            Column::numbers("FAILED/S"),
            Column::numbers("IN FLIGHT"),
            Column::words("DESTINATIONS"),
        ]);
        for one in shown.iter().filter(|one| one.error.is_none()) {
            let aside = if one.set_aside > 0 { format!(", {} set aside", one.set_aside) } else { String::new() };
            table.row([
                one.name.clone(),
                rate(one.calls_per_s),
                rate(one.failures_per_s),
                one.in_flight.to_string(),
                format!("{} in use{aside}", one.in_use),
            ]);
        }
        table.to_string()
    }

    fn troubles(&self) -> Vec<String> {
        let computers = self.figures.computers.iter().map(|one| (&one.name, &one.endpoint, &one.error));
        let brokers = self.figures.brokers.iter().map(|one| (&one.name, &one.endpoint, &one.error));
        let trouble = |(name, endpoint, error): (&String, &String, &Option<String>)| {
            Some(format!("! {name} at {endpoint}: {}", error.as_ref()?))
        };
        let nodes = computers.chain(brokers).filter_map(trouble);
        let held_back = self.figures.functions.iter().filter(|one| one.held_back);
        let held_back: Vec<&str> = held_back.map(|one| one.function.as_str()).collect();
        let held_back = (!held_back.is_empty()).then(|| {
            let names = held_back.join(", ");
            format!("! one call at a time, as they break their limits in call after call: {names}")
        });
        nodes.chain(held_back).collect()
    }
}

impl fmt::Display for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { functions, computers, brokers, order } = self.figures;
        let troubles = self.troubles();
        let is_live = self.rows < usize::MAX;
        let nodes = |count: usize| if is_live { count.min(NODES_MAX) } else { count };
        let (computers_shown, brokers_shown) = (nodes(computers.len()), nodes(brokers.len()));
        // Three titles, two gaps, the last line, and what is said of nodes.
        let taken = 6 + computers_shown + brokers_shown + troubles.len();
        let room = self.rows.saturating_sub(taken).max(FUNCTIONS_MIN);
        let shown = &functions[..functions.len().min(room)];
        if functions.is_empty() {
            writeln!(f, "no function is deployed; deploy one with: nigh deploy FILE.wasm")?;
        } else {
            write!(f, "{}", self.functions(shown))?;
        }
        writeln!(f)?;
        if computers.is_empty() {
            writeln!(f, "no computer is alive; start one with: nigh computer")?;
        } else {
            write!(f, "{}", Self::computers(&computers[..computers_shown]))?;
        }
        writeln!(f)?;
        if brokers.is_empty() {
            writeln!(f, "no broker is alive; start one with: nigh broker")?;
        } else {
            write!(f, "{}", Self::brokers(&brokers[..brokers_shown]))?;
        }
        troubles.iter().try_for_each(|trouble| writeln!(f, "{trouble}"))?;
        if is_live {
            let hidden = [
                (functions.len() - shown.len(), "functions"),
                (computers.len() - computers_shown, "computers"),
                (brokers.len() - brokers_shown, "brokers"),
            ];
            let hidden = hidden.into_iter().filter(|(count, _)| *count > 0);
            let hidden: String = hidden.map(|(count, what)| format!("{count} more {what}; ")).collect();
            let sorted = match order {
                Order::Calls => "calls",
                Order::Errors => "errors",
                Order::P99 => "p99",
                Order::Name => "name",
            };
            write!(f, "{hidden}by {sorted}; sort with c e p n, quit with q")?;
        }
        Ok(())
    }
}

/// Two tables of the same rows as one, if both fit in the width.
fn side_by_side(table: &str, beside: &str, columns: usize) -> String {
    let width = |text: &str| text.lines().map(console::measure_text_width).max().unwrap_or(0);
    let left = width(table);
    if left + 2 + width(beside) > columns {
        return table.to_owned();
    }
    let line = |(line, more): (&str, &str)| {
        let gap = left - console::measure_text_width(line) + 2;
        format!("{line}{}{more}\n", " ".repeat(gap))
    };
    table.lines().zip(beside.lines()).map(line).collect()
}

fn rate(per_s: Option<f64>) -> String {
    match per_s {
        None => "-".to_owned(),
        Some(per_s) if per_s >= 100.0 => format!("{per_s:.0}"),
        Some(per_s) => format!("{per_s:.1}"),
    }
}

/// Three digits, so that columns stay narrow and do not jump.
fn time(us: Option<u64>) -> String {
    let Some(us) = us else { return "-".to_owned() };
    let us = u32::try_from(us).map_or(f64::INFINITY, f64::from);
    match us {
        us if us < 1e3 => format!("{us:.0} µs"),
        us if us < 1e4 => format!("{:.2} ms", us / 1e3),
        us if us < 1e5 => format!("{:.1} ms", us / 1e3),
        us if us < 1e6 => format!("{:.0} ms", us / 1e3),
        us if us < 1e7 => format!("{:.2} s", us / 1e6),
        us => format!("{:.1} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::figures;
    use super::*;

    #[test]
    fn everything_fits_in_eighty_columns_and_says_where_the_time_goes_in_more() {
        let figures = figures(Order::Calls);
        let narrow = View::new(&figures, 80, 24).to_string();
        assert!(narrow.lines().all(|line| console::measure_text_width(line) <= 80), "{narrow}");
        assert!(narrow.lines().any(|line| line.starts_with("echo") && line.contains("50.0")), "{narrow}");
        assert!(narrow.contains("3/8") && narrow.contains("50%") && narrow.contains("5/256"), "{narrow}");
        assert!(narrow.contains("1 in use, 1 set aside"), "{narrow}");
        assert!(narrow.contains("! computer-3 at 127.0.0.1:3: cannot connect"), "{narrow}");
        assert!(narrow.contains("limits in call after call: rare"), "{narrow}");
        assert!(!narrow.contains("RESET") && narrow.lines().count() <= 24, "{narrow}");
        let wide = View::new(&figures, 140, 24).to_string();
        assert!(wide.contains("RESET") && wide.contains("1.50 ms"), "{wide}");
    }

    #[test]
    fn functions_that_do_not_fit_are_counted() {
        let mut figures = figures(Order::Calls);
        let one = figures.functions[0].clone();
        figures.functions = vec![one; 100];
        let low = View::new(&figures, 80, 24).to_string();
        assert!(low.lines().count() <= 24, "{low}");
        assert!(low.lines().last().is_some_and(|line| line.contains("more functions")), "{low}");
        let whole = View::new(&figures, usize::MAX, usize::MAX).to_string();
        assert_eq!(whole.lines().filter(|line| line.starts_with("echo")).count(), 100);
        assert!(!whole.contains("quit with q"));
    }

    #[test]
    fn times_have_three_digits() {
        let told = [7, 999, 1234, 45_678, 999_400, 2_500_000, 61_000_000].map(|us| time(Some(us)));
        assert_eq!(told, ["7 µs", "999 µs", "1.23 ms", "45.7 ms", "999 ms", "2.50 s", "61.0 s"]);
        assert_eq!((time(None), rate(None), rate(Some(1234.5))), ("-".into(), "-".into(), "1234".into()));
    }
}
