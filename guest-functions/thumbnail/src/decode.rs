//! From bytes to pixels without alpha, in a bounded amount of memory.

use std::io::Cursor;

use image::codecs::jpeg::JpegDecoder;
use image::codecs::png::PngDecoder;
use image::error::{ImageError, LimitErrorKind};
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, GrayImage, ImageDecoder, ImageFormat, Limits, RgbImage};
use nigh_sdk::Error;

use crate::jpeg;

/// Pixels of a picture, at most. It also keeps a sum over all of a channel's bytes within 32 bits.
const PIXELS_MAX: u64 = 16 << 20;

/// Bytes that pixels and coefficients may take at once. With the payload twice (as it arrived and as the decoder keeps it,
/// 16 MiB each at most) this leaves some 8 MiB of the 128 MiB that a function gets by default. It is what bounds
/// progressive JPEGs, of which all coefficients are kept until the last scan, and PNGs of 16 bits a channel.
pub(crate) const WORKING_BYTES_MAX: u64 = 88 << 20;

/// Pixels in grey or RGB of 8 bits, as the file has them, and how to turn them.
pub(crate) struct Picture {
    pub(crate) pixels: DynamicImage,
    pub(crate) orientation: Orientation,
}

/// Decodes a JPEG or PNG. Consumes the payload, since memory is what limits the size of a picture.
///
/// # Errors
/// `empty-payload`, `unsupported-format`, `image-too-large`, `truncated-image` or `undecodable-image`.
pub(crate) fn decode(payload: Vec<u8>) -> Result<Picture, Error> {
    if payload.is_empty() {
        return Err(Error::new("empty-payload", "the payload is empty: send a JPEG or PNG file"));
    }
    match image::guess_format(&payload) {
        Ok(ImageFormat::Jpeg) => {
            let facts = jpeg::inspect(&payload).map_err(|fault| match fault {
                jpeg::Fault::Truncated => truncated("the JPEG file ends before its end-of-image marker"),
                jpeg::Fault::Malformed(what) => undecodable(what),
            })?;
            // Before the decoder sees the file, because it reserves by these numbers.
            check_size(facts.width, facts.height, facts.decoding_bytes())?;
            read(JpegDecoder::new(Cursor::new(payload)).map_err(function_error)?)
        }
        Ok(ImageFormat::Png) => {
            let limits = limits();
            let decoder = PngDecoder::with_limits(Cursor::new(payload), limits.clone()).map_err(function_error)?;
            let (width, height) = decoder.dimensions();
            let flattened = match decoder.color_type() {
                ColorType::L16 | ColorType::La16 => 1,
                ColorType::Rgb16 | ColorType::Rgba16 => 3,
                _ => 0, // in place
            };
            let pixels = u64::from(width) * u64::from(height);
            check_size(width, height, decoder.total_bytes().saturating_add(flattened * pixels))?;
            read(decoder)
        }
        _ => Err(Error::new("unsupported-format", "the payload is neither a JPEG nor a PNG file: send one of these")),
    }
}

fn check_size(width: u32, height: u32, working_bytes: u64) -> Result<(), Error> {
    let too_large = |why: String| Err(Error::new("image-too-large", format!("the picture is {width} x {height}{why}")));
    if u64::from(width) * u64::from(height) > PIXELS_MAX {
        return too_large(format!(" pixels; send at most {PIXELS_MAX} pixels"));
    }
    if working_bytes > WORKING_BYTES_MAX {
        return too_large(format!(
            " and of a kind that takes {} MiB to decode; the limit is {} MiB. Send it smaller, or as JPEG that is not progressive",
            working_bytes.div_ceil(1 << 20),
            WORKING_BYTES_MAX >> 20
        ));
    }
    Ok(())
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_alloc = Some(WORKING_BYTES_MAX);
    limits
}

fn read(mut decoder: impl ImageDecoder) -> Result<Picture, Error> {
    decoder.set_limits(limits()).map_err(function_error)?;
    // A turn that cannot be read is no reason to refuse the picture.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let decoded = DynamicImage::from_decoder(decoder).map_err(function_error)?;
    Ok(Picture { pixels: flatten(decoded), orientation })
}

fn function_error(error: ImageError) -> Error {
    match error {
        ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            truncated("the file ends in the middle of the picture")
        }
        ImageError::Limits(limit) if !matches!(limit.kind(), LimitErrorKind::Unsupported { .. }) => {
            Error::new("image-too-large", format!("{limit}; send a smaller picture"))
        }
        ImageError::Unsupported(what) => Error::new("unsupported-format", what.to_string()),
        other => undecodable(&other.to_string()),
    }
}

