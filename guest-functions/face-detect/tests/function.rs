//! The function as a caller sees it: requests in, answers and errors out.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::io::Cursor;

use face_detect::face_detect;
use face_detect::picture::{PIXELS_MAX, SIDE_MAX};
use image::{DynamicImage, ExtendedColorType, GrayImage, ImageEncoder, ImageFormat, RgbImage, RgbaImage};
use nigh_sdk::{Error, Request, Response};
use proptest::prelude::*;

const ASTRONAUT: &[u8] = include_bytes!("data/astronaut.png");
const HOPPER: &[u8] = include_bytes!("data/grace_hopper.jpg");

fn call(payload: &[u8], headers: &[(&str, &str)]) -> Result<Response, Error> {
    face_detect(headers.iter().fold(Request::new(payload), |request, (name, value)| request.with_header(*name, *value)))
}

fn json(payload: &[u8], headers: &[(&str, &str)]) -> String {
    let response = call(payload, headers).unwrap();
    assert_eq!(response.header("content-type"), Some("application/json"));
    String::from_utf8(response.into_payload()).unwrap()
}

fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    image.into().write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

fn astronaut() -> GrayImage {
    image::load_from_memory(ASTRONAUT).unwrap().into_luma8()
}

const FACE: &str = r#"{"objects":[{"x":177,"y":66,"w":95,"h":95}]}"#;

#[test]
fn the_face_is_found() {
    assert_eq!(json(ASTRONAUT, &[]), FACE);
}

