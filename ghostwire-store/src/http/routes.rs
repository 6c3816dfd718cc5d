//! Which path is answered how.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::get;

use super::answer::{self, Answer, ReadyQuery};
use super::{Answered, Source, page};

type Shared = Arc<dyn Source>;

const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";

/// Said with every answer: it is of this moment, and is what it says it is.
fn common_headers() -> [(HeaderName, HeaderValue); 4] {
    [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
        (header::REFERRER_POLICY, "no-referrer"),
    ]
    .map(|(name, value)| (name, HeaderValue::from_static(value)))
}

pub(super) fn router(source: Shared) -> Router {
    Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/readyz/{check}", get(ready_check))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .fallback(unknown)
        .layer(from_fn_with_state(source.clone(), around))
        .with_state(source)
}

async fn live(State(source): State<Shared>) -> Response<Body> {
    plain(answer::live(&source.health()))
}

async fn ready(State(source): State<Shared>, RawQuery(query): RawQuery) -> Response<Body> {
    match ReadyQuery::parse(&query.unwrap_or_default()) {
        Ok(query) => plain(answer::ready(&source.check_health().await, &query)),
        Err(refused) => plain(refused),
    }
}

async fn ready_check(State(source): State<Shared>, Path(name): Path<String>) -> Response<Body> {
    plain(answer::one_check(&source.check_health().await, &name))
}

async fn metrics(State(source): State<Shared>) -> Response<Body> {
    match source.metrics().await {
        Some(text) => respond(200, METRICS, text),
        None => plain((
            404,
            "no metrics: telemetry.enabled is off, or the program has none\n".to_owned(),
        )),
    }
}

async fn status(State(source): State<Shared>, headers: HeaderMap) -> Response<Body> {
    let status = source.status();
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accepted.is_some_and(|accepted| accepted.contains("text/html")) {
        let state = source.health().state.name();
        return respond(200, HTML, page::render(&format!("ghostwire-store: {state}"), &status));
    }
    respond(200, JSON, status.to_string() + "\n")
}

async fn unknown() -> Response<Body> {
    plain((404, "there are /livez, /readyz, /metrics and /status\n".to_owned()))
}

fn plain((status, text): Answer) -> Response<Body> {
    respond(status, TEXT, text)
}

fn respond(status: u16, kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// What all answers have in common.
async fn around(State(source): State<Shared>, request: Request, next: Next) -> Response<Body> {
    let begun = Instant::now();
    let (method, route) = (method_of(request.method()), route_of(request.uri().path()));
    let mut response = next.run(request).await;
    response.headers_mut().extend(common_headers());
    let status = response.status().as_u16();
    source.answered(&Answered { method, route, status, took: begun.elapsed() });
    response
}

fn method_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        _ => "_OTHER",
    }
}

fn route_of(path: &str) -> &'static str {
    match path {
        "/livez" => "/livez",
        "/readyz" => "/readyz",
        "/metrics" => "/metrics",
        "/status" => "/status",
        _ if path.starts_with("/readyz/") => "/readyz/{check}",
        _ => "other",
    }
}
