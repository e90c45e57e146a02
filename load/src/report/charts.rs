//! The charts of a page: latency over time, how latency is distributed, who did the work, where the time went.

use super::compare::Comparison;
use super::svg::{Axis, Chart, LEFT, RIGHT, STROKES, WIDTH, apart, escaped, fill, round_up, time};
use super::{Bin, Group, Part, Percentiles, Point, Report, Slice};

const PLOT_ENDS: f64 = WIDTH - RIGHT;
/// Bars of one chart, at most; what is left makes one more.
const BARS_MAX: usize = 16;
/// Parts that take less than this share have no label.
const LABELLED: f64 = 0.06;

/// Latency over time by percentiles, and beneath it the answers per second.
pub(super) fn over_time(report: &Report) -> String {
    let slices = &report.slices;
    let mut chart = Chart::new(430.0, "Latency and answers over time");
    let answered = || slices.iter().filter(|slice| slice.latency.count > 0);
    let low = answered().map(|slice| slice.latency.p50).min().unwrap_or(1) as f64;
    let high = answered().map(|slice| slice.latency.max).max().unwrap_or(10) as f64;
    let x = Axis::linear(0.0, report.seconds, LEFT, PLOT_ENDS);
    let y = Axis::log(low * 0.8, high * 1.25, 255.0, 14.0);
    chart.left_axis(&y, PLOT_ENDS, time);
    let mut labels = Vec::new();
    for (place, (name, stroke)) in ["p50", "p99", "max"].iter().zip(STROKES).enumerate() {
        let of = |latency: &Percentiles| [latency.p50, latency.p99, latency.max][place];
        let point = |slice: &Slice| {
            let middle = slice.begins_s + slice.seconds / 2.0;
            (slice.latency.count > 0).then(|| (x.at(middle), y.at(of(&slice.latency) as f64)))
        };
        let points: Vec<_> = slices.iter().map(point).collect();
        if let Some((_, y)) = points.iter().rev().flatten().next() {
            labels.push((*y, (*name).to_owned()));
        }
        chart.line(&points, stroke);
    }
    for (y, name) in apart(labels, 14.0) {
        chart.text(PLOT_ENDS + 8.0, y + 4.0, "start", "name", &name);
    }
    chart.rule((LEFT, 255.0), (PLOT_ENDS, 255.0), "axis");

    let rate = |count: u64, slice: &Slice| if slice.seconds > 0.0 { count as f64 / slice.seconds } else { 0.0 };
    let most = slices.iter().map(|slice| rate(slice.due, slice)).fold(1.0, f64::max);
    let most = round_up(most / 4.0) * 4.0;
    let rates = Axis::linear(0.0, most, 385.0, 290.0);
    for tick in [0.0, most / 2.0, most] {
        chart.rule((LEFT, rates.at(tick)), (PLOT_ENDS, rates.at(tick)), "grid");
        chart.text(LEFT - 8.0, rates.at(tick) + 4.0, "end", "tick", &format!("{tick}"));
    }
    chart.text(LEFT, 280.0, "start", "label", "calls due per second; hatched: not answered");
    for slice in slices {
        let (from, to) = (x.at(slice.begins_s), x.at(slice.begins_s + slice.seconds));
        let (top, middle) = (rates.at(rate(slice.due, slice)), rates.at(rate(slice.answered, slice)));
        let tip = format!("{:.1} s: {} due, {} answered", slice.begins_s, slice.due, slice.answered);
        let width = (to - from - 0.6).max(0.6);
        chart.bar((from, middle), (width, 385.0 - middle), "#9fb4cc", &tip);
        if slice.due > slice.answered {
            chart.bar((from, top), (width, middle - top), &fill(1), &tip);
        }
    }
    let ticks: Vec<_> = x.ticks().into_iter().map(|tick| (x.at(tick), format!("{tick}"))).collect();
    chart.bottom_axis(&ticks, 385.0, "seconds since the end of the warm-up");
    chart.finish()
}

