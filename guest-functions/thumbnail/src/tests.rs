//! The function as its callers see it.

use std::io::Cursor;

use image::{ImageFormat, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use proptest::prelude::*;

use super::*;

/// A picture with some structure, so that shrinking and compressing have something to do.
fn gradient(width: u32, height: u32) -> DynamicImage {
    let shade = |at: u32, of: u32| u8::try_from(at * 255 / of).unwrap();
    DynamicImage::ImageRgb8(RgbImage::from_fn(width, height, |x, y| Rgb([shade(x, width), shade(y, height), 128])))
}

fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn png(picture: &DynamicImage) -> Vec<u8> {
    encoded(picture, ImageFormat::Png)
}

fn answer(request: Request) -> DynamicImage {
    let response = thumbnail(request).unwrap();
    assert_eq!(response.header("content-type"), Some("image/jpeg"));
    let picture = image::load_from_memory_with_format(response.payload(), ImageFormat::Jpeg).unwrap();
    assert_eq!(response.header("width"), Some(picture.width().to_string().as_str()));
    assert_eq!(response.header("height"), Some(picture.height().to_string().as_str()));
    picture
}

fn kind(payload: &[u8]) -> String {
    thumbnail(Request::new(payload)).unwrap_err().kind().to_owned()
}

#[test]
fn pictures_shrink_to_256_and_keep_their_shape() {
    for format in [ImageFormat::Jpeg, ImageFormat::Png] {
        let small = answer(Request::new(encoded(&gradient(1024, 512), format)));
        assert_eq!((small.width(), small.height()), (256, 128));
        let middle = small.to_rgb8().get_pixel(128, 64).0;
        for (have, want) in middle.into_iter().zip([127, 127, 128]) {
            assert!(have.abs_diff(want) <= 6, "{middle:?}");
        }
    }
}

#[test]
fn headers_bound_the_answer() {
    let payload = png(&gradient(300, 200));
    let bounded = |width: &str, height: &str| {
        let small =
            answer(Request::new(payload.clone()).with_header("max-width", width).with_header("max-height", height));
        (small.width(), small.height())
    };
    assert_eq!(bounded("30", "30"), (30, 20));
    assert_eq!(bounded("4096", "20"), (30, 20));
    assert_eq!(bounded("1", "1"), (1, 1));
    assert_eq!(bounded("4096", "4096"), (300, 200), "never enlarged");
}

#[test]
fn quality_decides_on_the_answers_length() {
    let len = |quality: &str| {
        thumbnail(Request::new(png(&gradient(200, 200))).with_header("quality", quality)).unwrap().payload().len()
    };
    assert!(len("5") < len("80") && len("80") < len("100"));
}

#[test]
fn an_answer_that_would_be_too_large_is_refused() {
    let picture = gradient(64, 64);
    let whole = encode(&picture, 80, ANSWER_BYTES_MAX).unwrap();
    assert_eq!(encode(&picture, 80, whole.len()).unwrap(), whole);
    let error = encode(&picture, 80, whole.len() - 1).unwrap_err();
    assert_eq!(error.kind(), "answer-too-large");
    assert!(error.message().contains("lower quality"), "{error}");
    // Two pictures of 4096 x 4096 do not fit into memory; a small one fits beside the largest.
    let error = check_memory((4096, 4096), (4000, 4000), 3).unwrap_err();
    assert_eq!(error.kind(), "answer-too-large");
    assert!(error.message().contains("smaller width and height"), "{error}");
    assert!(check_memory((4096, 4096), (3500, 3500), 3).is_ok());
}

#[test]
fn odd_headers_are_refused_by_name() {
    for (name, value) in [
        ("max-width", "0"),
        ("max-height", "4097"),
        ("max-width", "-1"),
        ("max-height", "wide"),
        ("quality", "0"),
        ("quality", "101"),
        ("quality", "900"),
    ] {
        let error = thumbnail(Request::new(png(&gradient(8, 8))).with_header(name, value)).unwrap_err();
        assert_eq!(error.kind(), "bad-input");
        assert!(error.message().contains(name), "{error}");
    }
}

#[test]
fn what_is_transparent_becomes_white_whatever_its_colour() {
    // Clear black in the left half, and solid red in the right.
    let half = |x: u32| if x < 200 { Rgba([0, 0, 0, 0]) } else { Rgba([255, 0, 0, 255]) };
    let picture = RgbaImage::from_fn(400, 400, |x, _| half(x));
    let wide = DynamicImage::ImageRgba8(picture.clone());
    for payload in [png(&wide), png(&DynamicImage::ImageRgba16(wide.to_rgba16()))] {
        let small = answer(Request::new(payload).with_header("max-width", "40")).to_rgb8();
        assert!(small.get_pixel(5, 20).0.iter().all(|&channel| channel > 245), "{:?}", small.get_pixel(5, 20));
        let Rgb([red, green, blue]) = *small.get_pixel(35, 20);
        assert!(red > 240 && green < 16 && blue < 16, "{red} {green} {blue}");
    }
}

#[test]
fn grey_stays_grey() {
    let clear = DynamicImage::ImageLumaA8(image::GrayAlphaImage::from_pixel(300, 300, image::LumaA([0, 0])));
    for (picture, shade) in [
        (DynamicImage::ImageLuma8(image::GrayImage::from_pixel(300, 300, Luma([90]))), 90),
        (DynamicImage::ImageLuma16(image::ImageBuffer::from_pixel(300, 300, Luma([90 * 257]))), 90),
        (clear.clone(), 255),
        (DynamicImage::ImageLumaA16(clear.to_luma_alpha16()), 255),
    ] {
        let small = answer(Request::new(png(&picture)));
        assert!(!small.color().has_color());
        assert_eq!(small.to_luma8().get_pixel(100, 100).0, [shade]);
    }
}

#[test]
fn photographs_stand_upright() {
    // An EXIF segment with nothing but orientation 6: turn by 90 degrees clockwise.
    let exif = b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let lying = encoded(&gradient(400, 200), ImageFormat::Jpeg);
    let turned = [&lying[..2], exif, &lying[2..]].concat();
    let small = answer(Request::new(turned).with_header("max-width", "50").with_header("max-height", "300"));
    assert_eq!((small.width(), small.height()), (50, 100));
    // The left edge, without red, has become the upper one.
    let (top, bottom) = (small.to_rgb8().get_pixel(25, 3).0[0], small.to_rgb8().get_pixel(25, 96).0[0]);
    assert!(top < 30 && bottom > 225, "{top} {bottom}");
}

#[test]
fn what_is_no_picture_is_told_apart() {
    assert_eq!(kind(b""), "empty-payload");
    assert_eq!(kind(b"plain text"), "unsupported-format");
    assert_eq!(kind(b"GIF89a\x01\0\x01\0\0\0\0;"), "unsupported-format");
    assert_eq!(kind(b"\x89PNG\r\n\x1a\nnot a chunk at all, but long enough"), "undecodable-image");
    assert_eq!(kind(b"\xff\xd8\xff\xd9"), "undecodable-image");
}

#[test]
fn truncated_files_are_refused_wherever_they_end() {
    for format in [ImageFormat::Jpeg, ImageFormat::Png] {
        let whole = encoded(&gradient(64, 64), format);
        // Behind the last byte of pixels a PNG has only its end chunk, which no decoder needs.
        let needed = if format == ImageFormat::Png { whole.len() - 20 } else { whole.len() };
        for cut in 20..needed {
            let kind = kind(&whole[..cut]);
            assert!(
                matches!(kind.as_str(), "truncated-image" | "undecodable-image"),
                "{format:?} cut at {cut}: {kind}"
            );
        }
    }
}

#[test]
fn huge_pictures_are_refused_before_they_are_decoded() {
    // Headers only: a decoder that went further would say that the file is truncated.
    let mut jpeg = encoded(&gradient(16, 16), ImageFormat::Jpeg);
    let frame = jpeg.windows(2).position(|bytes| bytes == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xff; 4]);
    assert_eq!(kind(&jpeg), "image-too-large");
    let mut header = b"IHDR\0\0\xff\xff\0\0\xff\xff\x08\x06\0\0\0".to_vec();
    header.extend(crc(&header).to_be_bytes());
    let png = [b"\x89PNG\r\n\x1a\n\0\0\0\x0d", header.as_slice(), b"\0\0\0\x01IDAT"].concat();
    assert_eq!(kind(&png), "image-too-large");
}

