//! Making a component's instance as new in place, with the help of what was added to it when it was compiled
//! (`expose::component`): that gives its globals back and puts its table of handles in order, the host puts its memory
//! back and lets go of whatever it holds for the calls before.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use wasmtime::component::{Component, ComponentExportIndex, Linker, TypedFunc, WasmList};
use wasmtime::{Store, StoreContextMut};

use crate::expose::{RENEW, RENEWAL, SHOW};
use crate::pages;
use crate::reset::Image;

/// Handles that an instance may have had at once and still be made as new in place.
pub(super) const HANDLES_MAX: u32 = 256;

/// How instances of a component are made as new.
pub(super) type Renew = TypedFunc<(u32,), (u32,)>;

/// Where an instance's memory was when it was last shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    address: usize,
    bytes: usize,
}

/// Who remembers where the memory of an instance is.
pub(super) trait Remembers {
    fn shown(&mut self) -> &mut Option<Shown>;
}

/// Defines what the addition to components imports.
pub(super) fn define<T: Remembers>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    let mut renewal = linker.instance(RENEWAL)?;
    renewal.func_wrap(SHOW, |mut store: StoreContextMut<'_, T>, (memory,): (WasmList<u8>,)| {
        let memory = memory.as_le_slice(&store);
        let shown = Shown { address: memory.as_ptr().expose_provenance(), bytes: memory.len() };
        *store.data_mut().shown() = Some(shown);
        Ok(())
    })
}

/// Where a component has the export for it, if it has any.
pub(super) fn export_of(component: &Component) -> Option<ComponentExportIndex> {
    component.get_export_index(None, RENEW)
}

/// What the memory of an instance just made holds, which is of no further use.
pub(super) fn image_of(mut store: Store<impl Remembers>) -> Option<Image> {
    let looked_at = |memory: &mut [u8]| {
        let image = Image::of(memory);
        // The next instance will most likely have this one's memory.
        if let Err(error) = pages::give_back(memory) {
            tracing::debug!(%error, "the memory that was looked at keeps its pages");
        }
        image
    };
    with_memory(&mut store, looked_at).flatten()
}

/// Makes an instance as new that has had so many handles at once, at most, and has none now; `restore` does so with its memory.
/// Says whether it is as new. One that is not must not be used again.
pub(super) fn renew<T: Remembers + Send>(
    store: &mut Store<T>,
    renew: &Renew,
    handles: u32,
    restore: impl FnOnce(&mut [u8]) -> bool,
) -> bool {
    *store.data_mut().shown() = None;
    let done = pin!(renew.call_async(&mut *store, (handles,))).poll(&mut Context::from_waker(Waker::noop()));
    matches!(done, Poll::Ready(Ok((1,)))) && with_memory(store, restore).unwrap_or(false)
}

/// Lends the memory that an instance has just shown.
#[expect(unsafe_code, reason = "nothing else leads to the memory of a component")]
fn with_memory<T>(store: &mut Store<impl Remembers>, use_it: impl FnOnce(&mut [u8]) -> T) -> Option<T> {
    let shown = store.data_mut().shown().take()?;
    // SAFETY: these are the address and length of the memory of an instance in this store, as they were when it showed it:
    // it was asked to by this very thread, nothing of it has run since, and so the memory neither grew nor moved. It is the
    // engine's own mapping, which the engine reaches by raw pointers alone; the store, through which a guest or the engine
    // would, stays borrowed for as long as the slice lives.
    let memory =
        unsafe { std::slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut(shown.address), shown.bytes) };
    Some(use_it(memory))
}

#[cfg(test)]
#[path = "renewal_tests.rs"]
mod tests;
