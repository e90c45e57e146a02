//! Makes a picture small: JPEG or PNG in, JPEG out.
//!
//! Headers, all optional: `max-width` and `max-height` bound the answer in pixels (1 to 4096, default 256), `quality`
//! is JPEG's (1 to 100, default 80). The aspect ratio stays, nothing is ever enlarged, what is transparent becomes
//! white, and a photograph is turned upright as its EXIF data says. Colour profiles and other metadata are dropped.
//!
//! The answer carries the headers `width` and `height`. Errors, by kind: `bad-input` (a header), `empty-payload`,
//! `unsupported-format`, `image-too-large`, `truncated-image`, `undecodable-image`, `answer-too-large`. All are the caller's: the same call
//! fails again.

mod decode;
mod jpeg;

use std::io;

use image::codecs::jpeg::JpegEncoder;
use image::error::ImageError;
use image::metadata::Orientation;
use image::{DynamicImage, ImageEncoder as _};
use nigh_sdk::{Error, Request, Response};

use decode::{Picture, WORKING_BYTES_MAX};

nigh_sdk::function!(thumbnail);

/// Width and height of the answer, in pixels, at most: what a header may ask for.
const BOUND_MAX: u32 = 4096;
/// Width and height of the answer where no header says otherwise.
const BOUND_DEFAULT: u32 = 256;
/// JPEG quality where no header says otherwise.
const QUALITY_DEFAULT: u32 = 80;
/// JPEG quality, at most.
const QUALITY_MAX: u32 = 100;
/// Bytes of the answer: what a computer passes on by default, and what memory is left for.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// The function. Headers and errors are described above.
///
/// # Errors
/// The caller's, by kind.
pub fn thumbnail(request: Request) -> Result<Response, Error> {
    let bounds = (
        header_within(&request, "max-width", BOUND_DEFAULT, BOUND_MAX)?,
        header_within(&request, "max-height", BOUND_DEFAULT, BOUND_MAX)?,
    );
    let quality = header_within(&request, "quality", QUALITY_DEFAULT, QUALITY_MAX)?;
    let quality = u8::try_from(quality)?;
    let small = shrink(decode::decode(request.into_payload())?, bounds)?;
    let jpeg = encode(&small, quality, ANSWER_BYTES_MAX)?;
    Ok(Response::new(jpeg)
        .with_header("content-type", "image/jpeg")
        .with_header("width", small.width().to_string())
        .with_header("height", small.height().to_string()))
}

fn encode(picture: &DynamicImage, quality: u8, bytes_max: usize) -> Result<Vec<u8>, Error> {
    let mut answer = Answer { bytes: Vec::new(), bytes_max };
    let (width, height, colour) = (picture.width(), picture.height(), picture.color().into());
    match JpegEncoder::new_with_quality(&mut answer, quality).write_image(picture.as_bytes(), width, height, colour) {
        Ok(()) => Ok(answer.bytes),
        Err(ImageError::IoError(full)) => Err(Error::new("answer-too-large", full.to_string())),
        Err(other) => Err(other.into()),
    }
}

/// Takes what is encoded, up to a limit.
struct Answer {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl io::Write for Answer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.bytes_max - self.bytes.len() {
            let (limit, advice) = (self.bytes_max, "ask for a lower quality or a smaller width and height");
            return Err(io::Error::other(format!("the answer is larger than {limit} bytes: {advice}")));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A header's number, from 1 to `max`.
fn header_within(request: &Request, name: &str, default: u32, max: u32) -> Result<u32, Error> {
    // Wider than needed, so that large numbers too are told their range.
    let value = request.header_or(name, i64::from(default))?;
    let within = u32::try_from(value).ok().filter(|value| (1..=max).contains(value));
    within.ok_or_else(|| Error::bad_input(format!("header {name}: {value}: use a number from 1 to {max}")))
}

/// The picture upright and within the bounds (width, height).
fn shrink(picture: Picture, bounds: (u32, u32)) -> Result<DynamicImage, Error> {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    let Picture { pixels, orientation } = picture;
    let lies = matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH);
    // Turned last, when there is little left to turn: so the bounds are turned first.
    let bounds = if lies { (bounds.1, bounds.0) } else { bounds };
    let size = (pixels.width(), pixels.height());
    let fitting = fit(size, bounds);
    // What neither shrinks nor turns stays where it is.
    if fitting != size || lies {
        check_memory(size, fitting, pixels.color().bytes_per_pixel())?;
    }
    let mut small = resized(pixels, fitting);
    small.apply_orientation(orientation);
    Ok(small)
}

/// The large and the small picture are in memory at once; then the small one, perhaps, as it lay and as it stands.
fn check_memory(size: (u32, u32), fitting: (u32, u32), bytes_per_pixel: u8) -> Result<(), Error> {
    let bytes = |(width, height): (u32, u32)| u64::from(width) * u64::from(height) * u64::from(bytes_per_pixel);
    if bytes(size) + bytes(fitting) > WORKING_BYTES_MAX {
        let message = format!(
            "a picture of {} x {} cannot be made one of {} x {} in the memory there is: ask for a smaller width and height",
            size.0, size.1, fitting.0, fitting.1
        );
        return Err(Error::new("answer-too-large", message));
    }
    Ok(())
}

/// Consumes the large picture, so that what follows has its memory.
fn resized(pixels: DynamicImage, (width, height): (u32, u32)) -> DynamicImage {
    if (width, height) == (pixels.width(), pixels.height()) {
        return pixels;
    }
    // The mean over each box of pixels: all that many-fold shrinking needs, and in no more memory than its result.
    pixels.thumbnail_exact(width, height)
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
