//! The functions shipped that read files of strangers, built natively: pictures and packed cascades. Whatever is sent is
//! answered or refused by kind, with a picture that keeps what was asked for.

use face_detect::cascade::Cascade;
use face_detect::detector::{Detector, Parameters};
use face_detect::grey::Grey;
use face_detect::picture::Picture;
use nigh_sdk::{Error, Request};

/// Pixels of a picture that is searched too: searching costs far more than decoding.
const SEARCHED_PIXELS_MAX: u64 = 64 * 64;
/// A picture large enough for several windows of any cascade, small enough to be searched often.
const SIDE: usize = 48;
const KINDS: [&str; 7] = [
    "bad-input",
    "empty-payload",
    "unsupported-format",
    "image-too-large",
    "truncated-image",
    "undecodable-image",
    "answer-too-large",
];

/// The first byte chooses the reader and its options, the rest is the file.
pub(super) fn check(data: &[u8]) {
    let Some((&kind, file)) = data.split_first() else { return };
    match kind % 4 {
        0 => thumbnail(file, kind),
        1 => cascade(file),
        _ => picture(file),
    }
}

fn thumbnail(file: &[u8], bound: u8) {
    let request = Request::new(file)
        .with_header("max-width", (u32::from(bound) + 1).to_string())
        .with_header("max-height", "64")
        .with_header("quality", "50");
    match thumbnail::thumbnail(request) {
        Ok(response) => {
            let side = |name| response.header(name).and_then(|side| side.parse::<u32>().ok()).expect("a side");
            assert!((1..=u32::from(bound) + 1).contains(&side("width")) && (1..=64).contains(&side("height")));
            assert!(response.payload().starts_with(&[0xff, 0xd8]), "the answer is a JPEG");
        }
        Err(refused) => is_told(&refused, &KINDS),
    }
}

fn picture(file: &[u8]) {
    let Ok(picture) = Picture::decode(file) else {
        let refused = face_detect::face_detect(Request::new(file)).expect_err("what cannot be decoded is refused");
        return is_told(&refused, &["bad-input", "undecodable", "too-large"]);
    };
    let grey = picture.grey();
    assert_eq!(grey.pixels().len(), grey.width() * grey.height());
    if grey.pixels().len() as u64 <= SEARCHED_PIXELS_MAX {
        let request = Request::new(file).with_header("equalize", "true").with_header("annotate", "png");
        face_detect::face_detect(request).expect("a picture that decodes is searched");
    }
}

fn cascade(file: &[u8]) {
    let Ok(cascade) = Cascade::parse(file) else { return };
    let pixels = (0..SIDE * SIDE).map(|at| u8::try_from((at * at / 7 + at) % 256).unwrap_or_default()).collect();
    let grey = Grey::new(SIDE, SIDE, pixels).expect("as many pixels as a picture of this size has");
    let parameters = Parameters { min_size: 0, ..Parameters::default() };
    for object in Detector::new(cascade).detect(&grey, &parameters) {
        let rect = object.rect;
        let fits = |at: i32, side: i32| at >= 0 && side > 0 && at + side <= i32::try_from(SIDE).unwrap_or_default();
        assert!(fits(rect.x, rect.w) && fits(rect.y, rect.h), "{rect:?} is not within the picture");
    }
}

fn is_told(refused: &Error, kinds: &[&str]) {
    assert!(kinds.contains(&refused.kind()) && !refused.message().is_empty(), "{refused:?}");
}
