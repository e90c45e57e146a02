//! What a JPEG's markers say before anything is decoded: its size, what decoding holds in memory, and whether the file is
//! whole. The decoder itself fills what is missing with grey.
//!
//! Markers and segments are those of ITU-T T.81, annex B.

const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const TEM: u8 = 0x01;

/// Facts from the frame header and the first scan's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Horizontal and vertical sampling factors of each component, 1 to 4.
    sampling: Vec<(u8, u8)>,
    /// Whether all coefficients are kept until the last scan: progressive, or a scan for each component.
    keeps_coefficients: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The file ends before its end-of-image marker.
    Truncated,
    /// The markers are not those of a JPEG that can be decoded.
    Malformed(&'static str),
}

impl Facts {
    /// Bytes that decoding holds at once, the file itself not counted.
    pub(crate) fn decoding_bytes(&self) -> u64 {
        let channels = if self.sampling.len() == 1 { 1 } else { 3 };
        let pixels = u64::from(self.width) * u64::from(self.height) * channels;
        if !self.keeps_coefficients {
            return pixels;
        }
        let most = |of: fn(&(u8, u8)) -> u8| u64::from(self.sampling.iter().map(of).max().unwrap_or(1));
        let units =
            u64::from(self.width).div_ceil(8 * most(|s| s.0)) * u64::from(self.height).div_ceil(8 * most(|s| s.1));
        let blocks: u64 = self.sampling.iter().map(|&(across, down)| u64::from(across) * u64::from(down)).sum();
        // A block has 64 coefficients of two bytes.
        pixels + units * blocks * 64 * 2
    }
}

/// Walks all markers up to the end of the image.
pub(crate) fn inspect(file: &[u8]) -> Result<Facts, Fault> {
    if !file.starts_with(&[0xff, SOI]) {
        return Err(Fault::Malformed("it does not begin with a start-of-image marker"));
    }
    let mut frame = None;
    let mut seen_scan = false;
    let mut rest = &file[2..];
    loop {
        let marker = next_marker(&mut rest)?;
        match marker {
            EOI if seen_scan => return frame.ok_or(Fault::Malformed("it has no frame header")),
            EOI => return Err(Fault::Malformed("it has no scan")),
            // Markers without a segment: restarts, and leftovers that decoders skip.
            TEM | 0xd0..=SOI => continue,
            _ => {}
        }
        let segment = take_segment(&mut rest)?;
        match marker {
            // Start of frame; c4, c8 and cc among them are something else.
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                if frame.is_some() {
                    return Err(Fault::Malformed("it has more than one frame header"));
                }
                frame = Some(frame_header(marker, segment)?);
            }
            SOS => {
                let facts = frame.as_mut().ok_or(Fault::Malformed("it has a scan before its frame header"))?;
                let components = usize::from(*segment.first().ok_or(Fault::Malformed("it has an empty scan header"))?);
                facts.keeps_coefficients |= components < facts.sampling.len();
                seen_scan = true;
            }
            _ => {}
        }
    }
}

/// Skips entropy-coded data, stuffed bytes and fill bytes up to the next marker.
fn next_marker(rest: &mut &[u8]) -> Result<u8, Fault> {
    loop {
        let at = rest.iter().position(|&byte| byte == 0xff).ok_or(Fault::Truncated)?;
        *rest = &rest[at + 1..];
        match *rest.first().ok_or(Fault::Truncated)? {
            0x00 => {} // a data byte of 0xff
            0xff => {} // fill
            marker => {
                *rest = &rest[1..];
                return Ok(marker);
            }
        }
    }
}

/// The segment after a marker, without its length.
fn take_segment<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Fault> {
    let len = rest.first_chunk::<2>().map(|len| usize::from(u16::from_be_bytes(*len))).ok_or(Fault::Truncated)?;
    if len < 2 {
        return Err(Fault::Malformed("it has a segment of an impossible length"));
    }
    let (segment, after) = rest.split_at_checked(len).ok_or(Fault::Truncated)?;
    *rest = after;
    Ok(&segment[2..])
}

