//! What a step is given that comes after several others.

use bytes::{Bytes, BytesMut};
use nigh_proto::{Headers, NodeName, PlatformError};

/// The header that tells of one answer within a payload of several: `STEP=BYTES`. They stand in the order of the parts.
pub const PART_HEADER: &str = "nigh-part";

/// Answers as one payload, with a header for each.
///
/// # Errors
/// Where there are too many for the headers.
pub(crate) fn joined(parts: &[(&NodeName, &Bytes)]) -> Result<(Bytes, Headers), PlatformError> {
    let mut payload = BytesMut::with_capacity(parts.iter().map(|(_, part)| part.len()).sum());
    parts.iter().for_each(|(_, part)| payload.extend_from_slice(part));
    let header = |(name, part): &(&NodeName, &Bytes)| (PART_HEADER.to_owned(), format!("{name}={}", part.len()));
    Ok((payload.freeze(), Headers::new(parts.iter().map(header).collect())?))
}
