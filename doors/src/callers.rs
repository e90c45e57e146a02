//! Who may come through a door, and as whom: a file of credentials, or everybody.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use http::{HeaderMap, header};
use nigh_proto::Digest;

use crate::namespace::{Namespace, NamespaceError};

/// Credentials in one file, at most.
const CREDENTIALS_MAX: usize = 10_000;

/// A file of credentials that cannot be used. Whoever wrote it has to act.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// A line is none.
    #[error("line {line}: write `USER:KEY NAMESPACE`, and `deploy` after it for who may deploy too")]
    Form {
        /// From 1.
        line: usize,
    },
    /// A namespace is none.
    #[error("line {line}: {error}")]
    Namespace {
        /// From 1.
        line: usize,
        /// What is wrong.
        error: NamespaceError,
    },
    /// The same credential stands there before.
    #[error("line {line}: the same USER:KEY stands above")]
    Twice {
        /// From 1.
        line: usize,
    },
    /// Nobody could come in.
    #[error("there is no credential; write lines of `USER:KEY NAMESPACE`")]
    Empty,
    /// Too many of them.
    #[error("there are over {CREDENTIALS_MAX} credentials")]
    TooMany,
}

/// Somebody who came through a door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Whose functions it calls.
    pub(crate) namespace: Namespace,
    /// It may deploy and remove functions as well.
    pub(crate) may_deploy: bool,
}

/// Everybody who may come in. Cheap to clone.
#[derive(Clone)]
pub struct Callers(Arc<Known>);

enum Known {
    Credentials(Credentials),
    /// Anybody, as this caller.
    Everybody(Arc<Caller>),
}

#[derive(Default)]
struct Credentials {
    /// By the digest of `USER:KEY`, so that no comparison takes longer the more of a key is right.
    by_digest: HashMap<Digest, Arc<Caller>>,
    /// The keys of each user, for those who prove that they know one without sending it.
    keys: HashMap<String, Vec<(String, Arc<Caller>)>>,
}

impl Callers {
    /// Anybody may call, deploy and remove, in the namespace that is there without saying so.
    pub fn everybody() -> Self {
        let caller = Caller { namespace: Namespace::default(), may_deploy: true };
        Self(Arc::new(Known::Everybody(Arc::new(caller))))
    }

    /// Reads credentials: a line for each, `USER:KEY NAMESPACE`, followed by `deploy` where it may deploy too. Empty lines and
    /// those that begin with `#` say nothing.
    ///
    /// # Errors
    /// [`CredentialsError`]; it does not repeat what is secret.
    pub fn from_text(text: &str) -> Result<Self, CredentialsError> {
        let mut known = Credentials::default();
        for (at, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            let (credential, namespace, may_deploy) = match words[..] {
                [credential, namespace] => (credential, namespace, false),
                [credential, namespace, "deploy"] => (credential, namespace, true),
                _ => return Err(CredentialsError::Form { line: at }),
            };
            let parts = credential.split_once(':').filter(|(user, key)| !user.is_empty() && !key.is_empty());
            let (user, key) = parts.ok_or(CredentialsError::Form { line: at })?;
            let namespace = namespace.parse().map_err(|error| CredentialsError::Namespace { line: at, error })?;
            let caller = Arc::new(Caller { namespace, may_deploy });
            known.keys.entry(user.to_owned()).or_default().push((key.to_owned(), caller.clone()));
            if known.by_digest.insert(Digest::of(credential.as_bytes()), caller).is_some() {
                return Err(CredentialsError::Twice { line: at });
            }
        }
        match known.by_digest.len() {
            0 => Err(CredentialsError::Empty),
            1..=CREDENTIALS_MAX => Ok(Self(Arc::new(Known::Credentials(known)))),
            _ => Err(CredentialsError::TooMany),
        }
    }

    /// Whether anybody is let in.
    pub fn are_everybody(&self) -> bool {
        matches!(*self.0, Known::Everybody(_))
    }

    /// Namespaces that there are.
    pub(crate) fn namespaces(&self) -> usize {
        match &*self.0 {
            Known::Everybody(_) => 1,
            Known::Credentials(known) => {
                known.by_digest.values().map(|caller| &caller.namespace).collect::<std::collections::HashSet<_>>().len()
            }
        }
    }

