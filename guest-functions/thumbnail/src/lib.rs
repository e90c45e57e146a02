//! Makes a picture small: JPEG or PNG in, JPEG out.
//!
//! Headers, all optional: `max-width` and `max-height` bound the answer in pixels (1 to 4096, default 256), `quality`
//! is JPEG's (1 to 100, default 80). The aspect ratio stays, nothing is ever enlarged, what is transparent becomes
//! white, and a photograph is turned upright as its EXIF data says. Colour profiles and other metadata are dropped.
//!
//! The answer carries the headers `width` and `height`. Errors, by kind: `bad-input` (a header), `empty-payload`,
//! `unsupported-format`, `image-too-large`, `truncated-image`, `undecodable-image`. All are the caller's: the same call
//! fails again.

mod decode;
mod jpeg;

use image::codecs::jpeg::JpegEncoder;
use image::metadata::Orientation;
use image::{DynamicImage, ImageEncoder as _};
use nigh_sdk::{Error, Request, Response};

use decode::Picture;

nigh_sdk::function!(thumbnail);

/// Width and height of the answer, in pixels, at most: what a header may ask for.
const BOUND_MAX: u32 = 4096;
/// Width and height of the answer where no header says otherwise.
const BOUND_DEFAULT: u32 = 256;
/// JPEG quality where no header says otherwise.
const QUALITY_DEFAULT: u8 = 80;

fn thumbnail(request: Request) -> Result<Response, Error> {
    let bounds = (
        header_within(&request, "max-width", BOUND_DEFAULT, BOUND_MAX)?,
        header_within(&request, "max-height", BOUND_DEFAULT, BOUND_MAX)?,
    );
    let quality = header_within(&request, "quality", QUALITY_DEFAULT, 100)?;
    let small = shrink(decode::decode(request.into_payload())?, bounds);
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, quality).write_image(
        small.as_bytes(),
        small.width(),
        small.height(),
        small.color().into(),
    )?;
    Ok(Response::new(jpeg)
        .with_header("content-type", "image/jpeg")
        .with_header("width", small.width().to_string())
        .with_header("height", small.height().to_string()))
}

/// A header's number, from 1 to `max`.
fn header_within<T>(request: &Request, name: &str, default: T, max: T) -> Result<T, Error>
where
    T: Copy + PartialOrd + From<u8> + std::fmt::Display + std::str::FromStr<Err = std::num::ParseIntError>,
{
    let value = request.header_or(name, default)?;
    if value < T::from(1) || value > max {
        return Err(Error::bad_input(format!("header {name}: {value}: use a number from 1 to {max}")));
    }
    Ok(value)
}

/// The picture upright and within the bounds (width, height).
fn shrink(picture: Picture, bounds: (u32, u32)) -> DynamicImage {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    let Picture { pixels, orientation } = picture;
    let lies = matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH);
    // Turned last, when there is little left to turn: so the bounds are turned first.
    let bounds = if lies { (bounds.1, bounds.0) } else { bounds };
    let size = (pixels.width(), pixels.height());
    let (width, height) = fit(size, bounds);
    // The mean over each box of pixels: all that many-fold shrinking needs, and in no more memory than its result.
    let mut small = if (width, height) == size { pixels } else { pixels.thumbnail_exact(width, height) };
    small.apply_orientation(orientation);
    small
}

/// The largest size of the same shape within the bounds, no larger than `size` itself; each side at least 1.
fn fit((width, height): (u32, u32), (width_max, height_max): (u32, u32)) -> (u32, u32) {
    if width <= width_max && height <= height_max {
        return (width, height);
    }
    let scaled = |side: u32, by: u32, of: u32| {
        let rounded = (u64::from(side) * u64::from(by) + u64::from(of) / 2) / u64::from(of);
        u32::try_from(rounded).unwrap_or(side).clamp(1, side)
    };
    // Which bound is the tighter one, without fractions.
    if u64::from(width) * u64::from(height_max) >= u64::from(height) * u64::from(width_max) {
        (width_max, scaled(height, width_max, width))
    } else {
        (scaled(width, height_max, height), height_max)
    }
}

#[cfg(test)]
mod tests;
