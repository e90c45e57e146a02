//! What a call answers with: JSON, or the picture with what was found drawn into it.

use std::fmt::Write as _;
use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{Rgb, RgbImage};
use imageproc::drawing::draw_hollow_rect_mut;
use nigh_sdk::{Error, Response};

use crate::detector::Rect;
use crate::options::Format;
use crate::picture::Picture;

const OBJECT: Rgb<u8> = Rgb([0, 230, 90]);
const EYE: Rgb<u8> = Rgb([255, 190, 0]);
/// Lines are one pixel wide, and one more for each so many pixels of the picture's longer side.
const PIXELS_PER_LINE: u32 = 400;
const JPEG_QUALITY: u8 = 90;

/// An object, with its eyes if they were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub rect: Rect,
    /// Where its eyes are, in coordinates of the whole picture.
    pub eyes: Option<Vec<Rect>>,
}

/// The objects as JSON without spaces: `{"objects":[{"x":1,"y":2,"w":3,"h":4,"eyes":[...]}]}`.
pub fn json(found: &[Found]) -> String {
    let mut text = String::from(r#"{"objects":["#);
    for (at, Found { rect, eyes }) in found.iter().enumerate() {
        text.push_str(if at == 0 { "{" } else { ",{" });
        push_sides(&mut text, *rect);
        if let Some(eyes) = eyes {
            text.push_str(r#","eyes":["#);
            for (at, eye) in eyes.iter().enumerate() {
                text.push_str(if at == 0 { "{" } else { ",{" });
                push_sides(&mut text, *eye);
                text.push('}');
            }
            text.push(']');
        }
        text.push('}');
    }
    text.push_str("]}");
    text
}

fn push_sides(text: &mut String, Rect { x, y, w, h }: Rect) {
    // Writing to a string cannot fail.
    let _ = write!(text, r#""x":{x},"y":{y},"w":{w},"h":{h}"#);
}

/// The picture with a frame around each object and each eye, `content-type` set.
///
/// # Errors
/// `failed` where the picture cannot be encoded.
pub fn annotated(picture: Picture, found: &[Found], format: Format) -> Result<Response, Error> {
    let mut image = picture.into_rgb();
    for Found { rect, eyes } in found {
        draw(&mut image, *rect, OBJECT);
        eyes.iter().flatten().for_each(|eye| draw(&mut image, *eye, EYE));
    }
    let mut file = Cursor::new(Vec::new());
    let content_type = match format {
        Format::Png => {
            image.write_with_encoder(PngEncoder::new(&mut file))?;
            "image/png"
        }
        Format::Jpeg => {
            image.write_with_encoder(JpegEncoder::new_with_quality(&mut file, JPEG_QUALITY))?;
            "image/jpeg"
        }
    };
    Ok(Response::new(file.into_inner()).with_header("content-type", content_type))
}

/// Draws a frame along the inside of the rectangle's edge.
fn draw(image: &mut RgbImage, rect: Rect, colour: Rgb<u8>) {
    let lines = 1 + image.width().max(image.height()) / PIXELS_PER_LINE;
    for line in 0..i32::try_from(lines).unwrap_or(1) {
        let side = |side: i32| u32::try_from(side - 2 * line).ok().filter(|side| *side > 0);
        if let Some((w, h)) = side(rect.w).zip(side(rect.h)) {
            let frame = imageproc::rect::Rect::at(rect.x + line, rect.y + line).of_size(w, h);
            draw_hollow_rect_mut(image, frame, colour);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACE: Rect = Rect { x: 10, y: 20, w: 30, h: 30 };
    const LEFT: Rect = Rect { x: 15, y: 26, w: 8, h: 8 };

    #[test]
    fn json_is_compact_and_in_the_order_found() {
        assert_eq!(json(&[]), r#"{"objects":[]}"#);
        let face = Found { rect: FACE, eyes: None };
        assert_eq!(json(std::slice::from_ref(&face)), r#"{"objects":[{"x":10,"y":20,"w":30,"h":30}]}"#);
        let found =
            [face, Found { rect: LEFT, eyes: Some(vec![LEFT, FACE]) }, Found { rect: FACE, eyes: Some(vec![]) }];
        let parsed: serde_json::Value = serde_json::from_str(&json(&found)).unwrap();
        assert_eq!(parsed["objects"].as_array().unwrap().len(), 3);
        assert_eq!(parsed["objects"][1]["eyes"][1]["w"], 30);
        assert_eq!(parsed["objects"][2]["eyes"], serde_json::json!([]));
        assert!(parsed["objects"][0].get("eyes").is_none());
    }

    #[test]
    fn frames_lie_on_the_edge_and_never_outside() {
        let mut image = RgbImage::new(60, 60);
        draw(&mut image, FACE, OBJECT);
        let drawn = image.enumerate_pixels().filter(|(_, _, pixel)| **pixel == OBJECT);
        let on_edge = |x: u32, y: u32| x == 10 || x == 39 || y == 20 || y == 49;
        let mut count = 0;
        for (x, y, _) in drawn {
            assert!(on_edge(x, y) && (10..40).contains(&x) && (20..50).contains(&y), "{x},{y}");
            count += 1;
        }
        assert_eq!(count, 4 * 29);
        draw(&mut image, Rect { x: 59, y: 59, w: 1, h: 1 }, EYE);
        assert_eq!(*image.get_pixel(59, 59), EYE);
    }
}
