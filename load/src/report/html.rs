//! A page to look at, of one run or of several beside each other. It stands for itself: no scripts, nothing fetched, and it
//! prints.

use std::fmt::Write as _;

use super::charts;
use super::compare::{Cell, Comparison, Row, Side, Verdict};
use super::svg::{escaped, patterns, time};
use super::{Group, Percentiles, Report};

const STYLE: &str = "
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; color: #1c1c1c; background: #fff;
  max-width: 980px; margin: 2.2em auto; padding: 0 1.4em; }
h1 { font-size: 1.7em; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 1.12em; margin: 2.1em 0 .5em; border-bottom: 1px solid #bbb; padding-bottom: .25em; }
.sub { color: #555; margin: .2em 0 1.4em; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(135px, 1fr)); gap: .7em; }
.tile { border: 1px solid #c9c9c9; border-radius: 6px; padding: .7em .9em .6em; }
.tile b { display: block; font-size: 1.35em; font-weight: 600; letter-spacing: -.01em; white-space: nowrap; }
.tile span { color: #555; font-size: .88em; }
.warn { border: 1.5px solid #7a2f07; border-radius: 6px; padding: .6em .9em; margin: 1em 0; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg.defs { position: absolute; width: 0; height: 0; }
svg.swatch { display: inline-block; width: 14px; height: 14px; vertical-align: -2px; margin-right: .5em; border: 1px solid #555; }
.grid { stroke: #dcdcdc; stroke-width: 1; } .axis { stroke: #333; stroke-width: 1; }
.mark { stroke: #b5450b; stroke-width: 1.3; stroke-dasharray: 5 3; } .bar { stroke: #333; stroke-width: .4; }
.zero { stroke: #333; stroke-width: 1.2; } .whisker { stroke: #1b4f8a; stroke-width: 2; }
text { font-size: 12px; fill: #444; } text.name { font-weight: 600; fill: #1c1c1c; } text.label { fill: #555; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; margin: .4em 0; font-size: .93em; }
th, td { text-align: right; padding: .28em .7em; border-bottom: 1px solid #e2e2e2; white-space: nowrap; }
th:first-child, td.word, th.word { text-align: left; } tbody th { font-weight: 500; } thead th { color: #555; font-weight: 500; }
td.better::before { content: '▲ '; } td.worse::before { content: '▼ '; } td.better, td.worse { font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15em 1.2em; margin: 0; font-size: .93em; }
dt { color: #555; } dd { margin: 0; overflow-wrap: anywhere; }
footer { color: #666; font-size: .85em; margin: 2.5em 0 1em; border-top: 1px solid #ddd; padding-top: .6em; }
@media print { body { margin: 0; max-width: none; font-size: 11pt; } h2 { break-after: avoid; } svg, table { break-inside: avoid; } }
";

fn document(title: &str, body: &str) -> String {
    let (title, patterns, version) = (escaped(title), patterns(), env!("CARGO_PKG_VERSION"));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <title>{title}</title><style>{STYLE}</style></head><body>{patterns}{body}\
         <footer>Written by nigh {version}. Latency counts from when a call was due.</footer></body></html>\n"
    )
}

/// A page of one run.
pub fn page(report: &Report) -> String {
    let mut body = format!("<h1>{}</h1>", escaped(&report.label));
    let early = if report.stopped_early { ", stopped early" } else { "" };
    // Writing to a string cannot fail.
    let _ = write!(body, "<p class=\"sub\">{}, {:.1} s measured{early}</p>", escaped(&report.began), report.seconds);
    body += &tiles(report);
    body += &warnings(report);
    if report.latency.count > 0 {
        let _ = write!(body, "<h2>Latency over time</h2>{}", charts::over_time(report));
        let _ = write!(body, "<h2>How latency is distributed</h2>{}", charts::histogram(&report.bins, &report.latency));
        body += &charts::percentiles(&[("", &report.distribution)]);
    }
    let _ = write!(body, "<h2>Percentiles</h2>{}", latencies(report));
    let parts = charts::parts(&report.parts);
    if !parts.is_empty() {
        let _ = write!(body, "<h2>Where the time went</h2>{parts}");
    }
    body += &groups("Computers", &report.computers, true);
    body += &groups("Functions", &report.functions, report.functions.len() > 1);
    if !report.errors.is_empty() {
        let row = |error: &super::ErrorCount| {
            let share = 100.0 * error.count as f64 / report.calls.due.max(1) as f64;
            let (kind, of) = (escaped(&error.kind), escaped(&error.of));
            format!("<tr><th>{kind}</th><td class=\"word\">{of}</td><td>{}</td><td>{share:.2} %</td></tr>", error.count)
        };
        let rows: String = report.errors.iter().map(row).collect();
        let head = "<tr><th>kind</th><th class=\"word\">of</th><th>calls</th><th>of those due</th></tr>";
        let _ = write!(body, "<h2>Errors</h2><table><thead>{head}</thead><tbody>{rows}</tbody></table>");
    }
    let _ = write!(body, "<h2>How it was measured</h2>{}", settings(report));
    document(&report.label, &body)
}

fn tiles(report: &Report) -> String {
    let calls = &report.calls;
    let unanswered = 100.0 * calls.unanswered() as f64 / calls.due.max(1) as f64;
    let tile = |value: String, what: &str| format!("<div class=\"tile\"><b>{value}</b><span>{what}</span></div>");
    let tiles = [
        tile(format!("{:.1}/s", report.answered_per_s), "answered"),
        tile(format!("{:.1}/s", report.offered_per_s), "due"),
        tile(time(report.latency.p50 as f64), "median latency"),
        tile(time(report.latency.p99 as f64), "p99 latency"),
        tile(format!("{unanswered:.2} %"), "not answered"),
        tile(calls.due.to_string(), "calls"),
    ];
    format!("<div class=\"tiles\">{}</div>", tiles.concat())
}

/// What should be known before the figures are believed.
fn warnings(report: &Report) -> String {
    let mut warnings = String::new();
    if report.calls.overflow > 0 {
        let _ = write!(
            warnings,
            "<p class=\"warn\">{} calls were not made since too many were under way: more was offered than was answered.</p>",
            report.calls.overflow
        );
    }
    if report.start_delay.p99 > 2000 {
        let _ = write!(
            warnings,
            "<p class=\"warn\">The client itself was late: one call in a hundred began {} or more after it was due. Latency \
             includes it, as the part <i>client</i>.</p>",
            time(report.start_delay.p99 as f64)
        );
    }
    warnings
}

fn latencies(report: &Report) -> String {
    let mut rows = String::new();
    let mut row = |name: &str, times: &Percentiles| {
        let cells: String = times.named().iter().map(|(_, us)| format!("<td>{}</td>", time(*us as f64))).collect();
        let (count, mean, max) = (times.count, time(times.mean), time(times.max as f64));
        let _ = write!(rows, "<tr><th>{name}</th><td>{count}</td><td>{mean}</td>{cells}<td>{max}</td></tr>");
    };
    row("latency", &report.latency);
    if report.latency_all.count > report.latency.count {
        row("… failed calls included", &report.latency_all);
    }
    row("service time", &report.service);
    row("client late by", &report.start_delay);
    let names: String = report.latency.named().iter().map(|(name, _)| format!("<th>{name}</th>")).collect();
    format!(
        "<table><thead><tr><th></th><th>calls</th><th>mean</th>{names}<th>max</th></tr></thead><tbody>{rows}</tbody></table>"
    )
}

fn groups(title: &str, groups: &[Group], shown: bool) -> String {
    if !shown || groups.is_empty() {
        return String::new();
    }
    format!("<h2>{title}</h2>{}", charts::shares(groups))
}

fn settings(report: &Report) -> String {
    let pairs =
        report.settings.iter().map(|(name, value)| format!("<dt>{}</dt><dd>{}</dd>", escaped(name), escaped(value)));
    format!("<dl>{}</dl>", pairs.collect::<String>())
}

/// A page of several runs beside each other.
pub fn comparison_page(comparison: &Comparison, sides: &[Side]) -> String {
    let title = comparison.sides.join(" · ");
    let mut body = format!("<h1>{}</h1>", escaped(&title));
    let first = comparison.sides.first().map_or("", String::as_str);
    let _ = write!(body, "<p class=\"sub\">compared with {}</p>", escaped(first));
    let curves: Vec<_> = sides
        .iter()
        .filter_map(|side| Some((side.label.as_str(), side.reports.first()?.distribution.as_slice())))
        .collect();
    let _ = write!(body, "<h2>Latency by percentile</h2>{}", charts::percentiles(&curves));
    for (place, side) in comparison.sides.iter().enumerate().skip(1) {
        let _ =
            write!(body, "<h2>{} against {}</h2>{}", escaped(side), escaped(first), charts::changes(comparison, place));
    }
    let _ = write!(body, "<h2>Figures</h2>{}", figures(comparison));
    let _ = write!(body, "<p class=\"sub\">{}.</p>", escaped(&comparison.method));
    for side in sides {
        for report in &side.reports {
            let _ = write!(body, "<h2>{}: how it was measured</h2>{}", escaped(&report.label), settings(report));
        }
    }
    document(&title, &body)
}

fn figures(comparison: &Comparison) -> String {
    let mut rows = String::new();
    for row in &comparison.rows {
        for (place, (side, cell)) in comparison.sides.iter().zip(&row.cells).enumerate() {
            let figure = if place == 0 { row.figure.as_str() } else { "" };
            let interval = cell.interval.map(|i| format!("{} … {}", value(row, i.low), value(row, i.high)));
            let class = match cell.verdict {
                Verdict::Better => "word better",
                Verdict::Worse => "word worse",
                Verdict::Baseline | Verdict::NoneShown | Verdict::Unknown => "word",
            };
            let _ = write!(
                rows,
                "<tr><th>{}</th><td class=\"word\">{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"{class}\">{}</td></tr>",
                escaped(figure),
                escaped(side),
                value(row, cell.value),
                interval.unwrap_or_default(),
                change(cell),
                if cell.verdict == Verdict::Baseline { "" } else { cell.verdict.as_str() },
            );
        }
    }
    let head = "<tr><th>figure</th><th class=\"word\">run</th><th>value</th><th>95 % interval</th><th>change</th><th class=\"word\">verdict</th></tr>";
    format!("<table><thead>{head}</thead><tbody>{rows}</tbody></table>")
}

fn value(row: &Row, value: f64) -> String {
    match row.unit.as_str() {
        "µs" => time(value.max(0.0)),
        "%" => format!("{value:.2} %"),
        _ => format!("{value:.1}/s"),
    }
}

fn change(cell: &Cell) -> String {
    let told = cell.change.map(|change| match change.is_relative {
        true => format!("{:+.1} % ({:+.1} … {:+.1})", 100.0 * change.change, 100.0 * change.low, 100.0 * change.high),
        false => format!("{:+.2} ({:+.2} … {:+.2})", change.change, change.low, change.high),
    });
    told.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nigh_proto::{Reason, Timing};

    use super::*;
    use crate::report::Tally;
    use crate::sample::{Ending, Facts, Sample};

    fn report(label: &str, calls: u64) -> Report {
        let mut tally = Tally::new(&["echo".parse().unwrap()], Duration::ZERO);
        for n in 0..calls {
            let due = Duration::from_millis(20 * n);
            let facts = Facts {
                computer: "computer-1".parse().unwrap(),
                responder: None,
                load1: 7,
                hops: 1,
                answer_bytes: 1,
                timing: Timing { run: Duration::from_millis(1), ..Timing::default() },
                estimate: None,
            };
            let ending = match n % 3 {
                0 => Ending::Failed(Reason::QueueFull),
                1 => Ending::FunctionError("<b>'&\u{7}".to_owned(), facts),
                _ => Ending::Answered(facts),
            };
            let ended = due + Duration::from_millis(1 + n % 7);
            tally.record(&Sample { due, sent: due, ended, client: 0, function: 0, request_bytes: 1, ending });
        }
        let settings = vec![("<i>".to_owned(), "\"</dd>".to_owned())];
        tally.report(label.to_owned(), "now".to_owned(), settings, Some(Duration::from_secs(3)), false).0
    }

    fn assert_sound(page: &str) {
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
        for odd in ["NaN", "inf", "<script", "<b>'", "<i>", "http:", "https:", "url(http", "@import"] {
            assert!(!page.contains(odd), "{odd}");
        }
        for tag in ["svg", "table", "tr", "td", "dl", "text", "title"] {
            let (opened, closed) =
                (page.matches(&format!("<{tag}>")).count(), page.matches(&format!("</{tag}>")).count());
            assert_eq!(opened + page.matches(&format!("<{tag} ")).count(), closed, "<{tag}>");
        }
    }

    #[test]
    fn a_page_stands_for_itself_whatever_was_measured() {
        for calls in [0, 1, 2, 3, 150] {
            assert_sound(&page(&report("</title><script>alert(1)</script>", calls)));
        }
    }

    #[test]
    fn a_comparison_shows_every_side_and_what_changed() {
        let side = |label: &str, calls| Side { label: label.to_owned(), reports: vec![report(label, calls)] };
        let sides = [side("before", 150), side("<script>after", 120), side("nothing", 0)];
        let page = comparison_page(&Comparison::of(&sides), &sides);
        assert_sound(&page);
        assert!(page.contains("&lt;script&gt;after against before"));
    }
}
