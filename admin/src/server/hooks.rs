//! What only the program knows that has the store open.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use serde_json::Value;
use tracing::Span;

use crate::protocol::MigrateRequest;

/// Answers of the program around a store. Each is `Unsupported` where the program has none.
///
/// Answers may take their time, but not block the thread: every client of the socket is served by it.
#[async_trait]
pub trait Hooks: Debug + Send + Sync + 'static {
    /// How the program fares, as an object.
    ///
    /// # Errors
    /// Are the client's answer.
    async fn health(&self) -> Result<Value> {
        Err(unsupported("health"))
    }

    /// What it measures, in Prometheus' text format.
    ///
    /// # Errors
    /// Are the client's answer.
    async fn metrics(&self) -> Result<String> {
        Err(unsupported("metrics"))
    }

    /// Reads its configuration again. Gives what changed, as an object.
    ///
    /// # Errors
    /// Are the client's answer; nothing changed then.
    async fn reload(&self) -> Result<Value> {
        Err(unsupported("reload"))
    }

    /// Learns what the socket does, for metrics. Must not block.
    fn observe(&self, event: AdminEvent) {
        let _ = event;
    }

    /// Makes the span of a request. `traceparent` is what came with it and may be any text, empty if nothing
    /// came; whoever follows traces makes the span below that.
    fn span(&self, method: &'static str, traceparent: &str) -> Span {
        let _ = traceparent;
        tracing::info_span!("admin.request", method)
    }

    /// Logs as `level` says from now on, and for `period` only if there is one.
    ///
    /// # Errors
    /// Are the client's answer; `InvalidArgument` for a level that there is not.
    async fn set_log_level(&self, level: &str, period: Option<Duration>) -> Result<()> {
        let _ = (level, period);
        Err(unsupported("log_level"))
    }
}

/// Who moves the network of the store to another database.
#[async_trait]
pub trait Migrations: Debug + Send + Sync + 'static {
    /// Does what is asked for by `by`. Gives where the migration stands then, as an object.
    ///
    /// # Errors
    /// Are the client's answer.
    async fn migrate(&self, request: MigrateRequest, by: &str) -> Result<Value>;
}

/// What the socket does. Nothing in it is free text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdminEvent {
    /// A request was served.
    Request {
        /// The name of its method.
        method: &'static str,
        /// From when it was read until all of its answer but the end was written.
        took: Duration,
        /// The name of its error's kind, if it was refused or its client given up.
        error: Option<&'static str>,
    },
    /// A client came, or went.
    Connection {
        /// Which of the two.
        opened: bool,
    },
    /// A client was not taken in.
    Rejected {
        /// The name of the error's kind that it was told.
        reason: &'static str,
    },
}

/// Of a program that has no answers.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHooks;

impl Hooks for NoHooks {}

fn unsupported(method: &'static str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "the program that has the store open does not do this on its admin socket",
    )
    .with("method", method)
}