/// How many answers took how long, with the percentiles marked.
pub(super) fn histogram(bins: &[Bin], latency: &Percentiles) -> String {
    let mut chart = Chart::new(290.0, "How many answers took how long");
    let low = latency.min as f64 / 1.1;
    let x = Axis::log(low, latency.max as f64 * 1.1, LEFT, PLOT_ENDS);
    let most = bins.iter().map(|bin| bin.count).max().unwrap_or(1) as f64;
    let y = Axis::linear(0.0, round_up(most), 240.0, 40.0);
    chart.left_axis(&y, PLOT_ENDS, |tick| format!("{tick}"));
    for bin in bins {
        let (from, to) = (x.at(bin.upto_us as f64 / 1.1), x.at(bin.upto_us as f64));
        let top = y.at(bin.count as f64);
        let tip = format!("{} up to {}", bin.count, time(bin.upto_us as f64));
        chart.bar((from + 0.4, top), ((to - from - 0.8).max(0.8), 240.0 - top), &fill(0), &tip);
    }
    let marks = [("p50", latency.p50), ("p90", latency.p90), ("p99", latency.p99), ("p99.9", latency.p99_9)];
    let mut taken = f64::MIN;
    for (name, us) in marks {
        let at = x.at(us as f64);
        chart.rule((at, 32.0), (at, 240.0), "mark");
        // One that would stand over its neighbour has the line alone.
        if at - taken > 30.0 {
            chart.text(at, 26.0, "middle", "name", name);
            taken = at;
        }
    }
    let ticks: Vec<_> = x.ticks().into_iter().map(|tick| (x.at(tick), time(tick))).collect();
    chart.bottom_axis(&ticks, 240.0, "latency, from when a call was due");
    chart.finish()
}

/// Latency by percentile: the rarer, the further to the right. One line for each name.
pub(super) fn percentiles(curves: &[(&str, &[Point])]) -> String {
    let mut chart = Chart::new(330.0, "Latency by percentile");
    let points = || curves.iter().flat_map(|(_, points)| *points);
    // How rare the rarest is that can be told of: one in so many.
    let rarity = |point: &Point| 1.0 / (1.0 - point.quantile).max(1e-9);
    let rarest = points().filter(|point| point.quantile < 1.0).map(rarity).fold(100.0, f64::max).min(1e6);
    let low = points().map(|point| point.us).min().unwrap_or(1) as f64;
    let high = points().map(|point| point.us).max().unwrap_or(10) as f64;
    let x = Axis::log(1.0, rarest, LEFT, PLOT_ENDS);
    let y = Axis::log(low * 0.8, high * 1.25, 280.0, 14.0);
    chart.left_axis(&y, PLOT_ENDS, time);
    let mut labels = Vec::new();
    for ((name, points), stroke) in curves.iter().zip(STROKES.iter().cycle()) {
        let line: Vec<_> = points.iter().map(|point| Some((x.at(rarity(point)), y.at(point.us as f64)))).collect();
        chart.line(&line, *stroke);
        if let Some(Some((_, y))) = line.last()
            && curves.len() > 1
        {
            labels.push((*y, name.chars().take(12).collect()));
        }
    }
    for (y, name) in apart(labels, 14.0) {
        chart.text(PLOT_ENDS + 6.0, y + 4.0, "start", "name", &name);
    }
    let marks = [(2.0, "50 %"), (10.0, "90 %"), (100.0, "99 %"), (1e3, "99.9 %"), (1e4, "99.99 %"), (1e5, "99.999 %")];
    let ticks: Vec<_> = marks
        .into_iter()
        .filter(|(rarity, _)| *rarity <= rarest)
        .map(|(rarity, name)| (x.at(rarity), name.to_owned()))
        .collect();
    for (at, _) in &ticks {
        chart.rule((*at, 14.0), (*at, 280.0), "grid");
    }
    chart.bottom_axis(&ticks, 280.0, "share of answers that took no longer");
    chart.finish()
}

/// Which share of the answers came from whom.
pub(super) fn shares(groups: &[Group]) -> String {
    let mut groups: Vec<&Group> = groups.iter().collect();
    groups.sort_by(|one, other| other.share.total_cmp(&one.share).then_with(|| one.name.cmp(&other.name)));
    let (shown, rest) = groups.split_at(groups.len().min(BARS_MAX));
    let rows = shown.len() + usize::from(!rest.is_empty());
    let mut chart = Chart::new(26.0 * rows as f64 + 12.0, "Share of answers");
    let most = shown.first().map_or(1.0, |group| group.share).max(1e-9);
    let x = Axis::linear(0.0, most, 190.0, WIDTH - 280.0);
    for (row, group) in shown.iter().enumerate() {
        let y = 6.0 + 26.0 * row as f64;
        chart.text(182.0, y + 15.0, "end", "name", &group.name.chars().take(26).collect::<String>());
        let tip = format!("{}: {} answers", group.name, group.answered);
        chart.bar((190.0, y), (x.at(group.share) - 190.0, 20.0), &fill(row % 2 * 3), &tip);
        let told = format!(
            "{:.1} %  ({}), p50 {}, p99 {}",
            100.0 * group.share,
            group.answered,
            time(group.latency.p50 as f64),
            time(group.latency.p99 as f64)
        );
        chart.text(x.at(group.share) + 8.0, y + 15.0, "start", "tick", &told);
    }
    if !rest.is_empty() {
        let share: f64 = rest.iter().map(|group| group.share).sum();
        let y = 6.0 + 26.0 * shown.len() as f64;
        let told = format!("{} more, together {:.1} %", rest.len(), 100.0 * share);
        chart.text(190.0, y + 15.0, "start", "tick", &told);
    }
    chart.finish()
}

