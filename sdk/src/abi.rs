//! The guest's half of the native ABI, version 1. Not for functions to call: [`function!`](crate::function!) does.
//!
//! The host calls `nigh_alloc_v1(payload_len + head_len)` and writes the payload, then the head, to the address it is
//! given; `nigh_handle_v1(payload_len, head_len)` returns the address of five `u32`: status (0 answer, 1 error), then
//! address and length of two byte strings. For an answer these are head and payload, for an error kind and message.
//!
//! A head is `u32` count, then for each header `u32` name length, `u32` value length, name, value; little endian, UTF-8.
//! The payload stands first so that it becomes the request's `Vec` without a copy. Imports, from module `nigh`:
//! `log_v1(level, address, length)`, where level 0 carries the message of a panic; and for states, whose names are an address
//! and a length each, `state_get_v1(name, room, room's length)`, which returns a state's length and fills the room if that is
//! long enough, `state_put_v1(name, content)` and `state_delete_v1(name)`. These return 0, or -1 for a state that has no
//! content, -2 for one that was not declared, -3 for too much.

use crate::{Error, Request, Response};

/// Encodes headers into the ABI's head.
pub fn encode_head<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut head = vec![0; 4];
    let mut count = 0u32;
    for (name, value) in headers {
        count += 1;
        head.extend_from_slice(&length(name).to_le_bytes());
        head.extend_from_slice(&length(value).to_le_bytes());
        head.extend_from_slice(name.as_bytes());
        head.extend_from_slice(value.as_bytes());
    }
    head[..4].copy_from_slice(&count.to_le_bytes());
    head
}

fn length(text: &str) -> u32 {
    u32::try_from(text.len()).unwrap_or(u32::MAX)
}

