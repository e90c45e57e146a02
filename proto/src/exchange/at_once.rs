//! Short answers that are all there by the time their head is, as most are: how long they are can be told, and how the call ended.

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};

use super::{Part, Parts};
use crate::reply::{Outcome, Reply};
use crate::status::PlatformError;

/// The body of such an answer and what became of its call; the parts, as they were, where more is to come or the call came to
/// no good end.
pub(crate) fn whole_at_once(mut parts: Parts) -> Result<(Bytes, Box<Reply>), Parts> {
    let (body, last) = match at_hand(&mut parts) {
        Some(Ok(Part::Body(bytes))) => (bytes, at_hand(&mut parts)),
        first => (Bytes::new(), first),
    };
    match last {
        Some(Ok(Part::End(reply))) if matches!(reply.outcome, Outcome::Answer { .. }) => Ok((body, reply)),
        None if body.is_empty() => Err(parts),
        other => {
            let body = Some(body).filter(|body| !body.is_empty()).map(|body| Ok(Part::Body(body)));
            Err(Box::pin(stream::iter(body.into_iter().chain(other)).chain(parts)))
        }
    }
}

/// The next part, if it is there.
fn at_hand(parts: &mut Parts) -> Option<Result<Part, PlatformError>> {
    parts.next().now_or_never().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{CallId, Headers};

    fn ended(outcome: Outcome) -> Result<Part, PlatformError> {
        Ok(Part::End(Box::new(Reply::new(outcome, "computer-1".parse().unwrap(), CallId::random()))))
    }

    fn answered() -> Result<Part, PlatformError> {
        ended(Outcome::Answer { payload: Bytes::new(), headers: Headers::default() })
    }

    fn body(text: &'static str) -> Result<Part, PlatformError> {
        Ok(Part::Body(Bytes::from_static(text.as_bytes())))
    }

    fn parts(parts: Vec<Result<Part, PlatformError>>, goes_on: bool) -> Parts {
        let rest = stream::pending().take(if goes_on { 1 } else { 0 });
        Box::pin(stream::iter(parts).chain(rest))
    }

    #[test]
    fn a_short_answer_that_has_ended_is_whole() {
        let (bytes, reply) = whole_at_once(parts(vec![body("hello"), answered()], false)).ok().unwrap();
        assert_eq!((&bytes[..], reply.computer.as_str()), (&b"hello"[..], "computer-1"));
        assert!(whole_at_once(parts(vec![answered()], false)).ok().unwrap().0.is_empty());
    }

    #[test]
    fn whatever_else_passes_as_it_comes() {
        let failed = || ended(Outcome::Error { kind: "trap".into(), message: String::new() });
        for (given, goes_on) in [
            (vec![], true),
            (vec![], false),
            (vec![body("a")], true),
            (vec![body("a")], false),
            (vec![body("a"), body("b"), answered()], false),
            (vec![failed()], false),
            (vec![body("a"), failed()], false),
            (vec![body("a"), Err(super::super::broken_off())], false),
        ] {
            let rest = whole_at_once(parts(given.clone(), goes_on)).err().unwrap();
            let shown =
                |parts: &[Result<Part, PlatformError>]| format!("{:?}", parts.iter().map(words).collect::<Vec<_>>());
            let all: Vec<_> = rest.take(given.len()).collect::<Vec<_>>().now_or_never().unwrap();
            assert_eq!(shown(&all), shown(&given));
        }
    }

    fn words(part: &Result<Part, PlatformError>) -> String {
        match part {
            Ok(Part::Body(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            Ok(Part::End(reply)) => format!("{:?}", reply.outcome),
            Err(error) => error.to_string(),
        }
    }
}
