//! The other side: a device application that asks where to call, and is told when that changes. Speaks GS MEC 016 1.1.1
//! (`/mx2/v1`), which this system and ServerlessOnEdge's both offer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::routing::post;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri, header};
use nigh_proto::Endpoint;
use nigh_proto::http_client::{AnswerLimits, HttpClient};
use nigh_proto::tls::https::HttpsConnector;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Time for each answer of the MEC system.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of one, at most.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Bytes of a notification, at most.
const NOTIFICATION_BYTES_MAX: usize = 16 << 10;

/// Why a device has no place to call.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The root is none.
    #[error("{0} is no root of a MEC system's interface; write it as http://HOST:PORT")]
    Root(Uri),
    /// It does not answer.
    #[error("the MEC system does not answer {0}: {1}; is it there, and is this its port for devices?")]
    Silent(String, String),
    /// It refuses.
    #[error("the MEC system answers {0} with {1}: {2}")]
    Refused(String, StatusCode, String),
    /// It answers with something else than it should.
    #[error("the MEC system's answer to {0} is not understood: {1}")]
    Odd(String, String),
    /// It does not have the application.
    #[error("the MEC system has no application {0}; it has {1}")]
    Unknown(String, String),
}

/// A device application, with a context for each application that it uses. Its contexts stay until [`Device::leave`].
#[derive(Debug)]
pub struct Device {
    mec: Mec,
    contexts: Vec<(String, Context)>,
    notified: JoinHandle<()>,
}

/// A context: where it is at the MEC system, and what that tells.
#[derive(Debug)]
struct Context {
    id: String,
    place: watch::Receiver<String>,
}

/// What a device is told, by what it calls itself in each context.
type Places = Arc<HashMap<String, watch::Sender<String>>>;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    context_id: String,
    app_info: Told,
}

#[derive(Debug, Deserialize)]
struct Told {
    #[serde(rename = "referenceURI")]
    reference_uri: String,
}

impl Device {
    /// Asks the MEC system at `root` for a context of each of these applications. Notifications come to `listener`, which the
    /// MEC system reaches at `reached`.
    ///
    /// # Errors
    /// [`DeviceError`]; contexts made before it are deleted again.
    pub async fn join(
        root: &Uri,
        listener: TcpListener,
        reached: &Endpoint,
        applications: impl IntoIterator<Item = String>,
    ) -> Result<Self, DeviceError> {
        let mec = Mec::at(root)?;
        let offered = mec.applications().await?;
        let mut places = HashMap::new();
        let mut wishes = Vec::new();
        for name in applications {
            let Some(offer) = offered.iter().find(|offer| offer["appName"] == name.as_str()) else {
                let known: Vec<_> = offered.iter().filter_map(|offer| offer["appName"].as_str()).collect();
                return Err(DeviceError::Unknown(name, known.join(", ")));
            };
            let id = uuid();
            let (told, place) = watch::channel(String::new());
            places.insert(id.clone(), told);
            wishes.push((name, id, wish(offer), place));
        }
        // It may be told of a change before it has the answer.
        let places: Places = Arc::new(places);
        let mut device = Self { mec, contexts: Vec::new(), notified: serve(listener, places.clone()) };
        for (name, id, application, place) in wishes {
            match device.mec.create(&id, &format!("http://{reached}/{id}"), &application).await {
                Ok(created) => {
                    let told = created.app_info.reference_uri;
                    places[&id].send_if_modified(|place| {
                        place.is_empty() && {
                            *place = told;
                            true
                        }
                    });
                    device.contexts.push((name, Context { id: created.context_id, place }));
                }
                Err(error) => {
                    device.leave().await;
                    return Err(error);
                }
            }
        }
        Ok(device)
    }

    /// Where to call each application: `host:port`, or nothing as long as nobody serves it; changes when the MEC system says so.
    pub fn places(&self) -> impl Iterator<Item = (&str, watch::Receiver<String>)> {
        self.contexts.iter().map(|(name, context)| (name.as_str(), context.place.clone()))
    }

    /// Deletes its contexts.
    pub async fn leave(self) {
        for (name, context) in &self.contexts {
            if let Err(error) = self.mec.delete(&context.id).await {
                tracing::warn!(application = name, %error, "a context is left behind");
            }
        }
        self.notified.abort();
    }
}

/// An application as it is wished for.
fn wish(offer: &Value) -> Value {
    let mut wish = json!({ "appPackageSource": "" });
    for member in ["appName", "appProvider", "appSoftVersion", "appDescription"] {
        wish[member] = offer[member].clone();
    }
    wish
}

