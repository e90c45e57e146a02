//! What a JPEG file's markers tell before it is decoded: whether it is whole, and how much memory decoding takes.
//!
//! The decoder fills what is missing with grey and says nothing; faces would silently be missing with it.

/// What the markers of a file tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    /// The marker at the end of the image is there.
    pub(crate) is_whole: bool,
    /// Bytes that the decoder holds beside the decoded pixels: the coefficients of a file whose picture comes in several
    /// scans. 0 for the others.
    pub(crate) coefficient_bytes: u64,
}

const START_OF_SCAN: u8 = 0xda;
const END_OF_IMAGE: u8 = 0xd9;

/// Reads the markers of a file as far as they go.
pub(crate) fn survey(file: &[u8]) -> Survey {
    let mut survey = Survey::default();
    let (mut frame, mut scans) = (None, 0u32);
    let mut rest = file.get(2..).unwrap_or_default();
    while let [0xff, marker, after @ ..] = rest {
        rest = match *marker {
            END_OF_IMAGE => {
                survey.is_whole = true;
                break;
            }
            // Padding, and markers that stand alone.
            0xff => &rest[1..],
            0x01 | 0xd0..=0xd8 => after,
            _ => {
                let Some((segment, behind)) = segment(after) else { break };
                match *marker {
                    START_OF_SCAN => {
                        scans += 1;
                        skip_scan(behind)
                    }
                    // Frames: all but the tables DHT, JPG and DAC in their range.
                    0xc0..=0xcf if !matches!(*marker, 0xc4 | 0xc8 | 0xcc) => {
                        frame = frame.or_else(|| coefficient_bytes(segment));
                        behind
                    }
                    _ => behind,
                }
            }
        };
    }
    if scans > 1 {
        survey.coefficient_bytes = frame.unwrap_or(0);
    }
    survey
}

/// Splits a segment, whose length stands before it and counts itself, from what follows.
fn segment(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, _) = bytes.split_first_chunk()?;
    let (segment, rest) = bytes.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((segment.get(2..)?, rest))
}

/// Goes on to the next marker. In a scan 0xff is followed by 0, or by a restart marker.
fn skip_scan(bytes: &[u8]) -> &[u8] {
    let is_marker = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0 | 0xd0..=0xd7);
    bytes.windows(2).position(is_marker).map_or(&[], |at| &bytes[at..])
}

/// Two bytes for each sample of a frame.
fn coefficient_bytes(frame: &[u8]) -> Option<u64> {
    let [_precision, h1, h2, w1, w2, count, components @ ..] = frame else { return None };
    let pixels = u64::from(u16::from_be_bytes([*h1, *h2])) * u64::from(u16::from_be_bytes([*w1, *w2]));
    let samplings = components
        .chunks_exact(3)
        .take(usize::from(*count))
        .map(|component| (u64::from(component[1] >> 4), u64::from(component[1] & 0xf)));
    let across = samplings.clone().map(|(across, _)| across).max()?;
    let down = samplings.clone().map(|(_, down)| down).max()?;
    let samples: u64 = samplings.map(|(across, down)| across * down).sum();
    Some((pixels * samples * 2).div_ceil((across * down).max(1)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PORTRAIT: &[u8] = include_bytes!("../tests/data/grace_hopper.jpg");

    #[test]
    fn a_file_is_whole_only_to_its_end() {
        assert_eq!(survey(PORTRAIT), Survey { is_whole: true, coefficient_bytes: 0 });
        for cut in (0..PORTRAIT.len()).step_by(97).chain([PORTRAIT.len() - 1]) {
            assert!(!survey(&PORTRAIT[..cut]).is_whole, "cut at {cut}");
        }
    }

    #[test]
    fn several_scans_take_memory_for_their_coefficients() {
        let frame = [0xff, 0xc2, 0, 17, 8, 0, 100, 0, 200, 3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1];
        let scan = [0xff, 0xda, 0, 2, 1, 2, 0xff, 0, 3, 0xff, 0xd0, 4];
        let end = [0xff, 0xd9];
        let one = [&[0xff, 0xd8], &frame[..], &scan, &end].concat();
        assert_eq!(survey(&one), Survey { is_whole: true, coefficient_bytes: 0 });
        let two = [&[0xff, 0xd8], &frame[..], &scan, &scan, &end].concat();
        assert_eq!(survey(&two), Survey { is_whole: true, coefficient_bytes: 200 * 100 * 3 });
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            survey(&bytes);
            survey(&[&[0xff, 0xd8, 0xff, 0xc2, 0, 17], bytes.as_slice()].concat());
        }
    }
}
