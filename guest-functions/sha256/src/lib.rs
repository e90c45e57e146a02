//! Answers with the SHA-256 of its payload: 64 lower-case hexadecimal digits as text.
//!
//! Takes any payload, the empty one too, and ignores headers; it has no errors of its own.

use std::fmt::Write as _;

use nigh_sdk::{Error, Request, Response};
use sha2::{Digest, Sha256};

nigh_sdk::function!(sha256);

fn sha256(request: Request) -> Result<Response, Error> {
    let digest = Sha256::digest(request.payload());
    let mut digits = String::with_capacity(2 * digest.len());
    for byte in digest {
        write!(digits, "{byte:02x}")?;
    }
    Ok(Response::text(digits))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(payload: &[u8]) -> String {
        String::from_utf8(sha256(Request::new(payload)).unwrap().into_payload()).unwrap()
    }

    /// The examples of FIPS 180-4's companion document, one for each number of blocks up to two, and a long one.
    #[test]
    fn the_standards_examples_come_out() {
        let expected = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(b""), expected);
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest(b"abc"), expected);
        let expected = "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1";
        assert_eq!(digest(b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"), expected);
        let expected = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
        assert_eq!(digest(&vec![b'a'; 1_000_000]), expected);
    }

    proptest! {
        #[test]
        fn every_payload_has_64_digits_and_its_own(payload: Vec<u8>, more: u8) {
            let first = digest(&payload);
            prop_assert_eq!(first.len(), 64);
            prop_assert!(first.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')));
            prop_assert_ne!(first, digest(&[payload, vec![more]].concat()));
        }
    }
}
