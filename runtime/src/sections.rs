//! A component taken over section by section, some of them changed on the way.

use std::borrow::Cow;

use wasm_encoder::{Component, RawSection};
use wasmparser::{BinaryReaderError, Parser, Payload};

/// The sections of the outermost component, each as `form` makes it of what it holds.
pub(crate) fn taken_over<'a>(
    component: &'a [u8],
    mut form: impl FnMut(&Payload<'_>, &'a [u8]) -> Result<Cow<'a, [u8]>, BinaryReaderError>,
) -> Result<Component, BinaryReaderError> {
    let mut taken = Component::new();
    let mut depth = 0u32;
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload?;
        match &payload {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            _ => {}
        }
        let Some((id, range)) = payload.as_section().filter(|_| depth == 1) else { continue };
        let data = form(&payload, &component[range])?;
        taken.section(&RawSection { id, data: &data });
    }
    Ok(taken)
}
