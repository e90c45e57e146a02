//! The detector against reference lists made with OpenCV 4.14: the same rectangles in the same order, the same numbers of
//! neighbours. For JPEG, whose decoders differ, nearly the same.
//!
//! A few pictures come with the crate. The whole set is used where it is present: in the folder that `NIGH_FACES` names,
//! or in `../shared/data/faces` beside the repository.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::path::{Path, PathBuf};

use face_detect::cascade::Name;
use face_detect::detector::{Detector, Object, Parameters, Rect, ScaleFactor};
use face_detect::grey::Grey;
use face_detect::picture::Picture;
use serde_json::Value;
use sha2::{Digest, Sha256};

const CASCADES: [(&str, Name); 3] =
    [("frontalface_default", Name::Default), ("frontalface_alt2", Name::Alt2), ("frontalface_alt", Name::Alt)];

/// Key, scale factor, least neighbours, whether to equalize.
const VARIANTS: [(&str, f64, u32, bool); 4] =
    [("v110_3", 1.1, 3, false), ("v105_5", 1.05, 5, false), ("v120_2", 1.2, 2, false), ("soe_eq_110_2", 1.1, 2, true)];

/// JPEG files of more pixels are not searched in the finest steps, to save time.
const LARGE: usize = 2_000_000;

/// A detector for each cascade, used again and again.
struct Detectors(Vec<(Name, Detector)>);

impl Detectors {
    fn new() -> Self {
        Self(Name::ALL.into_iter().map(|name| (name, Detector::new(name.load()))).collect())
    }

    fn get(&mut self, name: Name) -> &mut Detector {
        &mut self.0.iter_mut().find(|(have, _)| *have == name).unwrap().1
    }
}

/// How many lists were compared.
#[derive(Debug, Default, PartialEq)]
struct Compared {
    exact: usize,
    raw: usize,
    eyes: usize,
    similar: usize,
    /// Of the similar lists, how many rectangles there should be, and how many of them are not there.
    faces: usize,
    missed: usize,
}

fn rects(list: &Value) -> Vec<Rect> {
    let side = |rect: &Value, at: usize| i32::try_from(rect[at].as_i64().unwrap()).unwrap();
    let list = list.as_array().expect("a list of rectangles").iter();
    list.map(|rect| Rect { x: side(rect, 0), y: side(rect, 1), w: side(rect, 2), h: side(rect, 3) }).collect()
}

