//! A flow as text for the terminal, and as a picture in SVG.

use std::fmt::Write as _;

use nigh_proto::Flow;

use crate::layers::{Layout, count};

const BOX_WIDTH: f64 = 168.0;
const BOX_HEIGHT: f64 = 46.0;
const GAP_ACROSS: f64 = 28.0;
const GAP_DOWN: f64 = 54.0;
const MARGIN: f64 = 20.0;
/// What a line takes of a layer that it passes.
const LINE_WIDTH: f64 = 12.0;

/// The steps as lines, layer by layer, each with what it is given.
pub fn text(flow: &Flow) -> String {
    let name = |at: usize| flow.steps()[at].name.as_str();
    let mut drawn = String::new();
    for (depth, layer) in Layout::of(flow).layers.iter().enumerate() {
        let arm = if depth == 0 { "●".to_owned() } else { format!("{}└─►", "   ".repeat(depth - 1)) };
        for &at in layer.iter().filter(|&&node| node < flow.steps().len()) {
            let step = &flow.steps()[at];
            let function =
                if name(at) == step.function.as_str() { String::new() } else { format!(" ({})", step.function) };
            let given: Vec<_> = step.after.iter().map(|&before| name(before)).collect();
            let given = if given.is_empty() { "the input".to_owned() } else { given.join(" + ") };
            let _ = writeln!(drawn, "{arm} {}{function}  ← {given}", step.name);
        }
    }
    drawn
}

/// A picture that stands by itself, black on white, to be read on paper too.
pub fn svg(flow: &Flow, title: &str) -> String {
    let steps = flow.steps().len();
    let Layout { layers, lines } = Layout::of(flow);
    let node_width = |node: usize| if node < steps { BOX_WIDTH } else { LINE_WIDTH };
    let layer_width =
        |layer: &Vec<usize>| layer.iter().map(|&node| node_width(node) + GAP_ACROSS).sum::<f64>() - GAP_ACROSS;
    let inner = layers.iter().map(layer_width).fold(BOX_WIDTH, f64::max);
    let width = inner + 2.0 * MARGIN;
    let top = MARGIN + 26.0;
    let height = top + count(layers.len()) * (BOX_HEIGHT + GAP_DOWN) - GAP_DOWN + MARGIN;
    let mut place = vec![(0.0, 0.0); layers.iter().map(Vec::len).sum()];
    for (depth, layer) in layers.iter().enumerate() {
        let mut left = MARGIN + (inner - layer_width(layer)) / 2.0;
        for &node in layer {
            place[node] = (left + node_width(node) / 2.0, top + count(depth) * (BOX_HEIGHT + GAP_DOWN));
            left += node_width(node) + GAP_ACROSS;
        }
    }
    let mut svg = format!(
        concat!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0} {height:.0}" width="{width:.0}" "#,
            r#"height="{height:.0}" role="img" font-family="system-ui, sans-serif">"#,
            "\n<title>{title}</title>\n",
            r#"<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" "#,
            r##"orient="auto"><path d="M0 0 8 4 0 8z" fill="#444"/></marker></defs>"##,
            "\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
            r##"<text x="{margin}" y="{baseline}" font-size="15" font-weight="600" fill="#111">{title}</text>"##,
            "\n"
        ),
        width = width,
        height = height,
        title = escaped(title),
        margin = MARGIN,
        baseline = MARGIN + 4.0,
    );
    for line in &lines {
        let through: Vec<_> = line.iter().map(|&node| place[node]).collect();
        edge(&mut svg, &through);
    }
    for (step, &(x, y)) in flow.steps().iter().zip(&place) {
        node(&mut svg, step, x, y, step.after.len() > 1);
    }
    svg.push_str("</svg>\n");
    svg
}

/// A line from below the first place to above the last, straight down past the layers between.
fn edge(svg: &mut String, through: &[(f64, f64)]) {
    let (x, y) = through[0];
    let mut path = format!("M{x:.1} {:.1}", y + BOX_HEIGHT);
    for (nth, pair) in through.windows(2).enumerate() {
        let ((x1, y1), (x2, y2)) = (pair[0], pair[1]);
        let y1 = y1 + BOX_HEIGHT;
        let bend = (y2 - y1) / 2.0;
        let _ = write!(path, "C{x1:.1} {:.1} {x2:.1} {:.1} {x2:.1} {y2:.1}", y1 + bend, y2 - bend);
        if nth + 2 < through.len() {
            let _ = write!(path, "V{:.1}", y2 + BOX_HEIGHT);
        }
    }
    let _ =
        writeln!(svg, r##"<path d="{path}" fill="none" stroke="#444" stroke-width="1.5" marker-end="url(#tip)"/>"##);
}

fn node(svg: &mut String, step: &nigh_proto::flow::Step, x: f64, y: f64, joins: bool) {
    let (left, is_renamed) = (x - BOX_WIDTH / 2.0, step.name.as_str() != step.function.as_str());
    let stroke = if joins { 2.5 } else { 1.5 };
    let _ = writeln!(
        svg,
        r##"<rect x="{left:.1}" y="{y:.1}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="7" fill="#f4f6f8" stroke="#222" stroke-width="{stroke}"/>"##
    );
    let name_at = if is_renamed { y + 20.0 } else { y + 28.0 };
    let _ = writeln!(
        svg,
        r##"<text x="{x:.1}" y="{name_at:.1}" text-anchor="middle" font-size="14" fill="#111">{}</text>"##,
        escaped(&fitted(step.name.as_str(), 20))
    );
    if is_renamed {
        let _ = writeln!(
            svg,
            r##"<text x="{x:.1}" y="{:.1}" text-anchor="middle" font-size="11" fill="#555">{}</text>"##,
            y + 36.0,
            escaped(&fitted(step.function.as_str(), 26))
        );
    }
}

fn fitted(text: &str, characters: usize) -> String {
    if text.chars().count() <= characters {
        return text.to_owned();
    }
    let kept: String = text.chars().take(characters - 1).collect();
    format!("{kept}…")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
