//! What a call's headers ask for.
//!
//! All are optional: `cascade`, `scale-factor`, `min-neighbors`, `min-size`, `equalize`, `eyes`, `annotate`. The README
//! tells what they mean. A value that is not understood is an error that lists those that are; other headers are ignored.

use std::fmt;
use std::str::FromStr;

use nigh_sdk::{Error, Request};

use crate::cascade::Name;
use crate::detector::Parameters;

/// The greatest `min-neighbors`.
pub const MIN_NEIGHBORS_MAX: u32 = 10_000;
/// The greatest `min-size`, in pixels.
pub const MIN_SIZE_MAX: u32 = 10_000;

/// The headers of a call.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Options {
    /// What to look for.
    pub cascade: Name,
    /// How to look for it.
    pub parameters: Parameters,
    /// Whether to spread the grey levels first.
    pub equalize: bool,
    /// What to look for within each object.
    pub eyes: Option<Name>,
    /// Answer with the picture, the objects drawn into it.
    pub annotate: Option<Format>,
}

/// The format of an annotated picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Without loss.
    Png,
    /// Smaller.
    Jpeg,
}

impl Options {
    /// Reads a call's headers.
    ///
    /// # Errors
    /// `bad-input`, naming the header, its value and what it may be.
    pub fn of(request: &Request) -> Result<Self, Error> {
        let default = Parameters::default();
        let parameters = Parameters {
            scale_factor: request.header_or("scale-factor", default.scale_factor)?,
            min_neighbors: request.header_or("min-neighbors", Count::<MIN_NEIGHBORS_MAX>(default.min_neighbors))?.0,
            min_size: request.header_or("min-size", Count::<MIN_SIZE_MAX>(default.min_size))?.0,
        };
        Ok(Self {
            cascade: request.header_or("cascade", Name::default())?,
            parameters,
            equalize: request.header_or("equalize", Flag(false))?.0,
            eyes: request.header_or("eyes", Eyes(None))?.0,
            annotate: request.header_or("annotate", Annotate(None))?.0,
        })
    }
}

/// A value that is not understood, and what it may be.
struct Expected(String);

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.0)
    }
}

/// A whole number up to `MAX`.
struct Count<const MAX: u32>(u32);

impl<const MAX: u32> FromStr for Count<MAX> {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let number = text.parse().ok().filter(|number| *number <= MAX);
        number.map(Self).ok_or_else(|| Expected(format!("a whole number from 0 to {MAX}")))
    }
}

struct Flag(bool);

impl FromStr for Flag {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        text.parse().map(Self).map_err(|_| Expected("true or false".to_owned()))
    }
}

struct Eyes(Option<Name>);

impl FromStr for Eyes {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let (eye, glasses) = (Name::Eye, Name::EyeTreeEyeglasses);
        match text {
            "none" => Ok(Self(None)),
            text if text == eye.as_str() => Ok(Self(Some(eye))),
            text if text == glasses.as_str() => Ok(Self(Some(glasses))),
            _ => Err(Expected(format!("one of none, {}, {}", eye.as_str(), glasses.as_str()))),
        }
    }
}

struct Annotate(Option<Format>);

impl FromStr for Annotate {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        match text {
            "png" => Ok(Self(Some(Format::Png))),
            "jpeg" => Ok(Self(Some(Format::Jpeg))),
            _ => Err(Expected("one of png, jpeg".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detector::ScaleFactor;

    fn options(headers: &[(&str, &str)]) -> Result<Options, Error> {
        let request =
            headers.iter().fold(Request::new(""), |request, (name, value)| request.with_header(*name, *value));
        Options::of(&request)
    }

    #[test]
    fn without_headers_all_is_as_documented() {
        let options = options(&[("content-type", "image/png")]).unwrap();
        assert_eq!(options, Options::default());
        assert_eq!(options.cascade, Name::Default);
        let scale_factor = ScaleFactor::new(1.1).unwrap();
        assert_eq!(options.parameters, Parameters { scale_factor, min_neighbors: 3, min_size: 30 });
        assert!(!options.equalize && options.eyes.is_none() && options.annotate.is_none());
    }

    #[test]
    fn every_header_is_read() {
        let all = [
            ("Cascade", "eye-tree-eyeglasses"),
            ("scale-factor", "1.25"),
            ("min-neighbors", "0"),
            ("min-size", "64"),
            ("equalize", "true"),
            ("eyes", "eye"),
            ("annotate", "jpeg"),
        ];
        let scale_factor = ScaleFactor::new(1.25).unwrap();
        let expected = Options {
            cascade: Name::EyeTreeEyeglasses,
            parameters: Parameters { scale_factor, min_neighbors: 0, min_size: 64 },
            equalize: true,
            eyes: Some(Name::Eye),
            annotate: Some(Format::Jpeg),
        };
        assert_eq!(options(&all).unwrap(), expected);
        for name in Name::ALL {
            assert_eq!(options(&[("cascade", name.as_str())]).unwrap().cascade, name);
        }
        assert_eq!(options(&[("eyes", "none")]).unwrap().eyes, None);
        assert_eq!(options(&[("annotate", "png")]).unwrap().annotate, Some(Format::Png));
    }

    #[test]
    fn a_value_not_understood_is_named_with_those_that_are() {
        let bad = [
            ("cascade", "Default", "default, alt, alt2, eye, eye-tree-eyeglasses"),
            ("scale-factor", "1.0", "1.01 to 4"),
            ("scale-factor", "wide", "1.01 to 4"),
            ("min-neighbors", "-1", "0 to 10000"),
            ("min-neighbors", "10001", "0 to 10000"),
            ("min-size", "1e2", "0 to 10000"),
            ("equalize", "yes", "true or false"),
            ("eyes", "alt", "none, eye, eye-tree-eyeglasses"),
            ("annotate", "gif", "png, jpeg"),
            ("annotate", "", "png, jpeg"),
        ];
        for (name, value, valid) in bad {
            let error = options(&[(name, value)]).unwrap_err();
            assert_eq!(error.kind(), "bad-input");
            assert!(error.message().contains(name) && error.message().contains(valid), "{error}");
        }
    }
}
