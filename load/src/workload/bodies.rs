//! What is sent: payloads of drawn sizes, or given ones.

use std::str::FromStr;

use bytes::Bytes;
use rand::rngs::ChaCha8Rng;
use rand::{Rng as _, RngExt as _};

use super::WorkloadError;
use crate::dice::{self, Purpose};

/// Bytes of a payload, at most: what any function may be deployed to take.
pub const PAYLOAD_BYTES_MAX: u32 = 64 << 20;
/// Sizes, or payloads, to choose from, at most.
const CHOICES_MAX: usize = 100_000;
/// What a JSON payload has around its letters.
const JSON: (&[u8], &[u8]) = (br#"{"input":""#, br#""}"#);

/// What one call sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// So many bytes.
    Size(u32),
    /// One of the payloads given, by place.
    Given(u32),
    /// So many microseconds, as milliseconds in text: how long the function is to work.
    Work(u32),
}

/// How sizes are drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sizes {
    /// Always this many bytes.
    Constant(u32),
    /// Any number of bytes from the first to the second.
    Uniform(u32, u32),
    /// One of these, each as likely as the next; what stands there twice is twice as likely.
    Choice(Vec<u32>),
    /// One of so many payloads given, at random.
    Given(u32),
    /// The payloads given, one after another, from the first again after the last.
    InOrder(u32),
}

impl Sizes {
    pub(super) fn draw(&self, dice: &mut ChaCha8Rng, turn: &mut u64) -> Body {
        match self {
            Self::Constant(bytes) => Body::Size(*bytes),
            Self::Uniform(min, max) => Body::Size(dice.random_range(*min..=*max)),
            Self::Choice(sizes) => Body::Size(sizes[dice.random_range(0..sizes.len())]),
            Self::Given(count) => Body::Given(dice.random_range(0..*count)),
            Self::InOrder(count) => {
                let place = u32::try_from(*turn % u64::from(*count)).unwrap_or_default();
                *turn += 1;
                Body::Given(place)
            }
        }
    }
}

impl FromStr for Sizes {
    type Err = WorkloadError;

    /// `100`, `100..500` or `100,1000,10000`.
    fn from_str(text: &str) -> Result<Self, WorkloadError> {
        let malformed = || {
            let given: String = text.chars().take(64).collect();
            WorkloadError::new(format!(
                "sizes {given:?}: write bytes as 100, a range as 100..500 or a choice as 100,1000,10000, each up to \
                 {PAYLOAD_BYTES_MAX}"
            ))
        };
        let bytes = |text: &str| match text.trim().parse() {
            Ok(bytes) if bytes <= PAYLOAD_BYTES_MAX => Ok(bytes),
            _ => Err(malformed()),
        };
        if let Some((min, max)) = text.split_once("..") {
            let (min, max) = (bytes(min)?, bytes(max)?);
            return if min <= max { Ok(Self::Uniform(min, max)) } else { Err(malformed()) };
        }
        let sizes: Vec<u32> = text.split(',').map(bytes).collect::<Result<_, _>>()?;
        match sizes.as_slice() {
            [size] => Ok(Self::Constant(*size)),
            _ if sizes.len() <= CHOICES_MAX => Ok(Self::Choice(sizes)),
            _ => Err(malformed()),
        }
    }
}

/// What payloads of a drawn size are filled with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fill {
    /// The letter A.
    #[default]
    Letters,
    /// `{"input":"AAA…"}`, as long as the size says, though never shorter than with no letter.
    Json,
    /// Random bytes, the same for the same seed.
    Random,
}

/// The bytes that calls send. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Payloads {
    given: std::sync::Arc<[Bytes]>,
    filling: Bytes,
    fill: Fill,
}

impl Payloads {
    /// Payloads given, which are chosen by place.
    pub fn given(payloads: Vec<Bytes>) -> Self {
        Self { given: payloads.into(), filling: Bytes::new(), fill: Fill::Letters }
    }

    /// Payloads of up to so many bytes with this filling.
    pub fn filled(fill: Fill, bytes_max: u32, seed: u64) -> Self {
        let length = usize::try_from(bytes_max.min(PAYLOAD_BYTES_MAX)).unwrap_or_default();
        let mut filling = vec![b'A'; length];
        if fill == Fill::Random {
            dice::stream(seed, 0, Purpose::Payload).fill_bytes(&mut filling);
        }
        Self { given: Vec::new().into(), filling: filling.into(), fill }
    }

    /// The bytes of one call; those of a size beyond the filling are as many as there are.
    pub fn bytes(&self, body: Body) -> Bytes {
        match body {
            Body::Given(place) => {
                let place = usize::try_from(place).unwrap_or(usize::MAX);
                self.given.get(place).cloned().unwrap_or_default()
            }
            Body::Work(us) => format!("{:.3}", f64::from(us) / 1e3).into(),
            Body::Size(size) => {
                let size = usize::try_from(size).unwrap_or(usize::MAX).min(self.filling.len());
                match self.fill {
                    Fill::Letters | Fill::Random => self.filling.slice(..size),
                    Fill::Json => {
                        let letters = size.saturating_sub(JSON.0.len() + JSON.1.len());
                        [JSON.0, &self.filling[..letters], JSON.1].concat().into()
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn payloads_have_the_size_asked_for() {
        for fill in [Fill::Letters, Fill::Json, Fill::Random] {
            let payloads = Payloads::filled(fill, 1000, 7);
            for size in [12, 13, 100, 1000] {
                assert_eq!(payloads.bytes(Body::Size(size)).len(), size as usize, "{fill:?}");
            }
        }
        let json = Payloads::filled(Fill::Json, 100, 0);
        assert_eq!(json.bytes(Body::Size(15)), br#"{"input":"AAA"}"#.as_slice());
        // Shorter ones have no room for their frame.
        assert_eq!(json.bytes(Body::Size(0)), br#"{"input":""}"#.as_slice());
    }

    #[test]
    fn work_is_told_in_milliseconds() {
        let payloads = Payloads::filled(Fill::Letters, 0, 0);
        assert_eq!(payloads.bytes(Body::Work(12_500)), "12.500");
        assert_eq!(payloads.bytes(Body::Work(0)), "0.000");
    }

    #[test]
    fn payloads_in_order_start_over() {
        let mut dice = dice::stream(0, 0, Purpose::Choice);
        let mut turn = 1;
        let drawn: Vec<_> = (0..4).map(|_| Sizes::InOrder(3).draw(&mut dice, &mut turn)).collect();
        assert_eq!(drawn, [1, 2, 0, 1].map(Body::Given));
    }

    proptest! {
        #[test]
        fn any_text_of_sizes_is_judged_without_panic(text in "[0-9.,x -]{0,30}") {
            if let Ok(sizes) = text.parse::<Sizes>() {
                let mut dice = dice::stream(0, 0, Purpose::Choice);
                let Body::Size(bytes) = sizes.draw(&mut dice, &mut 0) else { panic!("a size") };
                prop_assert!(bytes <= PAYLOAD_BYTES_MAX);
            }
        }
    }
}
