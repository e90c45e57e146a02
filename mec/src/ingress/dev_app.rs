//! GS MEC 016 2.2.1, `/dev_app/v1`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post, put};
use http::{HeaderValue, StatusCode, Uri, header};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::read::{self, Object};
use super::{Asker, Shared, body, problem};
use crate::application::{Application, Filter, NAME_CHARS_MAX};
use crate::context::{ApplicationInfo, Context, ContextId, Dialect, Wish};
use crate::error::Refusal;
use crate::location::Constraint;
use crate::mec::Mec;
use crate::state::Amendment;

/// Where everything is.
const ROOT: &str = "/dev_app/v1";
/// Characters of a description, at most.
const DESCRIPTION_CHARS_MAX: usize = 128;
/// Characters of what a device application of 1.1.1 calls itself, at most: a UUID has 36.
const OLDER_NAME_CHARS_MAX: usize = 64;
/// Instances in one context, at most.
const INSTANCES_MAX: usize = 64;

pub(super) fn routes(_: Arc<Mec>) -> Router<Arc<Mec>> {
    let at = |path: &str| format!("{ROOT}{path}");
    Router::new()
        .route(&at("/app_list"), get(list))
        .route(&at("/app_contexts"), post(create))
        .route(&at("/app_contexts/{id}"), put(amend).delete(delete))
        .route(&at("/obtain_app_loc_availability"), post(availability))
}

async fn list(State(mec): Shared, uri: Uri) -> Response {
    answer(async {
        let filter = filter(uri.query().unwrap_or_default(), mec.config.strict)?;
        let applications: Vec<Value> = mec.applications(&filter).iter().map(Application::to_dev_app).collect();
        Ok(json(StatusCode::OK, &json!({ "appList": applications })))
    })
    .await
}

async fn create(State(mec): Shared, Extension(device): Asker, request: Request) -> Response {
    answer(async {
        let host = request.headers().get(header::HOST).cloned();
        let document = read::parse(&body(&mec, request).await?)?;
        let wish = wish(read::root(&document)?, mec.config.strict)?;
        let context = mec.create(Dialect::DevApp, device, wish).await?;
        let mut response = json(StatusCode::CREATED, &context.to_dev_app());
        if let Some(location) = location(&mec, &context, host.as_ref()) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        Ok(response)
    })
    .await
}

