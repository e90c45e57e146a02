//! Pictures of 256 grey levels.

/// A picture of at least one pixel, row after row without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grey {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Grey {
    /// The greatest width and height, in pixels.
    pub const SIDE_MAX: usize = u16::MAX as usize;

    /// A picture of `width * height` pixels; `None` where there are more or fewer of them, none at all, or a side exceeds
    /// [`SIDE_MAX`](Self::SIDE_MAX).
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Option<Self> {
        let sides_fit = (1..=Self::SIDE_MAX).contains(&width) && (1..=Self::SIDE_MAX).contains(&height);
        (sides_fit && width.checked_mul(height) == Some(pixels.len())).then_some(Self { width, height, pixels })
    }

    /// The width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The grey levels, row after row.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// One row of grey levels.
    pub(crate) fn row(&self, y: usize) -> &[u8] {
        &self.pixels[y * self.width..][..self.width]
    }

    /// A copy of the part that begins at (x, y); `None` where it is empty or not within the picture.
    pub fn crop(&self, x: usize, y: usize, width: usize, height: usize) -> Option<Self> {
        let inside = x.checked_add(width)? <= self.width && y.checked_add(height)? <= self.height;
        let rows = inside.then(|| (y..y + height).flat_map(|y| &self.row(y)[x..x + width]).copied())?;
        Self::new(width, height, rows.collect())
    }

    /// Spreads the grey levels evenly over all 256, as OpenCV's `equalizeHist` does.
    pub fn equalize(&mut self) {
        let mut histogram = [0usize; 256];
        for level in &self.pixels {
            histogram[usize::from(*level)] += 1;
        }
        let darkest = histogram.iter().position(|count| *count > 0).unwrap_or(0);
        let others = self.pixels.len() - histogram[darkest];
        if others == 0 {
            return;
        }
        let scale = 255.0 / others as f32;
        let mut levels = [0u8; 256];
        let mut below = 0;
        for (level, count) in levels.iter_mut().zip(histogram).skip(darkest + 1) {
            below += count;
            *level = to_level(below as f32 * scale);
        }
        for level in &mut self.pixels {
            *level = levels[usize::from(*level)];
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates, as is wanted")]
fn to_level(value: f32) -> u8 {
    value.round_ties_even() as u8
}

/// The grey level of a colour, with the weights and the rounding of OpenCV 4's `BGR2GRAY`.
pub fn level_of([red, green, blue]: [u8; 3]) -> u8 {
    let sum = 9798 * u32::from(red) + 19235 * u32::from(green) + 3735 * u32::from(blue);
    // The weights add up to 2^15, so this is at most 255.
    u8::try_from((sum + (1 << 14)) >> 15).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_picture_has_as_many_pixels_as_its_sides_say() {
        assert!(Grey::new(2, 3, vec![0; 6]).is_some());
        for (width, height, pixels) in
            [(2, 3, 5), (2, 3, 7), (0, 3, 0), (3, 0, 0), (1 << 16, 1, 1 << 16), (usize::MAX, 2, 6)]
        {
            assert!(Grey::new(width, height, vec![0; pixels]).is_none(), "{width}x{height}, {pixels} pixels");
        }
    }

    #[test]
    fn a_part_is_cut_out_as_it_stands() {
        let picture = Grey::new(4, 3, (0..12).collect()).unwrap();
        assert_eq!(picture.crop(1, 1, 2, 2).unwrap().pixels(), [5, 6, 9, 10]);
        assert_eq!(picture.crop(0, 0, 4, 3).unwrap(), picture);
        for (x, y, width, height) in [(3, 0, 2, 1), (0, 2, 1, 2), (0, 0, 0, 1), (usize::MAX, 0, 2, 1)] {
            assert!(picture.crop(x, y, width, height).is_none());
        }
    }

    #[test]
    fn known_colours_have_their_grey_level() {
        let levels = [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 200, 30]].map(level_of);
        assert_eq!(levels, [0, 255, 76, 150, 29, 124]);
        assert!((0..=255).all(|level| level_of([level; 3]) == level), "grey stays as it is");
    }

    #[test]
    fn equalizing_spreads_the_levels() {
        let mut picture = Grey::new(4, 1, vec![100, 101, 101, 102]).unwrap();
        picture.equalize();
        assert_eq!(picture.pixels(), [0, 170, 170, 255]);
        let mut constant = Grey::new(3, 2, vec![77; 6]).unwrap();
        constant.equalize();
        assert_eq!(constant.pixels(), [77; 6]);
    }

    proptest! {
        #[test]
        fn equalizing_keeps_the_order_of_levels_and_uses_both_ends(pixels in prop::collection::vec(any::<u8>(), 1..200)) {
            let mut picture = Grey::new(pixels.len(), 1, pixels.clone()).unwrap();
            picture.equalize();
            let mut pairs: Vec<_> = pixels.iter().zip(picture.pixels()).collect();
            pairs.sort();
            prop_assert!(pairs.is_sorted_by_key(|(_, after)| **after));
            if pairs[0].0 != pairs[pairs.len() - 1].0 {
                prop_assert_eq!((*pairs[0].1, *pairs[pairs.len() - 1].1), (0, 255));
            }
        }
    }
}
