//! Where a MEC platform announces the end of this application instance: at a path that it alone was told.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use http::StatusCode;

use super::{Shared, body, problem};
use crate::error::Refusal;
use crate::mec::Mec;
use crate::mp1::{PATH, Termination};

pub(super) fn routes() -> Router<Arc<Mec>> {
    Router::new().route(&format!("{PATH}{{secret}}"), post(notified))
}

async fn notified(State(mec): Shared, request: Request) -> Response {
    notification(&mec, request).await.unwrap_or_else(|refusal| problem::of(&refusal))
}

async fn notification(mec: &Mec, request: Request) -> Result<Response, Refusal> {
    let secret = request.uri().path().rsplit('/').next().unwrap_or_default();
    if !mec.announcements.is_at(secret) {
        return Err(Refusal::UnknownPath);
    }
    let body = body(mec, request).await?;
    let termination: Termination =
        serde_json::from_slice(&body).map_err(|error| Refusal::Malformed(error.to_string()))?;
    tracing::info!(?termination, "the MEC platform wants it to end");
    mec.announcements.announce(termination);
    Ok(StatusCode::NO_CONTENT.into_response())
}
