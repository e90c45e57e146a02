//! Sizes and times as people write them: `64MiB`, `5s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use serde::de::{self, Deserialize, Deserializer, Visitor};

/// What is not a size or a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a size.
    #[error("{0:?} is not a size: write a number of bytes over 0 with a unit, as in 512KiB, 64MiB or 1.5GiB")]
    Size(String),
    /// Not a time.
    #[error("{0:?} is not a time: write one over 0 with a unit and up to a year, as in 250ms, 5s or 1h 30m")]
    Time(String),
}

/// A number of bytes, at least 1. `KiB`, `MiB`, `GiB` are powers of 1024, `KB`, `MB`, `GB` of 1000; without a unit it is
/// bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    /// The bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(given: &str) -> Result<Self, UnitError> {
        match given.trim().parse::<ByteSize>() {
            Ok(ByteSize(bytes)) if bytes > 0 => Ok(Self(bytes)),
            _ => Err(UnitError::Size(shortened(given))),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&size(self.0))
    }
}

/// Bytes in the largest unit that has at least one of them, to one decimal, as in `64.0 MiB`.
pub fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// A time over zero and up to a year: beyond that, sums with clocks could overflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(Duration);

impl Time {
    /// The longest.
    pub const MAX: Duration = Duration::from_secs(365 * 24 * 3600);

    /// The time as the standard library has it.
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Time {
    type Err = UnitError;

    fn from_str(given: &str) -> Result<Self, UnitError> {
        match humantime::parse_duration(given.trim()) {
            Ok(time) if !time.is_zero() && time <= Self::MAX => Ok(Self(time)),
            _ => Err(UnitError::Time(shortened(given))),
        }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&humantime::format_duration(self.0).to_string())
    }
}

fn shortened(given: &str) -> String {
    given.chars().take(64).collect()
}

/// A size in a configuration file: text with a unit, or a whole number of bytes.
impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"64MiB\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                self.visit_str(&bytes.to_string())
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                self.visit_str(&bytes.to_string())
            }
        }
        deserializer.deserialize_any(Bytes)
    }
}

/// A time in a configuration file: text with a unit.
impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Time;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time with its unit in quotes, such as \"5s\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Time, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("1", 1),
            ("512 KiB", 512 << 10),
            ("64MiB", 64 << 20),
            ("1.5GiB", 3 << 29),
            ("2MB", 2_000_000),
            (" 7 B ", 7),
        ] {
            assert_eq!(text.parse::<Size>().unwrap().bytes(), bytes, "{text}");
        }
        for odd in ["", "0", "0KiB", "-1", "-1MiB", "MiB", "64 mebibytes", "1e9", "0x10", "NaN", "inf", "1MiB2"] {
            let error = odd.parse::<Size>().unwrap_err().to_string();
            assert!(error.contains("as in"), "{odd}: {error}");
        }
    }

    #[test]
    fn times_have_units() {
        for (text, time) in [
            ("250ms", Duration::from_millis(250)),
            ("5s", Duration::from_secs(5)),
            ("1h 30m", Duration::from_secs(5400)),
            ("365days", Time::MAX),
        ] {
            assert_eq!(text.parse::<Time>().unwrap().duration(), time, "{text}");
        }
        for odd in ["", "5", "0s", "-5s", "s", "5 parsecs", "366days", "99999999999999999999s"] {
            let error = odd.parse::<Time>().unwrap_err().to_string();
            assert!(error.contains("as in"), "{odd}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_panic(text in ".*") {
            let _ = text.parse::<Size>();
            let _ = text.parse::<Time>();
        }

        #[test]
        fn whole_numbers_of_a_unit_are_exact(count in 1u64..1 << 20) {
            for (unit, bytes) in [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("KB", 1000)] {
                prop_assert_eq!(format!("{count}{unit}").parse::<Size>().unwrap().bytes(), count * bytes);
            }
        }

        #[test]
        fn times_parse_as_they_print(us in 1u64..30_000_000_000_000) {
            let time = Time(Duration::from_micros(us));
            prop_assert_eq!(time.to_string().parse::<Time>().unwrap(), time);
        }
    }
}
