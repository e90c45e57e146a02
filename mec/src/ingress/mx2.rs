//! GS MEC 016 1.1.1, `/mx2/v1`, as programs of the older system speak it: what is refused is forbidden (403), and a device is
//! told `host:port`.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post, put};
use http::{HeaderValue, StatusCode, Uri, header};
use serde_json::{Value, json};

use super::read::{self, Object};
use super::{Asker, Shared, body, problem};
use crate::application::{Application, Filter, NAME_CHARS_MAX};
use crate::context::{ApplicationInfo, ContextId, Dialect, Wish};
use crate::error::Refusal;
use crate::mec::Mec;
use crate::state::Amendment;

/// Where everything is.
const ROOT: &str = "/mx2/v1";
/// Characters of a description, at most.
const DESCRIPTION_CHARS_MAX: usize = 128;
/// Characters of what a device application calls itself, at most: a UUID has 36.
const DEVICE_APPLICATION_CHARS_MAX: usize = 128;

pub(super) fn routes(_: Arc<Mec>) -> Router<Arc<Mec>> {
    let at = |path: &str| format!("{ROOT}{path}");
    Router::new()
        .route(&at("/app_list"), get(list))
        .route(&at("/app_contexts"), post(create))
        .route(&at("/app_contexts/{id}"), put(amend).delete(delete))
}

async fn list(State(mec): Shared) -> Response {
    let applications: Vec<Value> = mec.applications(&Filter::default()).iter().map(Application::to_mx2).collect();
    json(StatusCode::OK, &json!({ "ApplicationList": { "appInfo": applications } }))
}

async fn create(State(mec): Shared, Extension(device): Asker, request: Request) -> Response {
    answer(async {
        let document = read::parse(&body(&mec, request).await?)?;
        let wish = wish(read::root(&document)?)?;
        let context = mec.create(Dialect::Mx2, device, wish).await?;
        let mut response = json(StatusCode::CREATED, &context.to_mx2());
        if let Ok(location) = HeaderValue::from_str(&format!("{ROOT}/app_contexts/{}", context.id)) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        Ok(response)
    })
    .await
}

async fn amend(State(mec): Shared, Extension(device): Asker, uri: Uri, request: Request) -> Response {
    answer(async {
        let document = read::parse(&body(&mec, request).await?)?;
        let wish = wish(read::root(&document)?)?;
        let id = id(&uri)?;
        if mec.device_application(id, Dialect::Mx2).is_none_or(|name| name != wish.device_application) {
            return Err(Refusal::UnknownContext);
        }
        let amendment = Amendment { callback: wish.callback, locations: Vec::new() };
        mec.amend(id, Dialect::Mx2, device, amendment).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

async fn delete(State(mec): Shared, uri: Uri) -> Response {
    answer(async {
        mec.delete(id(&uri)?, Dialect::Mx2).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

async fn answer(work: impl Future<Output = Result<Response, Refusal>>) -> Response {
    work.await.unwrap_or_else(|refusal| match refusal {
        Refusal::Malformed(_) | Refusal::Store(_) => problem::of(&refusal),
        other => problem::told(StatusCode::FORBIDDEN, "Forbidden", &other.to_string()),
    })
}

fn json(status: StatusCode, document: &Value) -> Response {
    let mut response = Response::new(Body::from(document.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn id(uri: &Uri) -> Result<ContextId, Refusal> {
    let last = uri.path().rsplit('/').next().unwrap_or_default();
    last.parse().map_err(|_| Refusal::UnknownContext)
}

/// `AppContext` of a request; an empty callback is none.
fn wish(context: Object<'_>) -> Result<Wish, Refusal> {
    let application = context.object("appInfo", |info| {
        Ok(ApplicationInfo {
            app_name: needed(info, "appName", NAME_CHARS_MAX)?,
            app_provider: needed(info, "appProvider", NAME_CHARS_MAX)?,
            app_soft_version: Some(needed(info, "appSoftVersion", NAME_CHARS_MAX)?),
            app_description: info.text("appDescription", DESCRIPTION_CHARS_MAX)?,
            app_package_source: info.text("appPackageSource", usize::MAX)?,
            ..ApplicationInfo::default()
        })
    })?;
    let callback = context.text("callbackReference", usize::MAX)?;
    Ok(Wish {
        device_application: needed(context, "associateUeAppId", DEVICE_APPLICATION_CHARS_MAX)?,
        callback: callback.filter(|callback| !callback.is_empty()),
        application: context.needed("appInfo", application)?,
        location_updates: None,
        auto_instantiation: None,
        locations: vec![None],
    })
}

/// A text that must be there and say something.
fn needed(object: Object<'_>, name: &str, chars_max: usize) -> Result<String, Refusal> {
    let text = object.text(name, chars_max)?.filter(|text| !text.is_empty());
    object.needed(name, text)
}
