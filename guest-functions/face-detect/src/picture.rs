//! From a file to a picture: JPEG and PNG, within limits, the right way up.

use std::io::Cursor;

use image::codecs::jpeg::JpegDecoder;
use image::codecs::png::PngDecoder;
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, GrayImage, ImageDecoder, ImageFormat, Limits, RgbImage};

use crate::grey::{Grey, level_of};
use crate::jpeg;

/// The most pixels of a picture: a photograph of 4:3 and 12.6 megapixels.
pub const PIXELS_MAX: u64 = 4096 * 3072;
/// The greatest width and height of a picture, in pixels.
pub const SIDE_MAX: u32 = 16_384;
/// The most memory that decoding may take, in bytes. With it and a payload of 16 MiB, which the decoder copies, a call stays
/// within the 128 MiB that a function has by default.
pub const DECODING_BYTES_MAX: u64 = 80 << 20;

/// Why a file is no picture to search. The caller's fault; the same file will be refused again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing was sent.
    #[error("the payload is empty; send a JPEG or PNG file")]
    Empty,
    /// Neither JPEG nor PNG.
    #[error("the payload is neither a JPEG nor a PNG file")]
    Format,
    /// The file ends early.
    #[error("the {0} file is truncated")]
    Truncated(&'static str),
    /// Damaged, or of a kind that the decoder does not know.
    #[error("the file cannot be decoded: {0}")]
    Undecodable(String),
    /// More pixels than are allowed.
    #[error(
        "the picture has {width}x{height} pixels; at most {PIXELS_MAX} in all and {SIDE_MAX} on a side are searched. \
         Send it smaller"
    )]
    Pixels {
        /// Width of the picture.
        width: u32,
        /// Height of the picture.
        height: u32,
    },
    /// Decoding would take more memory than is allowed.
    #[error(
        "decoding the picture would take {0} bytes; at most {DECODING_BYTES_MAX} are allowed. Send it smaller, with 8 bits \
         per sample, and a JPEG not progressive"
    )]
    Memory(u64),
    /// Beyond what the decoder itself can handle.
    #[error("the picture is too large: {0}. Send it smaller")]
    Decoder(String),
}

impl Error {
    /// The kind of function error: `bad-input`, `undecodable` or `too-large`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Empty => "bad-input",
            Self::Format | Self::Truncated(_) | Self::Undecodable(_) => "undecodable",
            Self::Pixels { .. } | Self::Memory(_) | Self::Decoder(_) => "too-large",
        }
    }
}

/// A decoded picture with 8 bits per sample, grey or red, green, blue.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture(DynamicImage);

impl Picture {
    /// Decodes a JPEG or PNG file and turns it upright where its EXIF data say so, as OpenCV's `imread` does. An alpha
    /// channel is dropped, 16-bit samples lose their lower half.
    ///
    /// Sides and memory are checked before any memory for pixels is taken.
    ///
    /// # Errors
    /// Where there is no such picture in the file, or it exceeds the limits.
    pub fn decode(file: &[u8]) -> Result<Self, Error> {
        if file.is_empty() {
            return Err(Error::Empty);
        }
        match image::guess_format(file) {
            Ok(ImageFormat::Jpeg) => {
                let survey = jpeg::survey(file);
                let decoder = JpegDecoder::new(Cursor::new(file)).map_err(|why| refused(&why, "JPEG"))?;
                check_size(&decoder, survey.coefficient_bytes)?;
                if !survey.is_whole {
                    return Err(Error::Truncated("JPEG"));
                }
                read(decoder, "JPEG")
            }
            Ok(ImageFormat::Png) => {
                let mut limits = Limits::no_limits();
                limits.max_alloc = Some(DECODING_BYTES_MAX);
                let decoder = PngDecoder::with_limits(Cursor::new(file), limits).map_err(|why| refused(&why, "PNG"))?;
                check_size(&decoder, 0)?;
                read(decoder, "PNG")
            }
            _ => Err(Error::Format),
        }
    }

    /// The picture in grey levels.
    pub fn grey(&self) -> Grey {
        let (width, height) = (self.0.width() as usize, self.0.height() as usize);
        let levels = match &self.0 {
            DynamicImage::ImageLuma8(grey) => grey.as_raw().clone(),
            other => other.as_bytes().as_chunks().0.iter().map(|colour| level_of(*colour)).collect(),
        };
        Grey::new(width, height, levels).expect("a decoded picture has pixels, and its sides are within the limits")
    }

    /// The picture in colour.
    pub fn into_rgb(self) -> RgbImage {
        self.0.into_rgb8()
    }
}

fn check_size(decoder: &impl ImageDecoder, more_bytes: u64) -> Result<(), Error> {
    let (width, height) = decoder.dimensions();
    if width.max(height) > SIDE_MAX || u64::from(width) * u64::from(height) > PIXELS_MAX {
        return Err(Error::Pixels { width, height });
    }
    match decoder.total_bytes().saturating_add(more_bytes) {
        fits if fits <= DECODING_BYTES_MAX => Ok(()),
        bytes => Err(Error::Memory(bytes)),
    }
}

fn read(mut decoder: impl ImageDecoder, format: &'static str) -> Result<Picture, Error> {
    let (width, height) = decoder.dimensions();
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let colour = decoder.color_type();
    let bytes = usize::try_from(decoder.total_bytes()).map_err(|_| Error::Memory(decoder.total_bytes()))?;
    let mut samples = vec![0; bytes];
    decoder.read_image(&mut samples).map_err(|why| refused(&why, format))?;
    let image = match colour {
        ColorType::L8 | ColorType::La8 | ColorType::L16 | ColorType::La16 => {
            keep_high_bytes::<1>(&mut samples, colour);
            GrayImage::from_raw(width, height, samples).map(DynamicImage::from)
        }
        ColorType::Rgb8 | ColorType::Rgba8 | ColorType::Rgb16 | ColorType::Rgba16 => {
            keep_high_bytes::<3>(&mut samples, colour);
            RgbImage::from_raw(width, height, samples).map(DynamicImage::from)
        }
        _ => None,
    };
    let mut image = image.ok_or_else(|| Error::Undecodable(format!("samples of type {colour:?}")))?;
    image.apply_orientation(orientation);
    Ok(Picture(image))
}

/// Reduces each pixel, in place, to its first `N` samples of 8 bits.
fn keep_high_bytes<const N: usize>(samples: &mut Vec<u8>, colour: ColorType) {
    let pixel = usize::from(colour.bytes_per_pixel());
    let sample = pixel / usize::from(colour.channel_count());
    if pixel == N {
        return;
    }
    // The decoder gives 16-bit samples in the order of the machine.
    let high = if cfg!(target_endian = "little") { sample - 1 } else { 0 };
    let pixels = samples.len() / pixel;
    for at in 0..pixels {
        for channel in 0..N {
            samples[at * N + channel] = samples[at * pixel + channel * sample + high];
        }
    }
    samples.truncate(pixels * N);
}

fn refused(why: &image::ImageError, format: &'static str) -> Error {
    match why {
        image::ImageError::IoError(why) if why.kind() == std::io::ErrorKind::UnexpectedEof => Error::Truncated(format),
        image::ImageError::Limits(why) => Error::Decoder(why.to_string()),
        other => Error::Undecodable(other.to_string()),
    }
}
