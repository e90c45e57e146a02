//! Telling devices that something has changed for one of their contexts. Of each context the newest counts, and one
//! notification is under way at a time; what a device does not take within a few tries is given up until there is more to tell.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use nigh_proto::http_client::{AnswerLimits, HttpClient};
use nigh_proto::tls::https::HttpsConnector;
use serde_json::{Value, json};

use crate::callback::{self, Device};
use crate::context::{Context, ContextId, Dialect, Told};
use crate::location::Constraint;
use crate::mec::Mec;
use crate::state::Turn;

/// Bytes of what a device answers, at most.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What a device is to be told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum News {
    /// Other addresses: for each instance the one that counts now.
    Addresses(Vec<Option<Told>>),
    /// The context is gone.
    Deleted,
    /// Where the application may run now.
    Locations(Vec<Constraint>),
}

impl News {
    /// The word that stands for it in metrics and logs.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Addresses(_) => "address",
            Self::Deleted => "deleted",
            Self::Locations(_) => "locations",
        }
    }

    /// The notification, for a context that knows what it was told before.
    pub(crate) fn to_json(&self, context: &Context) -> Option<Value> {
        let id = context.id.to_string();
        match (self, context.dialect) {
            (Self::Addresses(now), Dialect::Mx2) => {
                let server = now.first()?.as_ref()?.server.as_str();
                Some(json!({ "referenceURI": server }))
            }
            // That interface knows no other notification.
            (Self::Deleted | Self::Locations(_), Dialect::Mx2) => None,
            (Self::Addresses(now), Dialect::DevApp) => Some(address_change(context, now)),
            (Self::Deleted, Dialect::DevApp) => {
                Some(json!({ "notificationType": "ApplicationContextDeleteNotification", "contextId": id }))
            }
            (Self::Locations(available), Dialect::DevApp) => {
                let available: Vec<Value> =
                    available.iter().map(|location| json!({ "appLocation": location })).collect();
                Some(json!({
                    "notificationType": "ApplicationLocationAvailabilityNotification",
                    "availableLocations": available,
                    "contextId": id,
                }))
            }
        }
    }
}

/// One changed address is told alone, several together with those that stay.
fn address_change(context: &Context, now: &[Option<Told>]) -> Value {
    let id = context.id.to_string();
    let changed: Vec<(usize, &Told)> = now
        .iter()
        .enumerate()
        .filter(|(at, told)| context.told.get(*at) != Some(*told))
        .filter_map(|(at, told)| Some((at, told.as_ref()?)))
        .collect();
    if let [(at, told)] = changed[..] {
        return json!({
            "notificationType": "AddressChangeNotification",
            "contextId": id,
            "appInstanceId": context.instance_id(at, told),
            "referenceURI": told.uri,
        });
    }
    let context = Context { told: now.to_vec(), ..context.clone() };
    json!({
        "notificationType": "ApplicationContextUpdateNotification",
        "contextId": id,
        "userAppInstanceInfo": context.instances(false),
    })
}

/// Tells a device what there is to tell of a context, for as long as there is and it is this turn's.
pub(crate) async fn tell(mec: Arc<Mec>, id: ContextId, turn: Turn) {
    let rules = &mec.config.callbacks;
    let mut pause = rules.pause;
    for tries in 1.. {
        let Some((context, news)) = mec.news(id, &turn) else { break };
        let failed = tokio::select! {
            told = try_to_tell(&mec, &context, &news) => told.err(),
            () = turn.over() => return,
        };
        mec.tally.count_notification(&news, failed.is_none());
        let Some(why) = failed else {
            mec.took(id, &turn, news).await;
            break;
        };
        if tries >= rules.tries_max {
            tracing::info!(context = %id, news = news.word(), why, tries, "a device does not take its notification");
            mec.gave_up(id, &turn, news).await;
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = turn.over() => return,
        }
        pause *= 2;
    }
    mec.end_turn(id, &turn);
}

async fn try_to_tell(mec: &Mec, context: &Context, news: &News) -> Result<(), String> {
    // What cannot be told in the device's dialect is told.
    let Some(told) = news.to_json(context) else { return Ok(()) };
    let Some(callback) = &context.wish.callback else { return Ok(()) };
    let _place = mec.places.acquire().await.map_err(|_| "it is stopping".to_owned())?;
    let device = Device { address: context.device, is_direct: context.is_direct };
    let rules = &mec.config.callbacks;
    let (url, reach) = callback::resolve(callback, device, rules).map_err(|refusal| refusal.to_string())?;
    let client = HttpClient::new(HttpsConnector::new(None).reaching(reach), 0);
    let limits = AnswerLimits { timeout: rules.timeout, bytes_max: ANSWER_BYTES_MAX };
    let response = client.send(posted(url.uri().clone(), &told), limits).await.map_err(|why| why.to_string())?;
    match response.status() {
        // 204 is expected; other successes say as much.
        status if status.is_success() => Ok(()),
        StatusCode::NOT_FOUND => Err(format!("{url} is not there (404)")),
        status => Err(format!("{url} answered {status}")),
    }
}

/// A request that posts a document.
fn posted(uri: Uri, document: &Value) -> Request<Bytes> {
    let mut request = Request::new(Bytes::from(document.to_string()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request
}
