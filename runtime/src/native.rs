//! The native ABI, from the host's side: the request written into guest memory, the answer read out of it. The guest is
//! not trusted with a single number; the guest's side is documented in the SDK.

use std::sync::Arc;

use bytes::Bytes;
use nigh_proto::call::{HEADERS_BYTES_MAX, HEADERS_MAX};
use nigh_proto::module::abi;
use nigh_proto::{Headers, Outcome};
use wasmtime::{AsContextMut as _, Extern, InstancePre, Linker, Memory, Module, ModuleExport, Store, TypedFunc};

use crate::error::PrepareError;
use crate::host::{Guest, range};
use crate::outcome::{self, Failure};
use crate::reset::{Pristine, Ran, State};

/// Bytes of the descriptor that a handler returns the address of: five `u32`.
const DESCRIPTOR_BYTES: u32 = 20;
/// Bytes that a header takes in a head beside its text.
const HEADER_BYTES: usize = 8;
/// Bytes of a head at most: what headers may hold, and their lengths.
const HEAD_BYTES_MAX: usize = HEADERS_BYTES_MAX + 4 + HEADERS_MAX * HEADER_BYTES;

/// A native module, its exports found.
pub(crate) struct Native {
    pre: InstancePre<Guest>,
    memory: ModuleExport,
    alloc: ModuleExport,
    handle: ModuleExport,
    initialize: Option<ModuleExport>,
    /// What a new instance is like, where instances can be reset.
    pristine: Option<Arc<Pristine>>,
}

/// One instance's entry.
pub(crate) struct Entry {
    /// What it was like when it was new, and where that is, if it can be reset.
    state: Option<Box<(Arc<Pristine>, State)>>,
    initialize: Option<TypedFunc<(), ()>>,
    memory: Memory,
    alloc: TypedFunc<u32, u32>,
    handle: TypedFunc<(u32, u32), u32>,
}

impl Native {
    /// Finds the exports and checks their signatures.
    pub(crate) fn prepare(linker: &Linker<Guest>, module: &Module) -> Result<Self, PrepareError> {
        let pre = linker.instantiate_pre(module).map_err(|error| PrepareError::Imports(format!("{error:#}")))?;
        let function = |name, params: usize, results: usize, expected| {
            let export = module.get_export(name);
            let fits = export.as_ref().and_then(wasmtime::ExternType::func).is_some_and(|func| {
                func.params().len() == params
                    && func.results().len() == results
                    && func.params().chain(func.results()).all(|value| value.is_i32())
            });
            let index = module.get_export_index(name).filter(|_| fits);
            index.ok_or(PrepareError::Signature { export: name, expected })
        };
        let initialize = match module.get_export(abi::INITIALIZE) {
            Some(_) => Some(function(abi::INITIALIZE, 0, 0, "a function without parameters and results")?),
            None => None,
        };
        let memory = module.get_export(abi::MEMORY).is_some_and(|export| export.memory().is_some());
        let memory = module.get_export_index(abi::MEMORY).filter(|_| memory);
        Ok(Self {
            pre,
            memory: memory.ok_or(PrepareError::Signature { export: abi::MEMORY, expected: "a memory" })?,
            alloc: function(abi::ALLOC, 1, 1, "a function (i32) -> i32")?,
            handle: function(abi::HANDLE, 2, 1, "a function (i32, i32) -> i32")?,
            initialize,
            pristine: Pristine::of(module).map(Arc::new),
        })
    }

    /// Makes an instance, still to be initialised.
    pub(crate) async fn instantiate(&self, store: &mut Store<Guest>) -> wasmtime::Result<Entry> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        let mut export = |export: &ModuleExport| instance.get_module_export(&mut *store, export);
        let (memory, alloc, handle) = (export(&self.memory), export(&self.alloc), export(&self.handle));
        let initialize = self.initialize.as_ref().and_then(export).and_then(Extern::into_func);
        let missing = || wasmtime::Error::msg("an export found when the module was prepared is gone");
        let memory = memory.and_then(Extern::into_memory).ok_or_else(missing)?;
        let alloc = alloc.and_then(Extern::into_func).ok_or_else(missing)?.typed(&mut *store)?;
        let handle = handle.and_then(Extern::into_func).ok_or_else(missing)?.typed(&mut *store)?;
        let initialize = initialize.map(|initialize| initialize.typed(&mut *store)).transpose()?;
        let pristine = self.pristine.as_ref();
        let state =
            pristine.and_then(|pristine| Some(Box::new((pristine.clone(), pristine.state_of(&mut *store, instance)?))));
        Ok(Entry { state, initialize, memory, alloc, handle })
    }
}

