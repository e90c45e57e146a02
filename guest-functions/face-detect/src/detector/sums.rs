//! Tables of sums ("integral images"): the sum over any rectangle from the values at its corners.
//!
//! Only a band of rows is kept at a time, so that memory depends on a picture's width alone and the tables stay in the
//! cache. All sums wrap around; differences are right as long as the true difference fits, and that of a window does.

/// How the tables lie in memory. An upright and, behind it, a tilted table share one slice, so that a feature's corner is
/// one offset whatever its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// From one row to the next.
    stride: usize,
    /// Where windows stand two pixels apart, a row holds its even columns and then, from here on, its odd ones: so the
    /// values that neighbouring windows need lie side by side.
    odd: Option<usize>,
    /// From the upright to the tilted table.
    tilted: usize,
}

/// Rows that fit into a band.
const BAND_ROWS: usize = 64;
/// Values past the last row that may be read (and ignored) for windows that do not exist.
const SLACK: usize = 64;

impl Layout {
    /// A layout for tables of up to `columns` columns, windows of `height` rows, standing `step` (1 or 2) pixels apart.
    pub(super) fn new(columns: usize, height: usize, step: usize) -> Self {
        // Room for a group of windows that reaches out of the row.
        let half = columns.div_ceil(2) + 4;
        // An odd number of cache lines spreads the rows over all sets of the cache.
        let stride = (2 * half).div_ceil(32) * 32 + 16;
        Self { stride, odd: (step == 2).then_some(half), tilted: stride * (BAND_ROWS + height + 1) }
    }

    /// The offset of the value at (x, y) of a window from that at its (0, 0).
    pub(super) fn offset(&self, x: usize, y: usize, tilted: bool) -> usize {
        let column = match self.odd {
            None => x,
            Some(odd) => x / 2 + if x.is_multiple_of(2) { 0 } else { odd },
        };
        column + y * self.stride + if tilted { self.tilted } else { 0 }
    }

    /// The offset of a row's first window.
    pub(super) fn row(&self, y: usize) -> usize {
        y * self.stride
    }

    /// The row and the number in it of the window at an offset.
    pub(super) fn place(&self, offset: usize) -> (usize, usize) {
        (offset / self.stride, offset % self.stride)
    }
}

/// The tables of a band of a picture: of levels, of their squares, and of levels tilted if wanted.
#[derive(Debug)]
pub(super) struct Sums {
    layout: Layout,
    is_tilted: bool,
    levels: Vec<i32>,
    squares: Vec<i32>,
    /// Rows of the tables that are there.
    rows: usize,
    tilted_rows: TiltedRows,
}

/// What the next row of the tilted table follows from: its two last rows, and the picture's last row.
#[derive(Debug, Default)]
struct TiltedRows {
    last: Vec<i32>,
    second_last: Vec<i32>,
    pixels: Vec<u8>,
}

impl Sums {
    /// Rows of windows, counted in pixels, that a band holds.
    pub(super) const BAND_ROWS: usize = BAND_ROWS;

    /// Empty tables; `height` is that of the windows.
    pub(super) fn new(layout: Layout, is_tilted: bool) -> Self {
        let tables = if is_tilted { 2 } else { 1 };
        Self {
            layout,
            is_tilted,
            levels: vec![0; layout.tilted * tables + SLACK],
            squares: vec![0; layout.tilted + SLACK],
            rows: 0,
            tilted_rows: TiltedRows::default(),
        }
    }

    /// Begins a picture of this width: the tables' first row is all zero.
    pub(super) fn start(&mut self, layout: Layout, width: usize) {
        self.layout.odd = layout.odd;
        debug_assert_eq!(self.layout, layout, "only the step may change");
        self.levels[..self.layout.stride].fill(0);
        self.squares[..self.layout.stride].fill(0);
        self.rows = 1;
        if self.is_tilted {
            self.levels[self.layout.tilted..][..self.layout.stride].fill(0);
            self.tilted_rows.start(width);
        }
    }