fn truncated(what: &str) -> Error {
    Error::new("truncated-image", format!("{what}: was it sent whole?"))
}

fn undecodable(what: &str) -> Error {
    Error::new("undecodable-image", format!("the picture cannot be decoded: {what}"))
}

/// Grey or RGB of 8 bits, over white. Before shrinking, since the colour of what is transparent must not count.
fn flatten(decoded: DynamicImage) -> DynamicImage {
    let (width, height) = (decoded.width(), decoded.height());
    match decoded {
        DynamicImage::ImageLuma8(_) | DynamicImage::ImageRgb8(_) => decoded,
        DynamicImage::ImageLumaA8(grey) => from_grey(width, height, over_white::<1, 2>(grey.into_raw())),
        DynamicImage::ImageRgba8(colour) => from_rgb(width, height, over_white::<3, 4>(colour.into_raw())),
        DynamicImage::ImageLuma16(_) => DynamicImage::ImageLuma8(decoded.into_luma8()),
        DynamicImage::ImageLumaA16(grey) => from_grey(width, height, over_white_16::<1, 2>(grey.as_raw())),
        DynamicImage::ImageRgba16(colour) => from_rgb(width, height, over_white_16::<3, 4>(colour.as_raw())),
        _ => DynamicImage::ImageRgb8(decoded.into_rgb8()),
    }
}

fn from_grey(width: u32, height: u32, bytes: Vec<u8>) -> DynamicImage {
    DynamicImage::ImageLuma8(GrayImage::from_raw(width, height, bytes).expect("one byte for each pixel"))
}

fn from_rgb(width: u32, height: u32, bytes: Vec<u8>) -> DynamicImage {
    DynamicImage::ImageRgb8(RgbImage::from_raw(width, height, bytes).expect("three bytes for each pixel"))
}

/// Drops the alpha channel in place: pixels of `WITH` bytes become pixels of `COLOURS`.
fn over_white<const COLOURS: usize, const WITH: usize>(mut bytes: Vec<u8>) -> Vec<u8> {
    let pixels = bytes.len() / WITH;
    for pixel in 0..pixels {
        let (from, to) = (pixel * WITH, pixel * COLOURS);
        let alpha = u32::from(bytes[from + COLOURS]);
        for channel in 0..COLOURS {
            bytes[to + channel] = blend(bytes[from + channel].into(), alpha, u32::from(u8::MAX));
        }
    }
    bytes.truncate(pixels * COLOURS);
    bytes.shrink_to_fit();
    bytes
}

fn over_white_16<const COLOURS: usize, const WITH: usize>(channels: &[u16]) -> Vec<u8> {
    let (pixels, _) = channels.as_chunks::<WITH>();
    let blended = pixels.iter().flat_map(|pixel| {
        pixel[..COLOURS].iter().map(|&colour| blend(colour.into(), pixel[COLOURS].into(), u32::from(u16::MAX)))
    });
    let mut bytes = Vec::with_capacity(pixels.len() * COLOURS);
    bytes.extend(blended);
    bytes
}

/// A colour over white, as 8 bits; colour and alpha go from 0 to `max`.
fn blend(colour: u32, alpha: u32, max: u32) -> u8 {
    let (colour, alpha, max) = (u64::from(colour), u64::from(alpha), u64::from(max));
    let over = colour * alpha + max * (max - alpha);
    let whole = max * max;
    u8::try_from((over * 255 + whole / 2) / whole).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn over_white_lies_between_the_colour_and_white(colour: u8, alpha: u8) {
            let over = blend(colour.into(), alpha.into(), 255);
            prop_assert!(over >= colour);
            prop_assert_eq!(blend(colour.into(), 255, 255), colour);
            prop_assert_eq!(blend(colour.into(), 0, 255), 255);
            // 8 and 16 bits agree: 257 spreads a byte over two.
            prop_assert_eq!(blend(u32::from(colour) * 257, u32::from(alpha) * 257, 65535), over);
        }

        #[test]
        fn flattening_in_place_equals_flattening_pixel_by_pixel(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let expected: Vec<u8> = bytes
                .chunks_exact(4)
                .flat_map(|pixel| (0..3).map(|channel| blend(pixel[channel].into(), pixel[3].into(), 255)))
                .collect();
            prop_assert_eq!(over_white::<3, 4>(bytes), expected);
        }
    }
}