    /// Whether a request is to be kept out that comes from a page in a browser: where anybody is let in, any page that somebody
    /// on this machine looks at could else call and deploy.
    pub(crate) fn keep_out(&self, headers: &HeaderMap) -> bool {
        self.are_everybody() && headers.contains_key(header::ORIGIN)
    }

    /// Who everybody is, where anybody is let in.
    pub(crate) fn everybody_is(&self) -> Option<Arc<Caller>> {
        match &*self.0 {
            Known::Everybody(caller) => Some(caller.clone()),
            Known::Credentials(_) => None,
        }
    }

    /// The keys of a user, and who each makes of them.
    pub(crate) fn keys_of(&self, user: &str) -> impl Iterator<Item = (&str, &Arc<Caller>)> {
        let keys = match &*self.0 {
            Known::Everybody(_) => None,
            Known::Credentials(known) => known.keys.get(user),
        };
        keys.into_iter().flatten().map(|(key, caller)| (key.as_str(), caller))
    }

    /// Who makes a request, by its `Authorization: Basic`.
    pub(crate) fn find(&self, headers: &HeaderMap) -> Option<Arc<Caller>> {
        match &*self.0 {
            Known::Everybody(caller) => Some(caller.clone()),
            Known::Credentials(known) => known.by_digest.get(&Digest::of(&basic(headers)?)).cloned(),
        }
    }
}

/// `USER:KEY` as a request shows it.
fn basic(headers: &HeaderMap) -> Option<Vec<u8>> {
    let (scheme, encoded) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let is_basic = scheme.eq_ignore_ascii_case("basic");
    is_basic.then(|| base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok())?
}

impl fmt::Debug for Callers {
    // Digests of keys are nothing for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Known::Everybody(_) => f.write_str("everybody"),
            Known::Credentials(known) => write!(f, "{} credentials", known.by_digest.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn find(callers: &Callers, authorization: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
        callers.find(&headers).map(|caller| format!("{} {}", caller.namespace, caller.may_deploy))
    }

    #[test]
    fn a_credential_has_a_namespace() {
        let callers = Callers::from_text("# ours\n\nada:1234 guest deploy\n bob:a:b acme \n").unwrap();
        // ada:1234, bob:a:b, ada:1235
        assert_eq!(find(&callers, "Basic YWRhOjEyMzQ=").as_deref(), Some("guest true"));
        assert_eq!(find(&callers, "basic Ym9iOmE6Yg==").as_deref(), Some("acme false"));
        for wrong in ["Basic YWRhOjEyMzU=", "Basic ???", "Basic", "Bearer YWRhOjEyMzQ=", ""] {
            assert_eq!(find(&callers, wrong), None, "{wrong}");
        }
        assert!(callers.find(&HeaderMap::new()).is_none());
        assert_eq!(callers.namespaces(), 2);
        assert_eq!(format!("{callers:?}"), "2 credentials");
    }

    #[test]
    fn everybody_has_to_be_asked_for() {
        assert_eq!(Callers::from_text("# nobody\n").unwrap_err(), CredentialsError::Empty);
        assert!(Callers::everybody().find(&HeaderMap::new()).is_some());
    }

    #[test]
    fn what_is_wrong_is_told_by_its_line_and_without_the_key() {
        for (text, line) in [("ada:1234", 1), ("\nada guest", 2), ("a:b guest maybe", 1), (":b guest", 1), ("a: x", 1)]
        {
            assert_eq!(Callers::from_text(text).unwrap_err(), CredentialsError::Form { line }, "{text}");
        }
        let error = Callers::from_text("ada:secret Acme!").unwrap_err().to_string();
        assert!(error.contains("line 1") && !error.contains("secret"), "{error}");
        assert_eq!(Callers::from_text("a:b c\na:b d").unwrap_err(), CredentialsError::Twice { line: 2 });
    }

    proptest! {
        #[test]
        fn any_header_is_judged_without_panic(value in "[ -~]{0,40}") {
            let callers = Callers::from_text("a:b guest").unwrap();
            let _ = find(&callers, &value);
        }
    }
}
