//! Functions behind URLs, as of an OpenFaaS gateway: a call is a POST of its payload, and the answer's body is its answer.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use nigh_proto::cdn_loop::{self, CDN_LOOP};
use nigh_proto::ingress::http::is_spent;
use nigh_proto::{Call, FunctionName, Headers, Outcome, Reason};

use super::api::{FUNCTIONS_MAX, Failure, LISTING_BYTES_MAX, Listing, Sign, Target, authorize, json, said};
use super::client::{Answer, Client, uri_of};
use super::settings::{UrlTemplate, segment};
use crate::outcome;

/// The namespace that functions of OpenFaaS are in without saying so.
const OPENFAAS_NAMESPACE: &str = "openfaas-fn";
/// Carries a call's id.
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Headers that are for the computer itself, or written anew.
const NOT_PASSED: [&str; 3] = ["accept-encoding", "older-input", "cdn-loop"];
/// What of an answer's headers is about its body.
const PASSED_BACK: [HeaderName; 4] =
    [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE, header::CONTENT_DISPOSITION];

/// Functions behind URLs.
pub(super) struct Http {
    url: UrlTemplate,
    /// The namespace of an OpenFaaS gateway.
    namespace: Option<String>,
    /// For calls.
    of_calls: Option<HeaderValue>,
    /// For lists.
    of_lists: Option<HeaderValue>,
    /// Any URL that it has, to see whether somebody is there.
    any_url: String,
}

impl Http {
    /// # Errors
    /// What contradicts itself.
    pub(super) fn new(
        url: UrlTemplate,
        namespace: Option<String>,
        authorization: Option<HeaderValue>,
        lists: bool,
    ) -> Result<Self, String> {
        let is_openfaas = url.openfaas_root().is_some();
        if lists && !is_openfaas {
            return Err(format!(
                "only an OpenFaaS gateway, whose URL ends with /function/{{function}}, can list its functions; name those of {url} by --function"
            ));
        }
        if let Some(namespace) = &namespace {
            segment(namespace).map_err(|error| format!("namespace: {error}"))?;
            if !is_openfaas {
                return Err("only an OpenFaaS gateway has namespaces; put it into the URL".to_owned());
            }
        }
        let any_url = url.url_of("f")?;
        // The gateway hands headers on to functions, which must not learn who administers it.
        let of_calls = if is_openfaas { None } else { authorization.clone() };
        Ok(Self { url, namespace, of_calls, of_lists: authorization, any_url })
    }

    pub(super) fn any_url(&self) -> &str {
        &self.any_url
    }

    /// # Errors
    /// Where it makes no URL.
    pub(super) fn target(&self, remote: &str) -> Result<Target, String> {
        Ok(Target { url: self.url.url_of(remote)?, namespace: String::new() })
    }

    /// The functions of an OpenFaaS gateway.
    pub(super) async fn list(&self, client: &Client) -> Result<Listing, String> {
        let root = self.url.openfaas_root().ok_or("it lists no functions")?;
        let mut url = format!("{root}/system/functions");
        if let Some(namespace) = &self.namespace {
            url = format!("{url}?namespace={}", segment(namespace)?);
        }
        let answer = client.get(&url, self.of_lists.clone(), LISTING_BYTES_MAX).await;
        let told = json(&answer.map_err(|why| why.to_string())?, "the list of functions")?;
        let told = told.as_array().ok_or("the list of functions is no list")?;
        let mut listing = Listing::new();
        for function in told.iter().take(FUNCTIONS_MAX) {
            let text = |key: &str| function.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
            let name = match text("namespace") {
                "" | OPENFAAS_NAMESPACE => text("name").to_owned(),
                namespace => format!("{}.{namespace}", text("name")),
            };
            // What has no name that callers could use is not offered.
            if let (Ok(known), Ok(target)) = (name.parse::<FunctionName>(), self.target(&name)) {
                listing.push((known, target));
            }
        }
        Ok(listing)
    }

    /// Makes a call.
    pub(super) async fn invoke(
        &self,
        client: &Client,
        target: &Target,
        call: &Call,
        bytes_max: usize,
    ) -> Result<Outcome, Failure> {
        let mut request = Request::new(call.payload.clone());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri_of(&target.url)?;
        let headers = request.headers_mut();
        pass_headers(&call.headers, headers);
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/octet-stream"));
        if let Ok(id) = HeaderValue::from_str(call.id.as_str()) {
            headers.insert(REQUEST_ID.clone(), id);
        }
        headers.insert(CDN_LOOP.clone(), cdn_loop::passed_on(call));
        authorize(headers, self.of_calls.as_ref());
        let answer = client.send(request, bytes_max).await?;
        self.judge(call, answer)
    }

    /// What an answer means.
    fn judge(&self, call: &Call, answer: Answer) -> Result<Outcome, Failure> {
        match answer.status.as_u16() {
            200..=299 => Ok(Outcome::Answer { payload: answer.body.clone(), headers: passed_back(&answer.headers) }),
            300..=399 => {
                let what = format!(
                    "redirects are not followed; the computer's operator may set the URL that it leads to ({})",
                    answer.location()
                );
                Err(Failure::operator(&answer, &what))
            }
            401 | 403 | 407 if self.of_calls.is_some() => {
                let what = "it refuses the computer's credentials; its operator may set others (--auth-file)";
                Err(Failure::operator(&answer, what))
            }
            404 => Err(Failure::unknown(call)),
            413 => {
                let message =
                    format!("the gateway takes no payload of {} bytes; send a smaller one", call.payload.len());
                Err(Failure::new(Reason::TooLarge, message, Sign::None))
            }
            429 | 503 => Err(Failure::busy(&answer)),
            508 => Err(Failure::circle(&answer)),
            502 => Err(Failure::broken(&answer)),
            504 => Ok(outcome::error("time-limit", "the gateway's own time limit passed before the function answered")),
            status => Ok(outcome::function_error(format!("http-{status}").as_bytes(), said(&answer).as_bytes())),
        }
    }
}

/// The headers that a function is given: all but those about the connection.
fn pass_headers(given: &Headers, headers: &mut HeaderMap) {
    for (name, value) in given.iter() {
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) else {
            continue;
        };
        if !is_spent(name.as_str()) && !NOT_PASSED.contains(&name.as_str()) {
            headers.append(name, value);
        }
    }
}

fn passed_back(given: &HeaderMap) -> Headers {
    let header = |name: &HeaderName| {
        let value = given.get(name)?.to_str().ok()?;
        Some((name.as_str().to_owned(), value.to_owned()))
    };
    // Those that are too much are left out rather than the answer.
    Headers::new(PASSED_BACK.iter().filter_map(header).collect()).unwrap_or_default()
}
