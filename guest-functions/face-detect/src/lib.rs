//! Finds faces in a photograph: JPEG or PNG in, rectangles as JSON out, `{"objects":[{"x":10,"y":20,"w":30,"h":30}]}`.
//!
//! A call reads its headers ([`options`]), decodes the picture ([`picture`]), searches it ([`detector`]) and writes the
//! answer ([`answer`]). On grey and PNG pictures the rectangles are those of OpenCV's `detectMultiScale`, all of them.

pub mod answer;
pub mod cascade;
pub mod detector;
pub mod grey;
mod jpeg;
pub mod options;
#[cfg(any(test, feature = "pack"))]
pub mod pack;
pub mod picture;

use std::time::{Duration, Instant};

use nigh_sdk::{Error, Request, Response};

use answer::Found;
use detector::{Detector, Parameters, Rect};
use grey::Grey;
use options::Options;
use picture::Picture;

nigh_sdk::function!(face_detect);

/// The function. Headers are described in [`options`]. Each answer tells in headers where its time went: `decode-us` and
/// `detect-us`, microseconds.
///
/// # Errors
/// `bad-input` for a header or a payload that makes no sense, `undecodable` for a file that is no picture, `too-large` for
/// one beyond the limits of [`picture`]. All are the caller's fault.
pub fn face_detect(request: Request) -> Result<Response, Error> {
    let options = Options::of(&request)?;
    let began = Instant::now();
    let picture =
        Picture::decode(request.payload()).map_err(|refused| Error::new(refused.kind(), refused.to_string()))?;
    // The file is not needed any more, and the picture may be large.
    drop(request);
    let decode = began.elapsed();
    let found = search(picture.grey(), &options);
    let detect = began.elapsed() - decode;
    let response = match options.annotate {
        None => Response::json(answer::json(&found)),
        Some(format) => answer::annotated(picture, &found, format)?,
    };
    let us = |time: Duration| time.as_micros().to_string();
    Ok(response.with_header("decode-us", us(decode)).with_header("detect-us", us(detect)))
}

/// The objects in a picture, each with its eyes if they are asked for.
fn search(grey: Grey, options: &Options) -> Vec<Found> {
    let mut eyes = options.eyes.map(|name| Detector::new(name.load()));
    let mut detector = Detector::new(options.cascade.load());
    let objects = if options.equalize {
        let mut equalized = grey.clone();
        equalized.equalize();
        detector.detect(&equalized, &options.parameters)
    } else {
        detector.detect(&grey, &options.parameters)
    };
    let found = objects.into_iter().map(|object| Found {
        rect: object.rect,
        eyes: eyes.as_mut().map(|eyes| eyes_in(&grey, object.rect, options.equalize, eyes)),
    });
    found.collect()
}

/// The eyes within an object, searched for in that part alone and at every size; in coordinates of the whole picture.
fn eyes_in(grey: &Grey, face: Rect, equalize: bool, detector: &mut Detector) -> Vec<Rect> {
    let [x, y, w, h] = [face.x, face.y, face.w, face.h].map(|side| usize::try_from(side).unwrap_or(0));
    let Some(mut part) = grey.crop(x, y, w, h) else { return Vec::new() };
    if equalize {
        part.equalize();
    }
    let eyes = detector.detect(&part, &Parameters { min_size: 0, ..Parameters::default() });
    eyes.into_iter().map(|eye| Rect { x: face.x + eye.rect.x, y: face.y + eye.rect.y, ..eye.rect }).collect()
}
