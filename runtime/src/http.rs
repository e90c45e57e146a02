//! Http functions: components that handle requests by `wasi:http/incoming-handler`, from any toolchain. They run on the
//! crew as every guest does, under the same limits; their bodies travel in parts while they run.
//!
//! `instance` is the life of one, `renewal` its being made as new in place, `ahead` the making of another in its stead before a call asks for it, `guest` what it may touch, `outgoing` the requests that it sends itself, `answer` what
//! its caller gets to see, `keyvalue` its states, `engine` the engine that components have for themselves.

mod ahead;
mod answer;
mod body;
pub(crate) mod engine;
mod guest;
mod instance;
mod keyvalue;
mod outgoing;
mod renewal;

use std::sync::OnceLock;

use bytes::Bytes;
use nigh_proto::exchange::{Body, RequestHead, whole_body};
use nigh_proto::{Call, PlatformError, Reason};
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::{Component, ComponentExportIndex, HasData, InstancePre, Linker, ResourceTable};
use wasmtime_wasi::p2::bindings::io;
use wasmtime_wasi_http::p2::bindings::{Proxy, ProxyIndices};

use crate::error::{Error, PrepareError};
use crate::reset::Image;

use ahead::Ahead;
pub(crate) use answer::{About, Answered, answering, begin, whole};
use guest::Guest;
pub(crate) use instance::{Instance, run_fresh};
pub(crate) use outgoing::Outgoing;
use renewal::Renew;

/// What components can import, looked up once for each version.
pub(crate) type Imports = Linker<Guest>;

/// An http function's component, ready to be instantiated.
pub(crate) struct Http {
    pre: InstancePre<Guest>,
    proxy: ProxyIndices,
    /// The export that makes an instance as new, where it has one.
    renew: Option<ComponentExportIndex>,
    /// What the memory of a new instance holds, once that was looked at; nothing where instances cannot be made as new.
    image: OnceLock<Option<Image>>,
    ahead: Ahead,
}

/// A request for an http function.
pub(crate) struct Incoming {
    pub(crate) head: RequestHead,
    pub(crate) body: Body,
    /// Told once, when the function begins to answer.
    pub(crate) answer: oneshot::Sender<Answered>,
}

impl Http {
    /// Finds what the component imports and exports.
    pub(crate) fn prepare(imports: &Imports, component: &Component) -> Result<Self, PrepareError> {
        let unfit = |error: wasmtime::Error| PrepareError::Imports(format!("{error:#}"));
        let pre = imports.instantiate_pre(component).map_err(unfit)?;
        let proxy = ProxyIndices::new(&pre).map_err(unfit)?;
        let renew = renewal::export_of(component);
        let image = if renew.is_some() { OnceLock::new() } else { OnceLock::from(None) };
        Ok(Self { pre, proxy, renew, image, ahead: Ahead::default() })
    }

    /// Whether instances can be made as new in place.
    fn can_renew(&self) -> bool {
        matches!(self.image.get(), Some(Some(_)))
    }

    /// Makes an instance, which runs what it runs to begin with.
    async fn instantiate(&self, store: &mut Store<Guest>) -> wasmtime::Result<(Proxy, Option<Renew>)> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        let proxy = self.proxy.load(&mut *store, &instance)?;
        let renew = self.renew.as_ref().map(|export| instance.get_typed_func(&mut *store, export)).transpose()?;
        if let Some(renew) = &renew {
            // The first time it keeps what is to be given back.
            renew.call_async(&mut *store, (0,)).await?;
        }
        Ok((proxy, renew))
    }
}

/// What streams need of a guest: its resources.
struct Io;

impl HasData for Io {
    type Data<'a> = &'a mut ResourceTable;
}

/// Everything that http functions can import: WASI 0.2 with its HTTP, and keys and values. What of it leads anywhere is decided by each
/// instance's context.
pub(crate) fn imports(engine: &wasmtime::Engine) -> Result<Imports, Error> {
    let mut linker = Linker::new(engine);
    let define = |linker: &mut Imports| {
        wasmtime_wasi::p2::add_to_linker_async(linker)?;
        // Of streams WASI's own asks for all of the context, which most components never need.
        linker.allow_shadowing(true);
        io::error::add_to_linker::<Guest, Io>(linker, Guest::resources)?;
        io::poll::add_to_linker::<Guest, Io>(linker, Guest::resources)?;
        io::streams::add_to_linker::<Guest, Io>(linker, Guest::resources)?;
        linker.allow_shadowing(false);
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
        keyvalue::define(linker)?;
        renewal::define(linker)
    };
    define(&mut linker).map_err(|error| Error::Engine(format!("{error:#}")))?;
    Ok(linker)
}

/// The request that a call without one of its own stands for: its payload, posted to `/` with its headers.
pub(crate) fn request_of(call: &mut Call) -> Result<(RequestHead, Body), PlatformError> {
    let mut headers = http::HeaderMap::new();
    for (name, value) in call.headers.iter() {
        let (Ok(header), Ok(value)) = (http::HeaderName::try_from(name), http::HeaderValue::from_str(value)) else {
            return Err(PlatformError::malformed(format!("header {name:?} cannot be one of an HTTP request")));
        };
        headers.append(header, value);
    }
    nigh_proto::exchange::remove_hop_by_hop(&mut headers);
    headers.insert(http::header::CONTENT_LENGTH, call.payload.len().into());
    let head = RequestHead {
        method: http::Method::POST,
        path: http::uri::PathAndQuery::from_static("/"),
        authority: call.function.as_str().to_owned(),
        headers,
    };
    let payload: Bytes = std::mem::take(&mut call.payload);
    Ok((head, whole_body(payload)))
}

/// Refuses a request that announces more than its function takes.
pub(crate) fn check_length(head: &RequestHead, payload_bytes_max: u64) -> Result<(), PlatformError> {
    match head.announced_bytes() {
        Some(bytes) if bytes > payload_bytes_max => {
            let message = format!(
                "a body of {bytes} bytes; the function takes at most {payload_bytes_max}; deploy it with a larger --payload"
            );
            Err(PlatformError::new(Reason::TooLarge, message))
        }
        _ => Ok(()),
    }
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("head", &self.head).finish_non_exhaustive()
    }
}