/// A random UUID, as devices call themselves.
fn uuid() -> String {
    let random: u128 = rand::random();
    // Version 4, variant 1 (RFC 9562).
    let bits = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let digits = format!("{bits:032x}");
    let (time, rest) = digits.split_at(8);
    format!("{time}-{}-{}-{}-{}", &rest[..4], &rest[4..8], &rest[8..12], &rest[12..])
}

fn serve(listener: TcpListener, places: Places) -> JoinHandle<()> {
    let notified = async |State(places): State<Places>, Path(id): Path<String>, body: Bytes| {
        let Some(place) = places.get(&id) else { return StatusCode::NOT_FOUND };
        match serde_json::from_slice::<Told>(&body) {
            Ok(told) => {
                tracing::info!(place = told.reference_uri, "the MEC system sends this device elsewhere");
                place.send_replace(told.reference_uri);
                StatusCode::NO_CONTENT
            }
            Err(_) => StatusCode::BAD_REQUEST,
        }
    };
    let door = Router::new()
        .route("/{id}", post(notified))
        .layer(DefaultBodyLimit::max(NOTIFICATION_BYTES_MAX))
        .with_state(places);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, door).await {
            tracing::warn!(%error, "no more notifications are heard");
        }
    })
}

/// A MEC system as devices see it.
#[derive(Debug)]
struct Mec {
    root: String,
    client: HttpClient,
}

impl Mec {
    fn at(root: &Uri) -> Result<Self, DeviceError> {
        let (Some("http"), Some(authority)) = (root.scheme_str(), root.authority()) else {
            return Err(DeviceError::Root(root.clone()));
        };
        let root = format!("http://{authority}{}/mx2/v1", root.path().trim_end_matches('/'));
        Ok(Self { root, client: HttpClient::new(HttpsConnector::new(None), 0) })
    }

    async fn applications(&self) -> Result<Vec<Value>, DeviceError> {
        let what = "GET app_list";
        let listed = self.ask(what, Method::GET, "app_list", None, StatusCode::OK).await?;
        let listed: Value = understood(what, &listed)?;
        Ok(listed["ApplicationList"]["appInfo"].as_array().cloned().unwrap_or_default())
    }

    async fn create(&self, id: &str, callback: &str, application: &Value) -> Result<Created, DeviceError> {
        let what = "POST app_contexts";
        let context = json!({ "associateUeAppId": id, "callbackReference": callback, "appInfo": application });
        let created = self.ask(what, Method::POST, "app_contexts", Some(context), StatusCode::CREATED).await?;
        understood(what, &created)
    }

    async fn delete(&self, id: &str) -> Result<(), DeviceError> {
        let path = format!("app_contexts/{id}");
        self.ask("DELETE app_contexts", Method::DELETE, &path, None, StatusCode::NO_CONTENT).await.map(drop)
    }

    async fn ask(
        &self,
        what: &str,
        method: Method,
        path: &str,
        document: Option<Value>,
        expected: StatusCode,
    ) -> Result<Response<Bytes>, DeviceError> {
        let body = document.map(|document| Bytes::from(document.to_string())).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/{path}", self.root))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|error| DeviceError::Odd(what.to_owned(), error.to_string()))?;
        let limits = AnswerLimits { timeout: PATIENCE, bytes_max: ANSWER_BYTES_MAX };
        let answer = self.client.send(request, limits).await;
        let answer = answer.map_err(|why| DeviceError::Silent(what.to_owned(), why.to_string()))?;
        if answer.status() == expected {
            return Ok(answer);
        }
        let said: String = String::from_utf8_lossy(answer.body()).chars().take(200).collect();
        Err(DeviceError::Refused(what.to_owned(), answer.status(), said))
    }
}

fn understood<T: serde::de::DeserializeOwned>(what: &str, answer: &Response<Bytes>) -> Result<T, DeviceError> {
    serde_json::from_slice(answer.body()).map_err(|error| DeviceError::Odd(what.to_owned(), error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices_are_uuids_and_differ() {
        let (one, other) = (uuid(), uuid());
        assert_ne!(one, other);
        let parts: Vec<usize> = one.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(one.as_bytes()[14], b'4', "{one}");
        assert!(b"89ab".contains(&one.as_bytes()[19]), "{one}");
    }

    #[test]
    fn roots_are_of_plain_http() {
        for odd in ["https://mec:1", "/mec", "mec:80"] {
            let found = Mec::at(&odd.parse().unwrap());
            assert!(matches!(found, Err(DeviceError::Root(_))), "{odd}: {found:?}");
        }
        assert_eq!(
            Mec::at(&"http://127.0.0.1:1/here/".parse().unwrap()).unwrap().root,
            "http://127.0.0.1:1/here/mx2/v1"
        );
    }
}