/// Decodes the ABI's head; nothing where it is malformed.
pub fn decode_head(mut head: &[u8]) -> Option<Vec<(String, String)>> {
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

/// Runs a function on the bytes of an inbox: payload, then head.
#[cfg_attr(not(target_arch = "wasm32"), allow(dead_code, reason = "natively only the tests call it"))]
fn run(
    handler: fn(Request) -> Result<Response, Error>,
    mut inbox: Vec<u8>,
    payload_len: usize,
) -> Result<Response, Error> {
    let headers =
        inbox.get(payload_len..).and_then(decode_head).ok_or_else(|| Error::failed("malformed request head"))?;
    inbox.truncate(payload_len);
    handler(Request::from_parts(inbox, headers))
}

#[cfg(not(target_arch = "wasm32"))]
#[expect(clippy::print_stderr, reason = "natively, standard error is the log")]
pub(crate) fn log(level: crate::Level, line: &str) {
    eprintln!("{level:?}: {line}");
}

#[cfg(target_arch = "wasm32")]
pub use wasm::{alloc, handle};
#[cfg(target_arch = "wasm32")]
pub(crate) use wasm::{log, state};

#[cfg(target_arch = "wasm32")]
mod wasm {
    //! Where addresses and lengths become Rust values.
    #![expect(unsafe_code, reason = "the ABI passes addresses in linear memory")]
    #![expect(clippy::cast_possible_truncation, reason = "addresses and lengths are 32 bits wide on wasm32")]

    use std::sync::Mutex;

    use super::{encode_head, run};
    use crate::{Error, Level, Request, Response};

    static INBOX: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    static ANSWER: Mutex<Option<Answer>> = Mutex::new(None);

    struct Answer {
        descriptor: [u32; 5],
        // Owned here until the next call, because the descriptor points into them.
        _bytes: (Vec<u8>, Vec<u8>),
    }

    #[link(wasm_import_module = "nigh")]
    unsafe extern "C" {
        fn log_v1(level: u32, address: *const u8, len: usize);
    }

    #[link(wasm_import_module = "nigh")]
    unsafe extern "C" {
        fn state_get_v1(name: *const u8, name_len: usize, room: *mut u8, room_len: usize) -> i64;
        fn state_put_v1(name: *const u8, name_len: usize, content: *const u8, content_len: usize) -> i64;
        fn state_delete_v1(name: *const u8, name_len: usize) -> i64;
    }

    /// States, as the host has them.
    pub(crate) mod state {
        use super::{state_delete_v1, state_get_v1, state_put_v1};
        use crate::state::Refused;

        /// What states mostly fit into.
        const ROOM: usize = 1 << 10;

        pub(crate) fn get(name: &str) -> Result<Option<Vec<u8>>, Refused> {
            let mut room = Vec::with_capacity(ROOM);
            loop {
                let (at, len) = (room.as_mut_ptr(), room.capacity());
                // SAFETY: the host reads the name and writes at most `len` bytes to the room, only during the call.
                let code = unsafe { state_get_v1(name.as_ptr(), name.len(), at, len) };
                match usize::try_from(code) {
                    Ok(found) if found <= len => {
                        // SAFETY: the room holds `found` bytes, which the host has written.
                        unsafe { room.set_len(found) };
                        return Ok(Some(room));
                    }
                    // It stays what it is as long as the call runs.
                    Ok(found) => room = Vec::with_capacity(found),
                    Err(_) if code == -1 => return Ok(None),
                    Err(_) => return Err(Refused::of(code)),
                }
            }
        }

        pub(crate) fn put(name: &str, content: &[u8]) -> Result<(), Refused> {
            // SAFETY: the host only reads both, and only during the call.
            done(unsafe { state_put_v1(name.as_ptr(), name.len(), content.as_ptr(), content.len()) })
        }

        pub(crate) fn delete(name: &str) -> Result<(), Refused> {
            // SAFETY: the host only reads the name, and only during the call.
            done(unsafe { state_delete_v1(name.as_ptr(), name.len()) })
        }

        fn done(code: i64) -> Result<(), Refused> {
            if code == 0 { Ok(()) } else { Err(Refused::of(code)) }
        }
    }

    pub(crate) fn log(level: Level, line: &str) {
        send(level as u32, line);
    }

    fn send(level: u32, line: &str) {
        // SAFETY: the host only reads `len` bytes from the address, and only during the call.
        unsafe { log_v1(level, line.as_ptr(), line.len()) }
    }

    fn address<T>(at: *const T) -> u32 {
        at.addr() as u32
    }

    /// Reserves room for a request of `len` bytes, payload and head, and returns its address.
    pub fn alloc(len: u32) -> u32 {
        let inbox = Vec::with_capacity(len as usize);
        let at = address(inbox.as_ptr());
        *INBOX.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = inbox;
        at
    }

    /// Runs the function on the request that the host wrote, and returns the address of the answer's descriptor.
    pub fn handle(handler: fn(Request) -> Result<Response, Error>, payload_len: u32, head_len: u32) -> u32 {
        std::panic::set_hook(Box::new(|panic| send(0, &panic.to_string())));
        let mut inbox = std::mem::take(&mut *INBOX.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        let len = (payload_len as usize).saturating_add(head_len as usize);
        assert!(len <= inbox.capacity(), "the host wrote more than it reserved");
        // SAFETY: the length is within the capacity, and the host has written that many bytes.
        unsafe { inbox.set_len(len) };
        let (status, head, body) = match run(handler, inbox, payload_len as usize) {
            Ok(response) => (0, encode_head(response.headers()), response.into_payload()),
            Err(error) => (1, error.kind().as_bytes().to_vec(), error.message().as_bytes().to_vec()),
        };
        let descriptor = [status, address(head.as_ptr()), head.len() as u32, address(body.as_ptr()), body.len() as u32];
        let mut kept = ANSWER.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let answer = kept.insert(Answer { descriptor, _bytes: (head, body) });
        address(answer.descriptor.as_ptr())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shout(request: Request) -> Result<Response, Error> {
        let suffix = request.header("suffix").unwrap_or("").to_owned();
        Ok(Response::text(request.text()?.to_uppercase() + &suffix))
    }

    #[test]
    fn a_head_comes_back_as_it_went() {
        for headers in [vec![], vec![("a", "1")], vec![("", ""), ("näme", "välue"), ("a", "")]] {
            let decoded = decode_head(&encode_head(headers.iter().copied())).unwrap();
            assert!(decoded.iter().map(|(n, v)| (n.as_str(), v.as_str())).eq(headers.iter().copied()));
        }
    }

    #[test]
    fn a_malformed_head_is_refused() {
        let good = encode_head([("name", "value")].into_iter());
        for cut in 0..good.len() {
            assert_eq!(decode_head(&good[..cut]), None, "cut at {cut}");
        }
        assert_eq!(decode_head(&[good.as_slice(), b"x"].concat()), None);
        assert_eq!(decode_head(&[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xff]), None);
    }

    #[test]
    fn the_payload_stands_before_the_head() {
        let mut inbox = b"hello".to_vec();
        inbox.extend(encode_head([("suffix", "!")].into_iter()));
        assert_eq!(run(shout, inbox, 5).unwrap().payload(), b"HELLO!");
        assert_eq!(run(shout, b"short".to_vec(), 9).unwrap_err().kind(), "failed");
    }
}