/// Where the mean time went: one bar, and what its parts are.
pub(super) fn parts(parts: &[Part]) -> String {
    let total: f64 = parts.iter().map(|part| part.mean).sum();
    if total <= 0.0 {
        return String::new();
    }
    let mut chart = Chart::new(64.0, "Where the time went");
    let mut at = 2.0;
    for (place, part) in parts.iter().enumerate() {
        let share = part.mean / total;
        let width = share * (WIDTH - 4.0);
        let tip = format!("{}: {} of {}, {:.1} %", part.name, time(part.mean), time(total), 100.0 * share);
        chart.bar((at, 4.0), (width, 32.0), &fill(place), &tip);
        if share >= LABELLED {
            let middle = at + width / 2.0;
            chart.text(middle, 53.0, "middle", "name", &part.name);
        }
        at += width;
    }
    let chart = chart.finish();
    let row = |(place, part): (usize, &Part)| {
        let swatch = format!(
            "<svg class=\"swatch\" viewBox=\"0 0 16 16\"><rect width=\"16\" height=\"16\" fill=\"{}\"/></svg>",
            fill(place)
        );
        let [mean, p50, p99] = [part.mean, part.p50 as f64, part.p99 as f64].map(time);
        let share = 100.0 * part.mean / total;
        let name = escaped(&part.name);
        format!("<tr><th>{swatch}{name}</th><td>{mean}</td><td>{share:.1} %</td><td>{p50}</td><td>{p99}</td></tr>")
    };
    let rows: String = parts.iter().enumerate().map(row).collect();
    format!(
        "{chart}<table><thead><tr><th>part</th><th>mean</th><th>share</th><th>p50</th><th>p99</th></tr></thead><tbody>{rows}</tbody></table>"
    )
}

/// How much each figure of a side differs from the first side's, with its interval as a whisker. To the right is more.
pub(super) fn changes(comparison: &Comparison, side: usize) -> String {
    let rows: Vec<_> = comparison
        .rows
        .iter()
        .filter_map(|row| {
            let cell = row.cells.get(side)?;
            Some((row, cell.change.filter(|change| change.is_relative)?, cell.verdict))
        })
        .collect();
    if rows.is_empty() {
        return "<p>Too few figures to tell of changes.</p>".to_owned();
    }
    let height = 30.0 * rows.len() as f64;
    let mut chart = Chart::new(height + 60.0, "Changes with their intervals");
    let reach = rows.iter().map(|(_, change, _)| change.low.abs().max(change.high.abs())).fold(0.01, f64::max);
    let reach = round_up(reach.min(10.0));
    let x = Axis::linear(-reach, reach, 170.0, WIDTH - 215.0);
    chart.rule((x.at(0.0), 4.0), (x.at(0.0), height + 10.0), "zero");
    for (place, (row, change, verdict)) in rows.iter().enumerate() {
        let y = 20.0 + 30.0 * place as f64;
        chart.text(160.0, y + 4.0, "end", "name", &row.figure);
        chart.rule((x.at(change.low), y), (x.at(change.high), y), "whisker");
        for end in [change.low, change.high] {
            chart.rule((x.at(end), y - 5.0), (x.at(end), y + 5.0), "whisker");
        }
        let tip = format!("{:+.1} %", 100.0 * change.change);
        chart.bar((x.at(change.change) - 4.0, y - 4.0), (8.0, 8.0), "#1b4f8a", &tip);
        chart.text(WIDTH - 200.0, y + 4.0, "start", "tick", &format!("{tip}, {}", verdict.as_str()));
    }
    chart.rule((170.0, height + 10.0), (WIDTH - 215.0, height + 10.0), "axis");
    for tick in x.ticks() {
        chart.rule((x.at(tick), height + 10.0), (x.at(tick), height + 15.0), "axis");
        chart.text(x.at(tick), height + 28.0, "middle", "tick", &percent(tick));
    }
    chart.text(x.at(0.0), height + 46.0, "middle", "label", "change");
    chart.finish()
}

/// A change in percent; none has no sign.
fn percent(change: f64) -> String {
    if change.abs() < 1e-9 { "0 %".to_owned() } else { format!("{:+.0} %", 100.0 * change) }
}