fn rects_of(objects: &[Object]) -> Vec<Rect> {
    objects.iter().map(|object| object.rect).collect()
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn compare(folder: &Path, lists: &Value) -> Compared {
    let mut detectors = Detectors::new();
    let mut compared = Compared::default();
    for image in lists["images"].as_array().unwrap() {
        let file = image["file"].as_str().unwrap();
        let bytes = fs::read(folder.join(file)).unwrap();
        assert_eq!(hex(&bytes), image["sha256"].as_str().unwrap(), "{file}");
        let grey = Picture::decode(&bytes).unwrap().grey();
        if file.ends_with(".jpg") {
            compare_similar(file, &grey, image, &mut detectors, &mut compared);
        } else {
            assert_eq!(hex(grey.pixels()), image["gray_sha256"].as_str().unwrap(), "{file}");
            compare_exact(file, &grey, image, &mut detectors, &mut compared);
        }
    }
    compared
}

fn compare_exact(file: &str, grey: &Grey, image: &Value, detectors: &mut Detectors, compared: &mut Compared) {
    for (variant, factor, min_neighbors, equalize) in VARIANTS {
        let mut searched = grey.clone();
        if equalize {
            searched.equalize();
            assert_eq!(hex(searched.pixels()), image["equalized_gray_sha256"].as_str().unwrap(), "{file}");
        }
        let parameters = Parameters { scale_factor: ScaleFactor::new(factor).unwrap(), min_neighbors, min_size: 30 };
        for (key, name) in CASCADES {
            let Some(expected) = image["results"][variant].get(key) else { continue };
            let place = format!("{file} {variant} {key}");
            let objects = detectors.get(name).detect(&searched, &parameters);
            assert_eq!(rects_of(&objects), rects(&expected["rects"]), "{place}");
            let neighbors: Vec<u64> = objects.iter().map(|object| object.neighbors.into()).collect();
            let expected_neighbors: Vec<u64> = serde_json::from_value(expected["neighbors"].clone()).unwrap();
            assert_eq!(neighbors, expected_neighbors, "{place}");
            compared.exact += 1;
            if let Some(raw) = expected.get("raw") {
                let candidates = detectors.get(name).detect(&searched, &Parameters { min_neighbors: 0, ..parameters });
                let bytes: Vec<u8> = candidates
                    .iter()
                    .flat_map(|Object { rect, .. }| [rect.x, rect.y, rect.w, rect.h].map(i32::to_le_bytes))
                    .flatten()
                    .collect();
                assert_eq!(candidates.len() as u64, raw["n"].as_u64().unwrap(), "{place}");
                assert_eq!(hex(&bytes), raw["sha256"].as_str().unwrap(), "{place}");
                compared.raw += 1;
            }
            if let Some(eyes) = expected.get("eyes") {
                for (face, eyes) in objects.iter().zip(eyes.as_array().unwrap()) {
                    compared.eyes += compare_eyes(&place, grey, face.rect, equalize, eyes, detectors);
                }
            }
        }
    }
}

fn compare_eyes(
    place: &str,
    grey: &Grey,
    face: Rect,
    equalize: bool,
    eyes: &Value,
    detectors: &mut Detectors,
) -> usize {
    let [x, y, w, h] = [face.x, face.y, face.w, face.h].map(|side| usize::try_from(side).unwrap());
    let mut part = grey.crop(x, y, w, h).unwrap();
    let mut parameters = Parameters { min_size: 0, ..Parameters::default() };
    if equalize {
        part.equalize();
        parameters = Parameters { min_neighbors: 2, ..Parameters::default() };
    }
    let eyes = eyes.as_object().unwrap();
    for (key, expected) in eyes {
        let name = if key == "eye" { Name::Eye } else { Name::EyeTreeEyeglasses };
        let found = detectors.get(name).detect(&part, &parameters);
        assert_eq!(rects_of(&found), rects(expected), "{place} {key} in {face:?}");
    }
    eyes.len()
}

/// The part of the area of both rectangles together that they share.
fn overlap(one: Rect, two: Rect) -> f64 {
    let shared = |a: i32, aw: i32, b: i32, bw: i32| ((a + aw).min(b + bw) - a.max(b)).max(0);
    let area = |rect: Rect| rect.w * rect.h;
    let both = shared(one.x, one.w, two.x, two.w) * shared(one.y, one.h, two.y, two.h);
    f64::from(both) / f64::from(area(one) + area(two) - both)
}

/// Decoders round differently, by one grey level in some of a hundred pixels. A rectangle may move by a pixel, and a group
/// with hardly more members than it takes may come or go; the others must be there.
fn compare_similar(file: &str, grey: &Grey, image: &Value, detectors: &mut Detectors, compared: &mut Compared) {
    for (variant, factor, min_neighbors, equalize) in VARIANTS {
        if variant == "v105_5" && grey.pixels().len() > LARGE {
            continue;
        }
        let mut searched = grey.clone();
        if equalize {
            searched.equalize();
        }
        let parameters = Parameters { scale_factor: ScaleFactor::new(factor).unwrap(), min_neighbors, min_size: 30 };
        for (key, name) in CASCADES {
            let Some(list) = image["results"][variant].get(key) else { continue };
            let found = rects_of(&detectors.get(name).detect(&searched, &parameters));
            let expected = rects(&list["rects"]);
            let members: Vec<u32> = serde_json::from_value(list["neighbors"].clone()).unwrap();
            for (expected, members) in expected.iter().zip(members) {
                if !found.iter().any(|found| overlap(*expected, *found) >= 0.7) {
                    assert!(
                        members < 2 * (min_neighbors + 1),
                        "{file} {variant} {key}: {expected:?} of {members} missed"
                    );
                    compared.missed += 1;
                }
                compared.faces += 1;
            }
            let allowed = (expected.len() / 10).max(1);
            let (expected, found) = (expected.len(), found.len());
            assert!(expected.abs_diff(found) <= allowed, "{file} {variant} {key}: {found} instead of {expected}");
            compared.similar += 1;
        }
    }
}

fn lists_in(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

#[test]
fn the_pictures_that_come_along_give_opencvs_lists() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let compared = compare(&folder, &lists_in(&folder.join("lists.json")));
    assert_eq!(compared, Compared { exact: 18, raw: 10, eyes: 60, similar: 18, faces: 22, missed: 0 });
}

fn whole_set() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3)?.join("shared/data/faces");
    let folder = std::env::var_os("NIGH_FACES").map_or(beside, PathBuf::from);
    folder.join("golden-open.json").exists().then_some(folder)
}

#[test]
fn the_whole_set_gives_opencvs_lists() {
    let Some(folder) = whole_set() else {
        eprintln!("skipped: no reference lists; name their folder in NIGH_FACES");
        return;
    };
    let compared = compare(&folder, &lists_in(&folder.join("golden-open.json")));
    eprintln!("compared {compared:?}");
    assert!(compared.exact > 0 && compared.raw > 0 && compared.eyes > 0 && compared.similar > 0);
    assert!(compared.missed * 100 <= compared.faces, "more than one in a hundred is missed");
}