/// PNG's checksum (CRC-32 of ISO 3309), to make a header by hand.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

proptest! {
    #[test]
    fn fitting_keeps_within_bounds_and_shape(
        size in (1u32..70_000, 1u32..70_000), bounds in (1u32..=BOUND_MAX, 1u32..=BOUND_MAX)
    ) {
        let (width, height) = fit(size, bounds);
        prop_assert!((1..=bounds.0.min(size.0)).contains(&width) && (1..=bounds.1.min(size.1)).contains(&height));
        // One side meets its bound, or nothing was changed.
        prop_assert!((width, height) == size || width == bounds.0 || height == bounds.1);
        // The other side is the rounded one: within half a pixel of the exact shape, unless that is under one pixel.
        let exact_height = f64::from(size.1) * f64::from(width) / f64::from(size.0);
        let exact_width = f64::from(size.0) * f64::from(height) / f64::from(size.1);
        let close = |have: u32, exact: f64| (f64::from(have) - exact.max(1.0)).abs() <= 0.5 + 1e-6;
        prop_assert!(close(height, exact_height) || close(width, exact_width), "{size:?} in {bounds:?}: {width} x {height}");
    }

    #[test]
    fn any_picture_shrinks(width in 1u32..80, height in 1u32..80, bound in 1u32..40) {
        let request = Request::new(png(&gradient(width, height))).with_header("max-width", bound.to_string());
        let small = answer(request);
        prop_assert!(small.width() <= bound && small.height() <= height);
    }

    #[test]
    fn damaged_pictures_are_refused_or_shrunk_but_never_panic(
        jpeg: bool, at in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 1..4)
    ) {
        let mut payload = encoded(&gradient(24, 24), if jpeg { ImageFormat::Jpeg } else { ImageFormat::Png });
        let start = at.index(payload.len() - bytes.len());
        payload[start..start + bytes.len()].copy_from_slice(&bytes);
        let _ = thumbnail(Request::new(payload));
    }
}
