//! What the operator decides of a computer whose functions run elsewhere: where that is, which they are, and what it proves
//! itself with. Everything is checked when it is read, so that a mistake shows at the start.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::uri::Scheme;
use http::{HeaderValue, Uri};
use nigh_proto::FunctionName;
use nigh_proto::tls::https::Trust;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Where a function's name stands in the URL of a gateway.
const PLACE: &str = "{function}";
/// How the URL of an OpenFaaS gateway ends.
const OPENFAAS: &str = "/function/{function}";
/// What need not be encoded in a segment of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Bytes of a URL, at most.
const URL_BYTES_MAX: usize = 2048;

/// A system elsewhere whose functions a computer offers as its own.
#[derive(Debug, Clone)]
pub struct RemoteSettings {
    /// What it speaks, and where it is.
    pub api: RemoteApi,
    /// The functions offered; with none of them named, all that the system lists.
    pub functions: Vec<RemoteFunction>,
    /// What calls are made with.
    pub credentials: Option<Credentials>,
    /// Whom to believe over TLS; `https` needs it.
    pub trust: Option<Trust>,
    /// How often is looked which functions there are, and whether anybody answers.
    pub refresh: Duration,
}

impl RemoteSettings {
    /// Time between two looks, unless the operator wants another.
    pub const REFRESH: Duration = Duration::from_secs(10);
}

/// What a system elsewhere speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteApi {
    /// A POST to a URL of each function.
    Http {
        /// Where.
        url: UrlTemplate,
        /// Of an OpenFaaS gateway, the namespace whose functions are listed, if not the gateway's own choice.
        namespace: Option<String>,
    },
    /// The REST API of OpenWhisk.
    OpenWhisk {
        /// Where.
        root: RootUrl,
        /// Whose actions; `_` for those of the credentials.
        namespace: String,
        /// Of a result only the text in its field `payload` is answered.
        payload_only: bool,
    },
}

/// A function that runs elsewhere, and what it is called there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFunction {
    /// Its name here.
    pub name: FunctionName,
    /// Its name there, where that is another.
    pub remote: Option<String>,
}

impl FromStr for RemoteFunction {
    type Err = String;

    /// `NAME` or `NAME=REMOTE`.
    fn from_str(given: &str) -> Result<Self, String> {
        let (name, remote) = match given.split_once('=') {
            Some((name, remote)) => (name, Some(remote)),
            None => (given, None),
        };
        let name = name.parse().map_err(|error: nigh_proto::name::NameError| error.to_string())?;
        if remote.is_some_and(|remote| remote.is_empty() || remote.len() > URL_BYTES_MAX / 2) {
            return Err(format!("{name}: write it as NAME or NAME=REMOTE"));
        }
        Ok(Self { name, remote: remote.map(str::to_owned) })
    }
}

/// The URL of a gateway, `{function}` standing where its functions' names do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlTemplate(String);

impl UrlTemplate {
    /// The URL of a function of this name there; `/` divides segments of a path.
    ///
    /// # Errors
    /// Where it makes no URL.
    pub(super) fn url_of(&self, remote: &str) -> Result<String, String> {
        let segments: Vec<_> = remote.split('/').map(segment).collect::<Result<_, _>>()?;
        checked(self.0.replace(PLACE, &segments.join("/")))
    }

    /// Whether functions differ by it at all.
    pub(super) fn has_place(&self) -> bool {
        self.0.contains(PLACE)
    }

    /// The root of an OpenFaaS gateway, where the URL is one's.
    pub(super) fn openfaas_root(&self) -> Option<&str> {
        self.0.strip_suffix(OPENFAAS)
    }
}

impl FromStr for UrlTemplate {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        if given.matches(PLACE).count() > 1 {
            return Err(format!("{given}: {PLACE} stands there more than once"));
        }
        checked(given.replace(PLACE, "f"))?;
        let host_ends = given.find("://").and_then(|at| given[at + 3..].find(['/', '?']).map(|end| at + 3 + end));
        if given.find(PLACE).is_some_and(|at| host_ends.is_none_or(|end| at < end)) {
            return Err(format!("{given}: {PLACE} may stand in the path or query only"));
        }
        Ok(Self(given.to_owned()))
    }
}

/// The URL below which an API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootUrl(String);

impl RootUrl {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RootUrl {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        let url = checked(given.trim_end_matches('/').to_owned())?;
        if url.contains(['?', '{']) {
            return Err(format!("{given}: give the URL of the host, as in https://openwhisk.example"));
        }
        Ok(Self(url))
    }
}

impl fmt::Display for UrlTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for RootUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl RemoteApi {
    /// Whether it is reached over TLS.
    pub fn is_secured(&self) -> bool {
        self.url().starts_with("https://")
    }