impl std::fmt::Debug for Native {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Native").finish_non_exhaustive()
    }
}

impl Entry {
    /// Initialises the instance, once before its first call.
    pub(crate) async fn initialize(&self, store: &mut Store<Guest>) -> wasmtime::Result<()> {
        match &self.initialize {
            Some(initialize) => initialize.call_async(store, ()).await,
            None => Ok(()),
        }
    }

    /// Whether the instance can be reset.
    pub(crate) fn can_be_reset(&self) -> bool {
        self.state.is_some()
    }

    /// Makes the instance as new that a call ran in, still to be initialised; says whether it is. One that is not must not be
    /// used again.
    pub(crate) fn reset(&mut self, ran: Ran, store: &mut Store<Guest>) -> bool {
        self.state.as_deref_mut().is_some_and(|(pristine, state)| pristine.restore(state, ran, store))
    }

    /// Runs the handler on one request.
    pub(crate) async fn call(
        &self,
        store: &mut Store<Guest>,
        payload: &Bytes,
        headers: &Headers,
        answer_bytes_max: u64,
    ) -> Result<Outcome, Failure> {
        let head_len = head_bytes(headers);
        let total = payload.len().checked_add(head_len).and_then(|total| u32::try_from(total).ok());
        let too_large = || outcome::error("too-large", "the request is over what a Wasm memory can address");
        let (Some(total), Ok(payload_len), Ok(head_len)) =
            (total, u32::try_from(payload.len()), u32::try_from(head_len))
        else {
            return Ok(too_large());
        };
        let address = self.alloc.call_async(&mut *store, total).await?;
        let memory = self.memory.data_mut(store.as_context_mut());
        let Some(inbox) = range_mut(memory, address, total) else {
            let message = format!(
                "{} returned {address}, where {total} bytes do not lie in memory; is the module built with nigh-sdk?",
                abi::ALLOC
            );
            return Ok(outcome::error("malformed-answer", message));
        };
        let (room, head) = inbox.split_at_mut(payload.len());
        room.copy_from_slice(payload);
        write_head(head, headers);
        let descriptor = self.handle.call_async(&mut *store, (payload_len, head_len)).await?;
        Ok(read_answer(self.memory.data(&*store), descriptor, answer_bytes_max))
    }

    /// Bytes of the instance's memory.
    pub(crate) fn memory_bytes(&self, store: &Store<Guest>) -> usize {
        self.memory.data_size(store)
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").finish_non_exhaustive()
    }
}

fn range_mut(memory: &mut [u8], address: u32, len: u32) -> Option<&mut [u8]> {
    let start = usize::try_from(address).ok()?;
    memory.get_mut(start..start.checked_add(usize::try_from(len).ok()?)?)
}

fn head_bytes(headers: &Headers) -> usize {
    4 + headers.iter().map(|(name, value)| HEADER_BYTES + name.len() + value.len()).sum::<usize>()
}

/// Fills `head`, which is of just the size of the headers.
fn write_head(head: &mut [u8], headers: &Headers) {
    let mut rest = head;
    let mut put = |bytes: &[u8]| {
        let (room, left) = std::mem::take(&mut rest).split_at_mut(bytes.len());
        room.copy_from_slice(bytes);
        rest = left;
    };
    // Both are within the limits of `Headers`, far below 2^32.
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    put(&number(headers.iter().len()));
    for (name, value) in headers.iter() {
        put(&number(name.len()));
        put(&number(value.len()));
        put(name.as_bytes());
        put(value.as_bytes());
    }
}