#[test]
fn headers_change_the_search() {
    assert_eq!(json(ASTRONAUT, &[("cascade", "alt2")]), r#"{"objects":[{"x":177,"y":66,"w":97,"h":97}]}"#);
    let two = r#"{"objects":[{"x":265,"y":323,"w":72,"h":72},{"x":176,"y":65,"w":98,"h":98}]}"#;
    assert_eq!(json(ASTRONAUT, &[("cascade", "alt")]), two);
    let finer = r#"{"objects":[{"x":175,"y":66,"w":97,"h":97},{"x":284,"y":125,"w":127,"h":127}]}"#;
    assert_eq!(json(ASTRONAUT, &[("scale-factor", "1.05"), ("min-neighbors", "5")]), finer);
    let equalized = r#"{"objects":[{"x":177,"y":67,"w":93,"h":93}]}"#;
    assert_eq!(json(ASTRONAUT, &[("equalize", "true"), ("min-neighbors", "2")]), equalized);
    assert_eq!(json(ASTRONAUT, &[("min-size", "150")]), r#"{"objects":[]}"#);
    assert_eq!(json(ASTRONAUT, &[("min-neighbors", "0")]).matches("\"x\"").count(), 45);
}

#[test]
fn eyes_stand_in_the_pictures_coordinates() {
    let eyes = r#""eyes":[{"x":187,"y":86,"w":29,"h":29},{"x":232,"y":89,"w":29,"h":29}]"#;
    assert_eq!(
        json(ASTRONAUT, &[("eyes", "eye")]),
        format!(r#"{{"objects":[{{"x":177,"y":66,"w":95,"h":95,{eyes}}}]}}"#)
    );
    let eyes = r#""eyes":[{"x":190,"y":88,"w":25,"h":25},{"x":232,"y":89,"w":28,"h":28}]"#;
    assert!(json(ASTRONAUT, &[("eyes", "eye-tree-eyeglasses")]).contains(eyes));
    assert!(!json(ASTRONAUT, &[("eyes", "none")]).contains("eyes"));
}

/// Alpha is dropped without blending, 16-bit samples are cut, palettes and grey made colour change nothing.
#[test]
fn every_kind_of_png_is_the_same_picture() {
    let grey = astronaut();
    let rgb = DynamicImage::from(grey.clone()).into_rgb8();
    let rgba = RgbaImage::from_fn(512, 512, |x, y| {
        let [level] = grey.get_pixel(x, y).0;
        image::Rgba([level, level, level, u8::try_from((x + y) % 256).unwrap()])
    });
    let grey_16 = image::ImageBuffer::<image::Luma<u16>, _>::from_fn(512, 512, |x, y| {
        image::Luma([u16::from(grey.get_pixel(x, y).0[0]) << 8 | u16::try_from((x * 7 + y) % 256).unwrap()])
    });
    let rgba_16 = image::ImageBuffer::<image::Rgba<u16>, _>::from_fn(512, 512, |x, y| {
        let [level] = grey_16.get_pixel(x, y).0;
        image::Rgba([level, level, level, 0])
    });
    for file in [png(rgb), png(rgba), png(DynamicImage::ImageLuma16(grey_16)), png(DynamicImage::ImageRgba16(rgba_16))]
    {
        assert_eq!(json(&file, &[]), FACE);
    }
}

#[test]
fn the_picture_comes_back_annotated() {
    for (format, expected) in [("png", ImageFormat::Png), ("jpeg", ImageFormat::Jpeg)] {
        let response = call(ASTRONAUT, &[("annotate", format), ("eyes", "eye")]).unwrap();
        assert_eq!(response.header("content-type"), Some(expected.to_mime_type()));
        assert_eq!(image::guess_format(response.payload()).unwrap(), expected);
        let drawn = image::load_from_memory(response.payload()).unwrap().into_rgb8();
        assert_eq!(drawn.dimensions(), (512, 512));
        let is_green = |x, y| matches!(drawn.get_pixel(x, y).0, [r, g, b] if g > 150 && r < 110 && b < 170);
        assert!(
            is_green(177 + 40, 66)
                && is_green(177, 66 + 40)
                && is_green(177 + 94, 66 + 40)
                && is_green(177 + 40, 66 + 94)
        );
        assert!(!is_green(177 + 40, 66 + 40), "only the edge is drawn");
    }
}

/// Adds EXIF data that say how the camera was held.
fn with_orientation(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut segment = b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    segment.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    [&jpeg[..2], &segment, &jpeg[2..]].concat()
}

#[test]
fn a_picture_taken_sideways_is_turned_upright() {
    let mut file = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, 100);
    encoder.write_image(&image::imageops::rotate270(&astronaut()), 512, 512, ExtendedColorType::L8).unwrap();
    assert_eq!(json(&file, &[]), r#"{"objects":[]}"#, "as it stands, nothing is upright");
    let upright = json(&with_orientation(&file, 6), &[]);
    assert!(upright.starts_with(r#"{"objects":[{"x":17"#), "{upright}");
}

fn refusal(payload: &[u8]) -> (String, String) {
    let error = call(payload, &[]).unwrap_err();
    (error.kind().to_owned(), error.message().to_owned())
}

#[test]
fn what_is_no_picture_is_refused_by_kind() {
    assert_eq!(refusal(b"").0, "bad-input");
    for other in [&b"hello"[..], b"GIF89a\x01\0\x01\0", b"BM", &[0; 100], b"\xff\xd8", b"\x89PNG\r\n\x1a\n"] {
        assert_eq!(refusal(other).0, "undecodable", "{other:?}");
    }
    assert_eq!(call(ASTRONAUT, &[("cascade", "cat")]).unwrap_err().kind(), "bad-input");
}

#[test]
fn what_is_cut_is_refused_wherever_it_is_cut() {
    for (file, step) in [(HOPPER, 997), (ASTRONAUT, 2999)] {
        for cut in (1..file.len() - 20).step_by(step) {
            assert_eq!(refusal(&file[..cut]).0, "undecodable", "cut at {cut}");
        }
    }
    assert!(refusal(&HOPPER[..HOPPER.len() / 2]).1.contains("truncated"));
    assert!(refusal(&ASTRONAUT[..ASTRONAUT.len() / 2]).1.contains("truncated"));
}

/// A PNG file that says how large it is and holds nothing.
fn hollow_png(width: u32, height: u32, bits: u8, colour: u8) -> Vec<u8> {
    let crc = |bytes: &[u8]| {
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
        })
    };
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let header = [&b"IHDR"[..], &width.to_be_bytes(), &height.to_be_bytes(), &[bits, colour, 0, 0, 0]].concat();
    for chunk in [header, b"IDAT".to_vec(), b"IEND".to_vec()] {
        file.extend(u32::try_from(chunk.len() - 4).unwrap().to_be_bytes());
        file.extend(&chunk);
        file.extend(crc(&chunk).to_be_bytes());
    }
    file
}

/// A JPEG file that says how large it is and holds nothing.
fn hollow_jpeg(width: u16, height: u16) -> Vec<u8> {
    let mut file = HOPPER.to_vec();
    let frame = file.windows(2).position(|marker| marker == [0xff, 0xc0]).expect("a baseline frame");
    file[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    file[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    file
}

#[test]
fn a_huge_picture_is_refused_before_it_is_decoded() {
    let side = u32::try_from(PIXELS_MAX.isqrt()).unwrap() + 1;
    for (width, height) in [(side, side), (SIDE_MAX + 1, 1), (1, SIDE_MAX + 1), (0x7fff_ffff, 0x7fff_ffff)] {
        let (kind, message) = refusal(&hollow_png(width, height, 8, 0));
        assert_eq!(kind, "too-large", "{width}x{height}: {message}");
    }
    assert_eq!(refusal(&hollow_png(4000, 3000, 16, 6)).0, "too-large", "16 bits of four channels take too much memory");
    assert_eq!(refusal(&hollow_jpeg(65535, 65535)).0, "too-large");
    assert_eq!(refusal(&hollow_png(100, 100, 8, 0)).0, "undecodable", "within the limits, but empty");
}

#[test]
fn pictures_of_any_small_size_are_searched() {
    for (width, height) in [(1, 1), (1, 500), (23, 23), (24, 24), (25, 2000), (31, 30)] {
        let noise = RgbImage::from_fn(width, height, |x, y| {
            image::Rgb([(x * 31) ^ (y * 17), x * y, x + y].map(|level| u8::try_from(level % 256).unwrap()))
        });
        for cascade in ["default", "alt2", "eye-tree-eyeglasses"] {
            json(
                &png(noise.clone()),
                &[("cascade", cascade), ("min-size", "0"), ("min-neighbors", "0"), ("equalize", "true")],
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_files_never_make_it_panic(at in 0usize..20_000, value: u8, more in prop::collection::vec((0usize..3000, any::<u8>()), 0..4)) {
        for file in [HOPPER, ASTRONAUT] {
            let mut file = file.to_vec();
            file[at] = value;
            for (at, value) in &more {
                file[*at] = *value;
            }
            let _ = call(&file, &[("min-size", "200")]);
        }
    }
}
