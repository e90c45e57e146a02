//! Finds objects in a grey picture by a cascade, exactly as OpenCV's `detectMultiScale` does: the same rectangles in the
//! same order, with the same numbers of neighbours.
//!
//! For each scale the picture is shrunk (`shrink`), tables of sums are made of it band by band (`sums`), and the
//! windows of each row go through the cascade (`scan`, `kernel`). Similar candidates become one object (`group`).

mod group;
mod kernel;
mod leaves;
mod parameters;
#[cfg(test)]
mod reference;
mod scales;
mod scan;
mod shrink;
mod sums;

pub use parameters::{BadScaleFactor, Parameters, ScaleFactor};

use crate::cascade::Cascade;
use crate::grey::Grey;
use scales::{Scale, round, scales};
use scan::Scanner;
use shrink::Shrinker;
use sums::{Layout, Sums};

/// A rectangle within a picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rect {
    /// Left edge.
    pub x: i32,
    /// Upper edge.
    pub y: i32,
    /// Width, at least 1.
    pub w: i32,
    /// Height, at least 1.
    pub h: i32,
}

/// Something found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object {
    /// Where.
    pub rect: Rect,
    /// How many candidates speak for it, itself included.
    pub neighbors: u32,
}

/// A cascade and the memory to run it. Searching several pictures of similar size with one detector saves the preparation.
#[derive(Debug)]
pub struct Detector {
    cascade: Cascade,
    shrinker: Shrinker,
    workspace: Option<Workspace>,
}

/// What depends on the widest layer.
#[derive(Debug)]
struct Workspace {
    width: usize,
    sums: Sums,
    /// For windows that stand one and two pixels apart.
    scanners: [Scanner; 2],
}

impl Detector {
    /// A detector for what the cascade describes.
    pub fn new(cascade: Cascade) -> Self {
        Self { cascade, shrinker: Shrinker::default(), workspace: None }
    }

    /// The objects in a picture, smaller ones first.
    ///
    /// Never fails: a picture smaller than the cascade's window holds nothing.
    pub fn detect(&mut self, picture: &Grey, parameters: &Parameters) -> Vec<Object> {
        let candidates = self.candidates(picture, parameters);
        let objects = match parameters.min_neighbors {
            0 => candidates.into_iter().map(|rect| Object { rect, neighbors: 1 }).collect(),
            least => group::group(&candidates, least),
        };
        let clipped = objects.into_iter().map(|object| Object { rect: clip(object.rect, picture), ..object });
        clipped.filter(|object| object.rect.w > 0 && object.rect.h > 0).collect()
    }

    /// The windows that pass the cascade: by scale, then from top to bottom, then from left to right. They may stick out
    /// of the picture by a pixel.
    fn candidates(&mut self, picture: &Grey, parameters: &Parameters) -> Vec<Rect> {
        let scales = scales((picture.width(), picture.height()), self.cascade.window(), parameters);
        let Some(widest) = scales.iter().map(|scale| scale.width).max() else {
            return Vec::new();
        };
        let mut workspace = match self.workspace.take() {
            Some(workspace) if workspace.fits(widest) => workspace,
            _ => Workspace::new(&self.cascade, widest),
        };
        let mut candidates = Vec::new();
        for scale in &scales {
            self.search(picture, scale, &mut workspace, &mut candidates);
        }
        self.workspace = Some(workspace);
        candidates
    }

    fn search(&mut self, picture: &Grey, scale: &Scale, workspace: &mut Workspace, candidates: &mut Vec<Rect>) {
        let (window_width, window_height) = self.cascade.window();
        let Workspace { sums, scanners, .. } = workspace;
        let scanner = &mut scanners[scale.step - 1];
        let rows_per_band = Sums::BAND_ROWS / scale.step;
        let scaled = |pixels: usize| round(f64::from(pixels as f32 * scale.scale));
        let (w, h) = (scaled(window_width), scaled(window_height));
        self.shrinker.start(picture, (scale.width, scale.height));
        sums.start(scanner.layout(), scale.width);
        let mut next_row = 0;
        for first in (0..scale.rows).step_by(rows_per_band) {
            if first > 0 {
                sums.advance(Sums::BAND_ROWS);
            }
            let rows = rows_per_band.min(scale.rows - first);
            // The tables have one row more than the picture.
            while sums.rows() < (rows - 1) * scale.step + window_height + 1 {
                sums.push(self.shrinker.row(picture, next_row));
                next_row += 1;
            }
            let mut found = |row: usize, window: usize| {
                let (x, y) = (scaled(window * scale.step), scaled(first * scale.step + row));
                candidates.push(Rect { x, y, w, h });
            };
            for row in 0..rows {
                scanner.row(&self.cascade, sums, row * scale.step, scale.columns, &mut found);
            }
            scanner.finish(&self.cascade, sums, &mut found);
        }
    }
}

impl Workspace {
    fn new(cascade: &Cascade, width: usize) -> Self {
        let layouts = [1, 2].map(|step| Layout::new(width + 1, cascade.window().1, step));
        let scanners = layouts.map(|layout| Scanner::new(cascade, layout));
        Self { width, sums: Sums::new(layouts[0], cascade.is_tilted()), scanners }
    }

    /// Whether it does for layers of this width, without being much too large.
    fn fits(&self, width: usize) -> bool {
        (self.width / 2..=self.width).contains(&width)
    }
}

fn clip(rect: Rect, picture: &Grey) -> Rect {
    let side = |side: usize| i32::try_from(side).unwrap_or(i32::MAX);
    let (x, y) = (rect.x.max(0), rect.y.max(0));
    let (right, lower) = ((rect.x + rect.w).min(side(picture.width())), (rect.y + rect.h).min(side(picture.height())));
    Rect { x, y, w: right - x, h: lower - y }
}