fn frame_header(marker: u8, segment: &[u8]) -> Result<Facts, Fault> {
    // Precision, height, width, number of components; then for each its id, sampling factors and table.
    let [_, h1, h0, w1, w0, components, specifications @ ..] = segment else {
        return Err(Fault::Malformed("its frame header is too short"));
    };
    let sampling: Vec<_> =
        specifications.chunks_exact(3).take(usize::from(*components)).map(|one| (one[1] >> 4, one[1] & 15)).collect();
    let size = (u16::from_be_bytes([*w1, *w0]), u16::from_be_bytes([*h1, *h0]));
    if sampling.is_empty() || sampling.len() != usize::from(*components) || size.0 == 0 || size.1 == 0 {
        return Err(Fault::Malformed("its frame header has no size or no components"));
    }
    if sampling.iter().any(|&(across, down)| !(1..=4).contains(&across) || !(1..=4).contains(&down)) {
        return Err(Fault::Malformed("its frame header has sampling factors that do not exist"));
    }
    let keeps_coefficients = !matches!(marker, 0xc0 | 0xc1);
    Ok(Facts { width: size.0.into(), height: size.1.into(), sampling, keeps_coefficients })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file of markers only: start, frame of these components, scans of so many components each, end.
    fn file(frame: u8, size: (u16, u16), sampling: &[u8], scans: &[u8]) -> Vec<u8> {
        let count = u8::try_from(sampling.len()).unwrap();
        let mut file = vec![0xff, SOI, 0xff, frame, 0, 8 + 3 * count, 8];
        file.extend(size.1.to_be_bytes());
        file.extend(size.0.to_be_bytes());
        file.push(count);
        for (id, factors) in (1..).zip(sampling) {
            file.extend([id, *factors, 0]);
        }
        for components in scans {
            file.extend([0xff, SOS, 0, 3, *components, 0x12, 0xff, 0x00, 0xff, 0xd0, 0x34]);
        }
        file.extend([0xff, EOI]);
        file
    }

    #[test]
    fn what_decoding_holds_follows_from_the_headers() {
        let bytes = |frame, sampling: &[u8], scans: &[u8]| {
            inspect(&file(frame, (160, 80), sampling, scans)).unwrap().decoding_bytes()
        };
        let pixels = 160 * 80;
        assert_eq!(bytes(0xc0, &[0x11], &[1]), pixels, "grey");
        assert_eq!(bytes(0xc0, &[0x22, 0x11, 0x11], &[3]), 3 * pixels, "colour");
        assert_eq!(
            bytes(0xc2, &[0x22, 0x11, 0x11], &[3, 1, 1, 1]),
            3 * pixels + 2 * pixels * 3 / 2,
            "progressive 4:2:0"
        );
        assert_eq!(bytes(0xc2, &[0x11, 0x11, 0x11], &[3, 1]), 9 * pixels, "progressive 4:4:4");
        assert_eq!(bytes(0xc0, &[0x11, 0x11, 0x11], &[1, 1, 1]), 9 * pixels, "one scan for each component");
    }

    #[test]
    fn a_file_is_whole_only_with_its_end_marker() {
        let whole = file(0xc0, (16, 16), &[0x11], &[1]);
        for cut in 2..whole.len() {
            assert_eq!(inspect(&whole[..cut]), Err(Fault::Truncated), "cut at {cut}");
        }
        assert!(inspect(&[whole, b"trailing data".to_vec()].concat()).is_ok());
    }

    #[test]
    fn impossible_headers_are_malformed() {
        for odd in [
            file(0xc0, (0, 16), &[0x11], &[1]),
            file(0xc0, (16, 0), &[0x11], &[1]),
            file(0xc0, (16, 16), &[], &[1]),
            file(0xc0, (16, 16), &[0x01], &[1]),
            file(0xc0, (16, 16), &[0x15], &[1]),
            file(0xc0, (16, 16), &[0x11], &[]),
            vec![0xff, SOI, 0xff, SOS, 0, 3, 1, 0xff, EOI],
        ] {
            assert!(matches!(inspect(&odd), Err(Fault::Malformed(_))), "{odd:x?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_panic(bytes: Vec<u8>, at in any::<prop::sample::Index>(), byte: u8) {
            let _ = inspect(&[&[0xff, SOI], bytes.as_slice()].concat());
            let mut damaged = file(0xc2, (64, 64), &[0x22, 0x11, 0x11], &[3, 1, 1]);
            let index = at.index(damaged.len());
            damaged[index] = byte;
            if let Ok(facts) = inspect(&damaged) {
                let _ = facts.decoding_bytes();
            }
        }
    }
}
