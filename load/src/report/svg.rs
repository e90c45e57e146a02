//! The parts of charts: axes, lines, bars, patterns. Lines differ in their dashes and bars in their hatching, so that a print in
//! black and white tells as much as the screen.

use std::fmt::Write as _;

/// Width of a chart in its own units; the page scales it.
pub(super) const WIDTH: f64 = 900.0;
/// Room to the left of a plot, for labels.
pub(super) const LEFT: f64 = 68.0;
/// Room to the right, for the names of lines.
pub(super) const RIGHT: f64 = 72.0;

/// Text that stands for itself within HTML and SVG.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars().filter(|c| !c.is_control()) {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// Microseconds in the unit that fits, short.
pub(super) fn time(us: f64) -> String {
    let (number, unit) = match us {
        us if us < 1e3 => (us, "µs"),
        us if us < 1e6 => (us / 1e3, "ms"),
        us => (us / 1e6, "s"),
    };
    let digits = if number == 0.0 || number >= 100.0 || (number.fract() == 0.0 && number >= 1.0) {
        0
    } else if number >= 10.0 {
        1
    } else {
        2
    };
    format!("{number:.digits$} {unit}")
}

/// From values to places on the chart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    is_log: bool,
    begins: f64,
    ends: f64,
}

impl Axis {
    /// Between two values that are made to differ.
    pub(super) fn linear(low: f64, high: f64, begins: f64, ends: f64) -> Self {
        Self { low, high: if high > low { high } else { low + 1.0 }, is_log: false, begins, ends }
    }

    /// By orders of magnitude, of values of which the smallest is taken for 1 where it is less.
    pub(super) fn log(low: f64, high: f64, begins: f64, ends: f64) -> Self {
        let low = low.max(1.0);
        Self { low, high: high.max(low * 2.0), is_log: true, begins, ends }
    }

    /// Where a value is; one beyond the ends is at the end.
    pub(super) fn at(&self, value: f64) -> f64 {
        let share = if self.is_log {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.begins + share.clamp(0.0, 1.0) * (self.ends - self.begins)
    }

    /// Round values along it.
    pub(super) fn ticks(&self) -> Vec<f64> {
        if self.is_log {
            let decades = (self.high / self.low).log10();
            let within: &[f64] = if decades <= 2.2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
            let mut base = 10_f64.powf(self.low.log10().floor());
            let mut ticks = Vec::new();
            while base <= self.high {
                ticks.extend(within.iter().map(|factor| base * factor).filter(|t| (self.low..=self.high).contains(t)));
                base *= 10.0;
            }
            return ticks;
        }
        let step = round_up((self.high - self.low) / 6.0);
        let mut tick = (self.low / step).ceil() * step;
        let mut ticks = Vec::new();
        while tick <= self.high + step * 1e-9 {
            ticks.push(tick);
            tick += step;
        }
        ticks
    }
}

/// The least of 1, 2, 5, 10, … that is not less.
pub(super) fn round_up(value: f64) -> f64 {
    let base = 10_f64.powf(value.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|factor| factor * base)
        .find(|round| *round >= value * 0.999_999)
        .unwrap_or(10.0 * base)
}

/// How a line is drawn; each way differs from the others without colour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stroke {
    color: &'static str,
    dashes: &'static str,
    width: f64,
}

/// Ways to draw lines, the most prominent first.
pub(super) const STROKES: [Stroke; 6] = [
    Stroke { color: "#1b4f8a", dashes: "", width: 2.2 },
    Stroke { color: "#b5450b", dashes: "7 4", width: 1.8 },
    Stroke { color: "#4c4c4c", dashes: "1.5 3", width: 1.6 },
    Stroke { color: "#2c7a4b", dashes: "9 3 2 3", width: 1.8 },
    Stroke { color: "#7b3f98", dashes: "3 2", width: 1.8 },
    Stroke { color: "#8a6d00", dashes: "12 4", width: 1.8 },
];