/// Reads what a handler left behind: `status, head address, head length, body address, body length`.
fn read_answer(memory: &[u8], descriptor: u32, answer_bytes_max: u64) -> Outcome {
    let malformed = |what: &str| {
        let message = format!("the function's answer is malformed: {what}; is the module built with nigh-sdk?");
        outcome::error("malformed-answer", message)
    };
    let Some(words) = range(memory, descriptor, DESCRIPTOR_BYTES) else {
        return malformed("its descriptor does not lie in memory");
    };
    let (words, _) = words.as_chunks::<4>();
    let [status, head_at, head_len, body_at, body_len] = std::array::from_fn(|at| u32::from_le_bytes(words[at]));
    let (Some(head), Some(body)) = (range(memory, head_at, head_len), range(memory, body_at, body_len)) else {
        return malformed("it does not lie in memory");
    };
    match status {
        0 if u64::from(body_len) > answer_bytes_max => outcome::answer_too_large(answer_bytes_max),
        0 if head.len() > HEAD_BYTES_MAX => malformed("its headers are over their limit"),
        0 => match read_head(head).map(Headers::new) {
            None => malformed("its headers cannot be read"),
            Some(Err(error)) => malformed(&error.message),
            Some(Ok(headers)) => Outcome::Answer { payload: Bytes::copy_from_slice(body), headers },
        },
        1 => outcome::function_error(head, body),
        _ => malformed("its status is neither 0 nor 1"),
    }
}

fn read_head(mut head: &[u8]) -> Option<Vec<(String, String)>> {
    let count = take_u32(&mut head)?;
    let mut headers = Vec::new();
    for _ in 0..count {
        let (name_len, value_len) = (take_u32(&mut head)?, take_u32(&mut head)?);
        let name = take_text(&mut head, name_len)?;
        headers.push((name, take_text(&mut head, value_len)?));
    }
    head.is_empty().then_some(headers)
}

fn take_u32(from: &mut &[u8]) -> Option<u32> {
    let (number, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(u32::from_le_bytes(*number))
}

fn take_text(from: &mut &[u8], len: u32) -> Option<String> {
    let (text, rest) = from.split_at_checked(usize::try_from(len).ok()?)?;
    *from = rest;
    Some(std::str::from_utf8(text).ok()?.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind(outcome: &Outcome) -> &str {
        match outcome {
            Outcome::Answer { .. } => "answer",
            Outcome::Error { kind, .. } => kind,
            Outcome::Estimate(_) => "estimate",
        }
    }

    fn memory(descriptor: [u32; 5]) -> Vec<u8> {
        let mut memory = vec![0; 256];
        for (at, word) in descriptor.iter().enumerate() {
            memory[4 * at..4 * at + 4].copy_from_slice(&word.to_le_bytes());
        }
        memory
    }

    #[test]
    fn answers_are_judged() {
        let judge = |descriptor| kind(&read_answer(&memory(descriptor), 0, 64)).to_owned();
        assert_eq!(judge([0, 100, 4, 104, 64]), "answer");
        assert_eq!(judge([0, 100, 4, 104, 65]), "answer-too-large");
        assert_eq!(judge([0, 100, 4, 255, 1]), "answer");
        for hostile in [
            [0, 100, 4, 255, 2],
            [0, 100, 4, u32::MAX, u32::MAX],
            [0, 100, 4, 1, u32::MAX],
            [0, 100, 0, 0, 0],
            [2, 100, 4, 0, 0],
            [1, 0, 300, 0, 0],
        ] {
            assert_eq!(judge(hostile), "malformed-answer", "{hostile:?}");
        }
        assert_eq!(kind(&read_answer(&memory([0; 5]), 237, 64)), "malformed-answer");
        assert_eq!(kind(&read_answer(&memory([0; 5]), u32::MAX, 64)), "malformed-answer");
    }

    proptest! {
        #[test]
        fn any_memory_is_judged_without_panic(
            memory in prop::collection::vec(any::<u8>(), 0..512),
            descriptor in prop_oneof![0u32..600, any::<u32>()],
            words: [u16; 5],
        ) {
            let _ = read_answer(&memory, descriptor, 100);
            let mut memory = memory;
            memory.resize(1 << 16, 0);
            for (at, word) in words.iter().enumerate() {
                memory[4 * at..4 * at + 4].copy_from_slice(&u32::from(*word).to_le_bytes());
            }
            let _ = read_answer(&memory, 0, 1 << 15);
        }

        #[test]
        fn heads_come_back_as_they_went(headers in prop::collection::vec(("[a-z]{1,9}", "[ -~]{0,20}"), 0..9)) {
            let headers = Headers::new(headers).unwrap();
            let mut head = vec![0; head_bytes(&headers)];
            write_head(&mut head, &headers);
            prop_assert_eq!(Headers::new(read_head(&head).unwrap()).unwrap(), headers);
        }
    }
}
