//! The states of a call, as native functions reach them. All that a function may have of them was brought here before it ran,
//! so nothing waits; what it writes is kept with the call.

use bytes::Bytes;
use nigh_proto::module::abi;
use nigh_state::{Refusal, Session};
use wasmtime::{Caller, Extern, Linker};

use super::{Guest, range};

/// There is none.
const ABSENT: i64 = -1;
/// The function does not depend on it.
const UNDECLARED: i64 = -2;
/// It is more than the function may write.
const TOO_LARGE: i64 = -3;

pub(super) fn define(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap(abi::IMPORT_MODULE, abi::STATE_GET, get)?;
    linker.func_wrap(abi::IMPORT_MODULE, abi::STATE_PUT, put)?;
    linker.func_wrap(abi::IMPORT_MODULE, abi::STATE_DELETE, delete)?;
    Ok(())
}

/// `nigh::state_get_v1(name, name length, room, room length)`: the length of a state, which was written to the room if that is
/// long enough.
fn get(mut caller: Caller<'_, Guest>, name: u32, name_len: u32, room: u32, room_len: u32) -> wasmtime::Result<i64> {
    let (memory, guest) = memory(&mut caller)?;
    let outside = || wasmtime::Error::msg("state_get_v1 was given a name or room that does not lie in memory");
    let name = range(memory, name, name_len).ok_or_else(outside)?;
    let found = match with_states(guest, name, |states, name| states.get(name).map(Option::<&Bytes>::cloned)) {
        Ok(None) => return Ok(ABSENT),
        Ok(Some(found)) => found,
        Err(refusal) => return Ok(code(&refusal)),
    };
    if found.len() <= usize::try_from(room_len)? {
        let start = usize::try_from(room)?;
        let end = start.checked_add(found.len()).ok_or_else(outside)?;
        memory.get_mut(start..end).ok_or_else(outside)?.copy_from_slice(&found);
    }
    Ok(i64::try_from(found.len())?)
}

/// `nigh::state_put_v1(name, name length, content, content length)`: 0 where it will be written once the function has
/// answered.
fn put(
    mut caller: Caller<'_, Guest>,
    name: u32,
    name_len: u32,
    content: u32,
    content_len: u32,
) -> wasmtime::Result<i64> {
    let (memory, guest) = memory(&mut caller)?;
    let outside = || wasmtime::Error::msg("state_put_v1 was given a name or content that does not lie in memory");
    let name = range(memory, name, name_len).ok_or_else(outside)?;
    let content = range(memory, content, content_len).ok_or_else(outside)?;
    let done = with_states(guest, name, |states, name| {
        // Before it is copied.
        states.check(name, content.len())?;
        states.put(name, Bytes::copy_from_slice(content))
    });
    Ok(done.map_or_else(|refusal| code(&refusal), |()| 0))
}

/// `nigh::state_delete_v1(name, name length)`: 0 where it will be gone once the function has answered.
fn delete(mut caller: Caller<'_, Guest>, name: u32, name_len: u32) -> wasmtime::Result<i64> {
    let (memory, guest) = memory(&mut caller)?;
    let outside = || wasmtime::Error::msg("state_delete_v1 was given a name that does not lie in memory");
    let name = range(memory, name, name_len).ok_or_else(outside)?;
    let done = with_states(guest, name, |states, name| states.delete(name));
    Ok(done.map_or_else(|refusal| code(&refusal), |()| 0))
}

fn memory<'a>(caller: &'a mut Caller<'_, Guest>) -> wasmtime::Result<(&'a mut [u8], &'a mut Guest)> {
    let Some(Extern::Memory(memory)) = caller.get_export(abi::MEMORY) else {
        return Err(wasmtime::Error::msg("a state was asked for by a module without a memory"));
    };
    Ok(memory.data_and_store_mut(caller))
}

/// Does something with a state of this name. A name that is no text is none that could be declared.
fn with_states<T>(
    guest: &mut Guest,
    name: &[u8],
    work: impl FnOnce(&mut Session, &str) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let name = std::str::from_utf8(name).unwrap_or_default();
    match guest.states() {
        Some(states) => work(states, name),
        None => Err(Refusal::Undeclared(String::new())),
    }
}

fn code(refusal: &Refusal) -> i64 {
    match refusal {
        Refusal::Undeclared(_) => UNDECLARED,
        Refusal::TooLarge { .. } => TOO_LARGE,
    }
}
