//! Spans: from the call of a repository to the batch and its commit. Names are those of OpenTelemetry's
//! conventions for databases. A span that nobody wants costs next to nothing, and neither ids nor keys nor
//! texts of errors are among the fields.

use std::fmt;

use tracing::Span;
use tracing::field::Empty;

use crate::backend::Commit;
use crate::command::Command;
use crate::error::Result;

/// Where a commit goes.
#[derive(Clone, Copy)]
pub(crate) struct Database<'n> {
    pub(crate) system: &'static str,
    /// What the store is called.
    pub(crate) namespace: Option<&'n str>,
}

/// What a span is called: the operation and the collection that it is about.
struct Name<'n>(&'n str, Option<&'n str>);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(operation, None) => f.write_str(operation),
            Self(operation, Some(collection)) => write!(f, "{operation} {collection}"),
        }
    }
}

/// What a command does, without what it does it to.
fn operation(name: &'static str) -> &'static str {
    name.split_once('.').map_or(name, |(_, operation)| operation)
}

/// Of a write, from call to answer.
pub(crate) fn write(command: &Command, namespace: Option<&str>) -> Span {
    let (name, collection) = (command.name(), command.collection());
    let span = tracing::debug_span!(
        "store.write",
        otel.name = display(Name(operation(name), collection)),
        otel.kind = "internal",
        db.namespace = namespace,
        db.operation.name = operation(name),
        db.collection.name = collection,
        db.operation.batch.size = Empty,
        ghostwire.store.command = command.told_name(),
        error.type = Empty,
    );
    if let Some(steps) = command.steps().filter(|steps| *steps > 1) {
        span.record("db.operation.batch.size", steps);
    }
    span
}

/// Of rows of a series that are written.
pub(crate) fn write_series(operation_name: &'static str, namespace: Option<&str>) -> Span {
    let collection = if operation_name.starts_with("metric") { "metrics" } else { "audit" };
    tracing::debug_span!(
        "store.write",
        otel.name = display(Name(operation(operation_name), Some(collection))),
        otel.kind = "internal",
        db.namespace = namespace,
        db.operation.name = operation(operation_name),
        db.collection.name = collection,
        ghostwire.store.command = operation_name,
        error.type = Empty,
    )
}

/// Of a batch, below the first of its writes that anybody follows; none if nobody follows any.
pub(crate) fn batch<'s>(mut writes: impl Iterator<Item = &'s Span>, commands: usize) -> Span {
    let Some(first) = writes.find(|span| !span.is_disabled()) else { return Span::none() };
    // Entered, so that whoever samples sees that the one above is followed.
    first.in_scope(|| {
        tracing::debug_span!(
            "writer.batch",
            otel.name = "batch",
            otel.kind = "internal",
            ghostwire.store.commands = commands,
        )
    })
}

/// Of a commit, linked to every write that it makes durable. A group of writes is no batch in the sense of
/// the conventions, so it has no `db.operation.batch.size`.
pub(crate) fn commit<'s>(
    batch: &Span,
    database: Database<'_>,
    commit: &Commit,
    writes: impl Iterator<Item = &'s Span>,
) -> Span {
    if batch.is_disabled() {
        return Span::none();
    }
    let span = batch.in_scope(|| lone_commit(database, commit));
    for write in writes.filter(|span| !span.is_disabled()) {
        span.follows_from(write);
    }
    span
}

/// Of a commit that only flushes, or serves no write.
pub(crate) fn lone_commit(database: Database<'_>, commit: &Commit) -> Span {
    let block = commit.block.as_ref();
    tracing::debug_span!(
        "backend.call",
        otel.name = "commit",
        otel.kind = "client",
        db.system.name = database.system,
        db.namespace = database.namespace,
        db.operation.name = "commit",
        ghostwire.store.serial = block.map(|block| block.serial.get()),
        ghostwire.store.bytes = block.map_or(0, |block| block.bytes.len()),
        ghostwire.store.rows = commit.rows.len(),
        error.type = Empty,
    )
}

/// Notes in a span how it ended.
pub(crate) fn ended<T>(span: &Span, outcome: &Result<T>) {
    if let Err(error) = outcome {
        span.record("error.type", error.kind().name());
    }
}