/// Hatchings of bars, with the colour beneath.
const HATCHES: [(&str, &str); 6] = [
    ("#1b4f8a", ""),
    ("#d98a5b", r##"<path d="M0,8 L8,0" stroke="#7a2f07" stroke-width="1.4"/>"##),
    ("#e9e4d4", r##"<circle cx="4" cy="4" r="1.5" fill="#5d5330"/>"##),
    ("#9cc4a8", r##"<path d="M0,4 L8,4" stroke="#1d5232" stroke-width="1.4"/>"##),
    ("#cdb6da", r##"<path d="M4,0 L4,8" stroke="#552a6b" stroke-width="1.4"/>"##),
    ("#f3e2a0", r##"<path d="M0,0 L8,8 M0,8 L8,0" stroke="#6b5500" stroke-width="1"/>"##),
];

/// What fills bar number `place`; [`patterns`] has to stand on the same page.
pub(super) fn fill(place: usize) -> String {
    format!("url(#hatch{})", place % HATCHES.len())
}

/// The hatchings, once for a page.
pub(super) fn patterns() -> String {
    let mut defs = String::from("<svg width=\"0\" height=\"0\" aria-hidden=\"true\" class=\"defs\"><defs>");
    for (place, (color, lines)) in HATCHES.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(
            defs,
            "<pattern id=\"hatch{place}\" width=\"8\" height=\"8\" patternUnits=\"userSpaceOnUse\">\
             <rect width=\"8\" height=\"8\" fill=\"{color}\"/>{lines}</pattern>"
        );
    }
    defs + "</defs></svg>"
}

/// A chart under way.
#[derive(Debug)]
pub(super) struct Chart {
    body: String,
    height: f64,
    title: String,
}

impl Chart {
    /// A chart of this height, whose title is for those who cannot see it.
    pub(super) fn new(height: f64, title: &str) -> Self {
        Self { body: String::new(), height, title: escaped(title) }
    }

    /// The whole of it.
    pub(super) fn finish(self) -> String {
        let Self { body, height, title } = self;
        format!(
            "<svg viewBox=\"0 0 {WIDTH:.0} {height:.0}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>{body}</svg>"
        )
    }

    /// Text at a place: `class` says how it is set, `anchor` which end of it is there.
    pub(super) fn text(&mut self, x: f64, y: f64, anchor: &str, class: &str, text: &str) {
        let text = escaped(text);
        let _ = write!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{text}</text>"
        );
    }

    /// A straight line of a class.
    pub(super) fn rule(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ =
            write!(self.body, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>");
    }

    /// A bar, with what is told where a pointer rests on it.
    pub(super) fn bar(&mut self, at: (f64, f64), size: (f64, f64), fill: &str, tip: &str) {
        let ((x, y), (width, height), tip) = (at, size, escaped(tip));
        let _ = write!(
            self.body,
            "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{:.2}\" height=\"{:.2}\" fill=\"{fill}\" class=\"bar\"><title>{tip}</title></rect>",
            width.max(0.0),
            height.max(0.0)
        );
    }

    /// A line through points. Where one is missing the line is interrupted; a point alone is a dot.
    pub(super) fn line(&mut self, points: &[Option<(f64, f64)>], stroke: Stroke) {
        let Stroke { color, dashes, width } = stroke;
        let mut path = String::new();
        let mut is_down = false;
        for (place, point) in points.iter().enumerate() {
            let Some((x, y)) = point else {
                is_down = false;
                continue;
            };
            let is_alone = !is_down && points.get(place + 1).is_none_or(Option::is_none);
            if is_alone {
                let _ = write!(self.body, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{width}\" fill=\"{color}\"/>");
            }
            let _ = write!(path, "{}{x:.1},{y:.1} ", if is_down { "L" } else { "M" });
            is_down = true;
        }
        let _ = write!(
            self.body,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"{width}\" stroke-dasharray=\"{dashes}\" stroke-linejoin=\"round\"/>"
        );
    }

    /// Grid lines and labels along the left.
    pub(super) fn left_axis(&mut self, axis: &Axis, right: f64, label: impl Fn(f64) -> String) {
        for tick in axis.ticks() {
            let y = axis.at(tick);
            self.rule((LEFT, y), (right, y), "grid");
            self.text(LEFT - 8.0, y + 4.0, "end", "tick", &label(tick));
        }
    }

    /// Marks and labels along the bottom.
    pub(super) fn bottom_axis(&mut self, ticks: &[(f64, String)], y: f64, title: &str) {
        self.rule((LEFT, y), (WIDTH - RIGHT, y), "axis");
        for (x, label) in ticks {
            self.rule((*x, y), (*x, y + 5.0), "axis");
            self.text(*x, y + 18.0, "middle", "tick", label);
        }
        self.text(f64::midpoint(LEFT, WIDTH - RIGHT), y + 36.0, "middle", "label", title);
    }
}

/// Labels at the ends of lines, moved apart so that none hides another: their texts with the places wanted.
pub(super) fn apart(mut labels: Vec<(f64, String)>, gap: f64) -> Vec<(f64, String)> {
    labels.sort_by(|one, other| one.0.total_cmp(&other.0));
    for place in 1..labels.len() {
        let least = labels[place - 1].0 + gap;
        if labels[place].0 < least {
            labels[place].0 = least;
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_strangers_cannot_become_markup() {
        assert_eq!(escaped("<script>\"a\" & 'b'\u{7}"), "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;");
    }

    #[test]
    fn ticks_are_round_and_within_the_axis() {
        assert_eq!(Axis::linear(0.0, 30.0, 0.0, 1.0).ticks(), [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0]);
        assert_eq!(Axis::log(150.0, 90_000.0, 0.0, 1.0).ticks(), [1000.0, 10_000.0]);
        assert_eq!(Axis::log(150.0, 900.0, 0.0, 1.0).ticks(), [200.0, 500.0]);
        assert!(Axis::linear(3.0, 3.0, 0.0, 1.0).at(3.0).is_finite());
        assert!((Axis::log(1.0, 100.0, 0.0, 10.0).at(10.0) - 5.0).abs() < 1e-9);
    }

    #[test]
    fn times_are_short() {
        let told = [0.0, 7.0, 950.0, 1500.0, 20_000.0, 123_456.0, 2e6].map(time);
        assert_eq!(told, ["0 µs", "7 µs", "950 µs", "1.50 ms", "20 ms", "123 ms", "2 s"]);
    }

    #[test]
    fn labels_move_apart() {
        let labels = apart(vec![(10.0, "b".into()), (9.0, "a".into()), (50.0, "c".into())], 12.0);
        assert_eq!(labels.iter().map(|label| label.0).collect::<Vec<_>>(), [9.0, 21.0, 50.0]);
    }
}
