//! From a core module with component bindings to a component: what a Rust package that handles HTTP requests by WASI 0.2
//! is compiled to, and what deploys.

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmparser::{Parser, Payload};
use wit_component::ComponentEncoder;

/// The custom sections in which bindings leave word of the component that they are for begin so.
const BINDINGS: &str = "component-type";

/// Whether a core module is meant to become a component.
pub(super) fn is_wanted(module: &[u8]) -> bool {
    let mut payloads = Parser::new(0).parse_all(module);
    payloads
        .any(|payload| matches!(payload, Ok(Payload::CustomSection(section)) if section.name().starts_with(BINDINGS)))
}

/// Makes it one. What its standard library asks of WASI p1 is answered by an adapter within the component.
pub(super) fn encode(module: &[u8]) -> Result<Vec<u8>, String> {
    let encode = || {
        ComponentEncoder::default()
            .module(module)?
            .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)?
            .validate(true)
            .encode()
    };
    encode().map_err(|error: anyhow::Error| format!("{error:#}"))
}