    /// Whether it is on this machine.
    pub(super) fn is_local(&self) -> bool {
        let uri: Option<Uri> = self.url().replace(PLACE, "f").parse().ok();
        let host = uri.as_ref().and_then(Uri::host).unwrap_or_default().trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Its URL, for people.
    pub(super) fn url(&self) -> &str {
        match self {
            Self::Http { url, .. } => &url.0,
            Self::OpenWhisk { root, .. } => &root.0,
        }
    }
}

/// What calls are made with; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(HeaderValue);

impl Credentials {
    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl FromStr for Credentials {
    type Err = String;

    /// `USER:PASSWORD`, or `Bearer TOKEN`, on one line.
    fn from_str(given: &str) -> Result<Self, String> {
        let given = given.trim();
        // What is wrong with it is told without it.
        let form = || "write USER:PASSWORD, or Bearer TOKEN, on one line".to_owned();
        if given.chars().any(char::is_control) {
            return Err(form());
        }
        let header = match given.strip_prefix("Bearer ") {
            Some(token) if !token.trim().is_empty() => given.to_owned(),
            None if given.contains(':') => format!("Basic {}", BASE64_STANDARD.encode(given)),
            _ => return Err(form()),
        };
        let mut header = HeaderValue::from_str(&header).map_err(|_| form())?;
        header.set_sensitive(true);
        Ok(Self(header))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// A segment of a path.
///
/// # Errors
/// Where it would be none.
pub(super) fn segment(name: &str) -> Result<String, String> {
    match name {
        "" | "." | ".." => Err(format!("{name:?} is no name of a function")),
        name => Ok(utf8_percent_encode(name, SEGMENT).to_string()),
    }
}

/// A URL that is whole.
fn checked(url: String) -> Result<String, String> {
    let shown: String = url.chars().take(100).collect();
    let wrong = |what: &str| format!("{shown}: {what}, as in http://gateway:8080/function/{PLACE}");
    if url.len() > URL_BYTES_MAX {
        return Err(wrong("the URL is too long"));
    }
    let uri: Uri = url.parse().map_err(|_| wrong("give a URL"))?;
    if ![Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&uri.scheme()) || uri.host().is_none_or(str::is_empty) {
        return Err(wrong("give a URL of http or https"));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(
            "credentials do not belong in a URL, where others see them; put them in a file (--auth-file)".into()
        );
    }
    if url.contains('#') {
        return Err(wrong("leave the part after # out"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_template_makes_urls() {
        let of = |template: &str, name: &str| template.parse::<UrlTemplate>().unwrap().url_of(name);
        assert_eq!(of("http://gw:8080/function/{function}", "a.b").unwrap(), "http://gw:8080/function/a.b");
        assert_eq!(of("https://x/run?f={function}&v=1", "ä b").unwrap(), "https://x/run?f=%C3%A4%20b&v=1");
        assert_eq!(of("http://x/{function}", "v1/hello").unwrap(), "http://x/v1/hello");
        assert!(of("http://x/{function}", "../admin").is_err());
        assert_eq!(of("http://x/only", "hello").unwrap(), "http://x/only");
        for wrong in [
            "",
            "gw:8080/{function}",
            "ftp://x/{function}",
            "http:///{function}",
            "http://{function}/",
            "http://{function}",
            "http://x/{function}/{function}",
            "http://ada:secret@x/{function}",
            "http://x/{function}#y",
        ] {
            let error = wrong.parse::<UrlTemplate>().unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
        let root = |template: &str| template.parse::<UrlTemplate>().unwrap().openfaas_root().map(str::to_owned);
        assert_eq!(root("https://gw/faas/function/{function}").unwrap(), "https://gw/faas");
        assert_eq!(root("https://gw/{function}"), None);
    }

    #[test]
    fn credentials_are_not_shown() {
        let credentials: Credentials = "ada:s3cret\n".parse().unwrap();
        assert_eq!(credentials.header().to_str().unwrap(), "Basic YWRhOnMzY3JldA==");
        assert!(!format!("{credentials:?}").contains("s3cret"));
        assert_eq!("Bearer abc".parse::<Credentials>().unwrap().header().to_str().unwrap(), "Bearer abc");
        for wrong in ["s3cret", "", "Bearer  ", "a:s3cret\nb:c"] {
            assert!(!wrong.parse::<Credentials>().unwrap_err().contains("s3cret"));
        }
    }

    proptest! {
        #[test]
        fn no_name_leaves_its_place(name in "\\PC{1,40}") {
            let template: UrlTemplate = "http://gw:1/function/{function}?key=1".parse().unwrap();
            if let Ok(url) = template.url_of(&name) {
                let uri: Uri = url.parse().unwrap();
                prop_assert_eq!(uri.authority().unwrap().as_str(), "gw:1");
                prop_assert!(uri.path().starts_with("/function/"));
                prop_assert!(uri.path().split('/').all(|segment| !matches!(segment, "." | "..")));
                prop_assert_eq!(uri.query(), Some("key=1"));
            }
        }
    }
}