    /// Drops the first `rows` rows. Those that stay become the first ones.
    pub(super) fn advance(&mut self, rows: usize) {
        let kept = rows * self.layout.stride..self.rows * self.layout.stride;
        self.levels.copy_within(kept.clone(), 0);
        self.squares.copy_within(kept.clone(), 0);
        if self.is_tilted {
            let tilted = self.layout.tilted;
            self.levels.copy_within(tilted + kept.start..tilted + kept.end, tilted);
        }
        self.rows -= rows;
    }

    /// The number of rows that are there.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Adds the row that follows from the picture's next row.
    #[inline(never)]
    pub(super) fn push(&mut self, pixels: &[u8]) {
        let (stride, odd) = (self.layout.stride, self.layout.odd);
        push_upright(&mut self.levels, self.rows * stride, stride, odd, pixels, |level| level);
        push_upright(&mut self.squares, self.rows * stride, stride, odd, pixels, |level| level * level);
        if self.is_tilted {
            let row = self.tilted_rows.next(pixels);
            scatter(row, &mut self.levels[self.layout.tilted + self.rows * stride..][..stride], odd);
        }
        self.rows += 1;
    }

    /// Upright and tilted sums of levels.
    pub(super) fn levels(&self) -> &[i32] {
        &self.levels
    }

    /// Sums of squares.
    pub(super) fn squares(&self) -> &[i32] {
        &self.squares
    }
}

/// Writes the row of a table at `at`, below its last one.
#[inline(always)]
fn push_upright(
    table: &mut [i32],
    at: usize,
    stride: usize,
    odd: Option<usize>,
    pixels: &[u8],
    value: impl Fn(i32) -> i32,
) {
    let (above, row) = table[at - stride..at + stride].split_at_mut(stride);
    let mut sum = 0i32;
    let Some(odd) = odd else {
        for ((sum_to, above), pixel) in row.iter_mut().zip(&*above).zip(pixels) {
            *sum_to = above.wrapping_add(sum);
            sum = sum.wrapping_add(value(i32::from(*pixel)));
        }
        row[pixels.len()] = above[pixels.len()].wrapping_add(sum);
        return;
    };
    let (above_even, above_odd) = above.split_at(odd);
    let (row_even, row_odd) = row.split_at_mut(odd);
    let (pairs, rest) = pixels.as_chunks::<2>();
    let columns = row_even.iter_mut().zip(row_odd.iter_mut()).zip(above_even.iter().zip(above_odd));
    for (((even, odd), (above_even, above_odd)), [first, second]) in columns.zip(pairs) {
        let (first, second) = (value(i32::from(*first)), value(i32::from(*second)));
        *even = above_even.wrapping_add(sum);
        *odd = above_odd.wrapping_add(sum.wrapping_add(first));
        sum = sum.wrapping_add(first + second);
    }
    let last = pairs.len();
    row_even[last] = above_even[last].wrapping_add(sum);
    if let [pixel] = rest {
        row_odd[last] = above_odd[last].wrapping_add(sum.wrapping_add(value(i32::from(*pixel))));
    }
}

/// Writes a row of values into a table's row.
fn scatter(values: &[i32], row: &mut [i32], odd: Option<usize>) {
    match odd {
        None => row[..values.len()].copy_from_slice(values),
        Some(odd) => {
            let (row_even, row_odd) = row.split_at_mut(odd);
            row_even.iter_mut().zip(values.iter().step_by(2)).for_each(|(to, value)| *to = *value);
            row_odd.iter_mut().zip(values.iter().skip(1).step_by(2)).for_each(|(to, value)| *to = *value);
        }
    }
}

impl TiltedRows {
    fn start(&mut self, width: usize) {
        for row in [&mut self.last, &mut self.second_last] {
            row.clear();
            row.resize(width + 1, 0);
        }
        self.pixels.clear();
    }

