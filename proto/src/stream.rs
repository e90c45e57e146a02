//! `InvokeStream` on both sides: many calls on one stream, payloads in parts. [`callee`] serves one, [`caller`] makes calls over
//! one, and [`pipeline`] is how a peer is called: by itself where a call is alone or large, over a kept stream otherwise.

pub(crate) mod callee;
mod caller;
mod pipeline;

use std::time::Duration;

use bytes::Bytes;

use crate::v1;

pub use caller::{CallStream, StreamLimits};
pub use pipeline::Pipeline;

/// Time to open a stream.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a payload in one frame: so many hold up the other calls of a stream.
const PART_BYTES: usize = 64 << 10;

/// Cuts a payload into the parts of a stream, so that no frame is larger than others can pass by.
pub fn parts(mut payload: Bytes) -> impl Iterator<Item = v1::PayloadPart> {
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let data = payload.split_to(payload.len().min(PART_BYTES));
        ended = payload.is_empty();
        Some(v1::PayloadPart { data, more: !ended })
    })
}

#[cfg(test)]
mod tests;