async fn amend(State(mec): Shared, Extension(device): Asker, uri: Uri, request: Request) -> Response {
    answer(async {
        let document = read::parse(&body(&mec, request).await?)?;
        let wish = wish(read::root(&document)?, mec.config.strict)?;
        let amendment = Amendment { callback: wish.callback, locations: wish.locations };
        mec.amend(id(&uri)?, Dialect::DevApp, device, amendment).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

async fn delete(State(mec): Shared, uri: Uri) -> Response {
    answer(async {
        mec.delete(id(&uri)?, Dialect::DevApp).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

async fn availability(State(mec): Shared, request: Request) -> Response {
    answer(async {
        let mut document = read::parse(&body(&mec, request).await?)?;
        let named = availability_asked(read::root(&document)?, mec.config.strict)?;
        let locations = mec.availability(&named)?;
        let available: Vec<Value> = locations.iter().map(|location| json!({ "appLocation": location })).collect();
        if let Some(info) = document.get_mut("appInfo") {
            info["availableLocations"] = available.into();
            // Where it was left out, which a strict reader does not let pass.
            if info.get("appDVersion").is_none() {
                info["appDVersion"] = json!("");
            }
        }
        Ok(json(StatusCode::OK, &document))
    })
    .await
}

async fn answer(work: impl Future<Output = Result<Response, Refusal>>) -> Response {
    work.await.unwrap_or_else(|refusal| problem::of(&refusal))
}

fn json(status: StatusCode, document: &Value) -> Response {
    let mut response = Response::new(Body::from(document.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The id at the end of a path. What cannot be one names no context.
fn id(uri: &Uri) -> Result<ContextId, Refusal> {
    let last = uri.path().rsplit('/').next().unwrap_or_default();
    last.parse().map_err(|_| Refusal::UnknownContext)
}

/// Where a context is, as absolute as is known.
fn location(mec: &Mec, context: &Context, host: Option<&HeaderValue>) -> Option<HeaderValue> {
    let path = format!("{ROOT}/app_contexts/{}", context.id);
    let asked = || host.and_then(|host| host.to_str().ok()).filter(|host| host.parse::<http::uri::Authority>().is_ok());
    let authority = mec.config.advertise.as_ref().map(|endpoint| endpoint.as_str()).or_else(asked);
    let scheme = if mec.config.tls.is_some() { "https" } else { "http" };
    let whole = authority.map(|authority| format!("{scheme}://{authority}{path}"));
    HeaderValue::from_str(&whole.unwrap_or(path)).ok()
}

/// The query of a list: each name may come several times and hold several values.
fn filter(query: &str, strict: bool) -> Result<Filter, Refusal> {
    let mut filter = Filter::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decoded(name)?, decoded(value)?);
        let wanted = match name.as_str() {
            "appName" => &mut filter.names,
            "appProvider" => &mut filter.providers,
            "appSoftVersion" => &mut filter.versions,
            "vendorId" => &mut filter.vendors,
            "serviceCont" => {
                let continuity = match value.as_str() {
                    "0" => false,
                    "1" => true,
                    _ => return Err(Refusal::Malformed("serviceCont must be 0 or 1".to_owned())),
                };
                if filter.continuity.replace(continuity).is_some() {
                    return Err(Refusal::Malformed("serviceCont must be given once".to_owned()));
                }
                continue;
            }
            _ => {
                let name: String = name.chars().take(64).collect();
                return Err(Refusal::Malformed(format!("{name:?} is nothing that applications are found by")));
            }
        };
        add_values(wanted, &name, value, strict)?;
    }
    Ok(filter)
}

/// The values in one, between commas; the file of the standard knows them one by one only.
fn add_values(wanted: &mut BTreeSet<String>, name: &str, value: String, strict: bool) -> Result<(), Refusal> {
    let fits = |value: &str| value.chars().count() <= NAME_CHARS_MAX;
    let all_fit = if strict { fits(&value) } else { value.split(',').all(fits) };
    if !all_fit {
        return Err(Refusal::Malformed(format!("{name} may have {NAME_CHARS_MAX} characters")));
    }
    wanted.extend(value.split(',').map(str::to_owned));
    wanted.insert(value);
    Ok(())
}

fn decoded(text: &str) -> Result<String, Refusal> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|_| Refusal::Malformed("the query is no UTF-8".to_owned()))
}

/// `AppContext` of a request.
fn wish(context: Object<'_>, strict: bool) -> Result<Wish, Refusal> {
    context.text("contextId", NAME_CHARS_MAX)?;
    let application = context.object("appInfo", |info| {
        let locations = info.objects("userAppInstanceInfo", |instance| {
            instance.text("appInstanceId", usize::MAX)?;
            instance.uri("referenceURI")?;
            instance.location("appLocation")
        })?;
        let locations: Vec<Option<Constraint>> = match locations {
            None if !strict => vec![None],
            locations => info.needed("userAppInstanceInfo", locations)?,
        };
        match locations.len() {
            0 => Err(Refusal::Malformed("appInfo.userAppInstanceInfo must have an element".to_owned())),
            1..=INSTANCES_MAX => Ok((application(info, strict)?, locations)),
            _ => Err(Refusal::TooMany { limit: INSTANCES_MAX, whose: "instances may be asked for at once" }),
        }
    })?;
    let (application, locations) = context.needed("appInfo", application)?;
    Ok(Wish {
        device_application: device_application(context, strict)?,
        callback: context.uri("callbackReference")?,
        application,
        location_updates: context.truth("appLocationUpdates")?,
        auto_instantiation: context.truth("appAutoInstantiation")?,
        locations,
    })
}

/// How a device application calls itself; in the spelling of 1.1.1 too, where that is let pass.
fn device_application(object: Object<'_>, strict: bool) -> Result<String, Refusal> {
    let mut name = object.text("associateDevAppId", NAME_CHARS_MAX)?;
    if name.is_none() && !strict {
        name = object.text("associateUeAppId", OLDER_NAME_CHARS_MAX)?;
    }
    object.needed("associateDevAppId", name)
}

fn application(info: Object<'_>, strict: bool) -> Result<ApplicationInfo, Refusal> {
    let version = info.text("appDVersion", usize::MAX)?;
    Ok(ApplicationInfo {
        app_name: info.needed_text("appName", NAME_CHARS_MAX)?,
        app_provider: info.needed_text("appProvider", NAME_CHARS_MAX)?,
        app_d_version: if strict { Some(info.needed("appDVersion", version)?) } else { version },
        app_d_id: info.text("appDId", usize::MAX)?,
        app_soft_version: info.text("appSoftVersion", NAME_CHARS_MAX)?,
        app_description: info.text("appDescription", DESCRIPTION_CHARS_MAX)?,
        app_package_source: info.uri("appPackageSource")?,
    })
}

/// `ApplicationLocationAvailability` of a request.
fn availability_asked(asked: Object<'_>, strict: bool) -> Result<ApplicationInfo, Refusal> {
    device_application(asked, strict)?;
    let application = asked.object("appInfo", |info| {
        info.objects("availableLocations", |available| available.location("appLocation"))?;
        let version = info.text("appDVersion", usize::MAX)?;
        if strict {
            info.needed("appDVersion", version)?;
        }
        Ok(ApplicationInfo {
            app_name: info.needed_text("appName", NAME_CHARS_MAX)?,
            app_provider: info.needed_text("appProvider", NAME_CHARS_MAX)?,
            app_soft_version: info.text("appSoftVersion", NAME_CHARS_MAX)?,
            app_description: info.text("appDescription", DESCRIPTION_CHARS_MAX)?,
            app_package_source: info.uri("appPackageSource")?,
            ..ApplicationInfo::default()
        })
    })?;
    asked.needed("appInfo", application)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_filtered_by_names_given_together_or_apart() {
        let both = filter("appName=a%2Cb&appName=c&serviceCont=0&appProvider=x+y", false).unwrap();
        for name in ["a", "b", "c", "a,b"] {
            assert!(both.names.contains(name), "{name}");
        }
        assert_eq!((both.continuity, both.providers.contains("x y")), (Some(false), true));
        let long = "a".repeat(33);
        for odd in [
            "unknown=1",
            "appname=a",
            "serviceCont=2",
            "serviceCont=",
            "serviceCont=0&serviceCont=0",
            "appName=%ff",
            &format!("appName={long}"),
        ] {
            assert!(filter(odd, false).is_err(), "{odd}");
        }
        let many = format!("appName={},{}", "a".repeat(20), "b".repeat(20));
        assert!(filter(&many, false).is_ok() && filter(&many, true).is_err());
    }
}