    /// T(X, Y) is the sum over the pixels (x, y) with y < Y and |x - X + 1| <= Y - y - 1: a triangle that stands on its
    /// tip, the pixel up left of (X, Y). It follows from the triangles up left and up right of it, which share the one
    /// two rows up.
    fn next(&mut self, pixels: &[u8]) -> &[i32] {
        let width = pixels.len();
        let level = |pixel: u8| i32::from(pixel);
        let mut row = std::mem::take(&mut self.second_last);
        if self.pixels.is_empty() {
            row[0] = 0;
            row[1..].iter_mut().zip(pixels).for_each(|(sum, pixel)| *sum = level(*pixel));
            self.pixels.resize(width, 0);
        } else {
            let last = &self.last;
            let tip = |x: usize| level(pixels[x - 1]) + level(self.pixels[x - 1]);
            row[0] = last[1];
            for x in 1..width {
                row[x] = last[x - 1].wrapping_add(last[x + 1]).wrapping_sub(row[x]).wrapping_add(tip(x));
            }
            row[width] = last[width - 1].wrapping_add(tip(width));
        }
        self.pixels.copy_from_slice(pixels);
        self.second_last = std::mem::replace(&mut self.last, row);
        &self.last
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the tests' numbers are small")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The sum over the pixels whose place is accepted.
    fn defined(pixels: &[u8], width: usize, accepted: impl Fn(i32, i32) -> bool, value: impl Fn(i32) -> i32) -> i32 {
        let places = pixels.iter().enumerate().map(|(at, pixel)| (at % width, at / width, *pixel));
        let sum = places.filter(|(x, y, _)| accepted(*x as i32, *y as i32)).map(|(_, _, pixel)| value(pixel.into()));
        sum.sum()
    }

    proptest! {
        #[test]
        fn tables_are_as_defined_over_bands(
            width in 2usize..20, pixels in prop::collection::vec(any::<u8>(), 40..400), step in 1usize..=2, cut in 1usize..4,
        ) {
            let height = pixels.len() / width;
            let layout = Layout::new(25, 8, step);
            let mut sums = Sums::new(layout, true);
            sums.start(layout, width);
            let mut dropped = 0;
            for (y, row) in pixels.chunks_exact(width).enumerate() {
                sums.push(row);
                // What an upright table's rows hold before the first row is lost, so compare differences from the row above.
                let (upper, lower) = (y - dropped, y + 1 - dropped);
                for x in 0..=width {
                    let at = |row, tilted| layout.row(row) + layout.offset(x, 0, tilted);
                    let row_is = |value: fn(i32) -> i32| {
                        defined(&pixels, width, |px, py| py == y as i32 && px < x as i32, value)
                    };
                    prop_assert_eq!(sums.levels()[at(lower, false)] - sums.levels()[at(upper, false)], row_is(|v| v));
                    prop_assert_eq!(sums.squares()[at(lower, false)] - sums.squares()[at(upper, false)], row_is(|v| v * v));
                    let (tip_x, tip_y) = (x as i32 - 1, y as i32);
                    let triangle = |px: i32, py: i32| py <= tip_y && (px - tip_x).abs() <= tip_y - py;
                    prop_assert_eq!(sums.levels()[at(lower, true)], defined(&pixels, width, triangle, |v| v), "at {},{}", x, y);
                }
                if sums.rows() >= 5 * cut {
                    sums.advance(3 * cut);
                    dropped += 3 * cut;
                }
            }
            prop_assert_eq!(sums.rows() + dropped, height + 1);
        }
    }

    #[test]
    fn neighbouring_windows_lie_side_by_side() {
        for step in [1, 2] {
            let layout = Layout::new(101, 24, step);
            for (x, y) in [(0, 0), (3, 5), (24, 24)] {
                let of_window = |window: usize| layout.offset(x + step * window, y, false);
                assert!((1..30).all(|window| of_window(window) == of_window(0) + window));
            }
        }
    }
}
