//! A backend whose calls are told to a recorder.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;
use tracing::Instrument;
use tracing::field::Empty;

use crate::backend::{
    Attestation, AttestedState, Backend, BackendInfo, Budget, Commit, ConnectionObserver, Head,
    Scan, ScanPage,
};
use crate::block::{EncodedBlock, Serial};
use crate::error::Result;
use crate::observe::{CANCELLED, Event, Recorder, system_name};
use crate::position::Epoch;
use crate::schema::{Schema, Table};

/// Tells a [`Recorder`] of every call of a backend and how long it took, and describes it to `tracing`. It
/// changes no answer. [`open`](fn@crate::store::open) puts it on a backend whose store has a recorder; nothing
/// else tells of calls, so none is counted twice.
///
/// Each call is a span `backend.call` on level DEBUG, and each failed one an event in it. A commit's is
/// opened by the writer, which links it to the commands that it makes durable. The fields have the stable
/// names of OpenTelemetry: `db.system.name`, `db.operation.name`, `db.collection.name` (a scan's table) and
/// `error.type` ([`ErrorKind::name`](crate::ErrorKind::name)). Neither keys nor bodies nor the texts of errors
/// are among them.
#[derive(Debug, Clone)]
pub struct Observe {
    inner: Arc<dyn Backend>,
    backend: &'static str,
    recorder: Arc<dyn Recorder>,
}

impl Observe {
    /// On top of `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>, recorder: Arc<dyn Recorder>) -> Self {
        let backend = inner.info().name;
        Self { inner, backend, recorder }
    }

    fn span(&self, operation: &'static str, table: Option<Table>) -> tracing::Span {
        let collection = table.map(Table::name);
        let name = |collection| match collection {
            Some(collection) => format!("{operation} {collection}"),
            None => operation.to_owned(),
        };
        tracing::debug_span!(
            "backend.call",
            otel.name = display(name(collection)),
            otel.kind = "client",
            db.system.name = system_name(self.backend),
            db.namespace = self.recorder.namespace(),
            db.operation.name = operation,
            db.collection.name = collection,
            error.type = Empty,
        )
    }

    async fn observe<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let call = self.call(operation, None, self.span(operation, None));
        call.watch(work).await
    }

    fn call(&self, operation: &'static str, table: Option<Table>, span: tracing::Span) -> Call<'_> {
        let recorder = self.recorder.as_ref();
        let (began, failure) = (Instant::now(), Some(CANCELLED));
        Call { recorder, backend: self.backend, span, operation, table, began, failure }
    }
}

/// A call under way. It is told of when it is dropped, so also if its future is.
struct Call<'a> {
    recorder: &'a dyn Recorder,
    backend: &'static str,
    span: tracing::Span,
    operation: &'static str,
    table: Option<Table>,
    began: Instant,
    failure: Option<&'static str>,
}

impl Call<'_> {
    async fn watch<T>(mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let outcome = work.instrument(self.span.clone()).await;
        self.failure = outcome.as_ref().err().map(|error| error.kind().name());
        outcome
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        if let Some(failure) = self.failure {
            self.span.record("error.type", failure);
            self.span.in_scope(|| {
                tracing::debug!("error.type" = failure, "a call of the backend failed");
            });
        }
        let collection = self.table.map(Table::name);
        let Self { backend, operation, failure: error, .. } = *self;
        self.recorder.record(&Event::Call { backend, operation, collection, took, error });
    }
}

#[async_trait]
impl Backend for Observe {
    fn info(&self) -> BackendInfo {
        self.inner.info()
    }

    async fn head(&self) -> Result<Head> {
        self.observe("head", self.inner.head()).await
    }

    fn lagging_answers(&self) -> u64 {
        self.inner.lagging_answers()
    }

    async fn revision(&self) -> Result<Option<u64>> {
        self.inner.revision().await
    }

    async fn migrate(&self, target: Schema) -> Result<()> {
        self.observe("migrate", self.inner.migrate(target)).await
    }

    async fn scan(&self, scan: Scan) -> Result<ScanPage> {
        let table = Some(scan.range.table);
        self.call("scan", table, self.span("scan", table)).watch(self.inner.scan(scan)).await
    }

    async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        self.observe("blocks", self.inner.blocks(after, limit)).await
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        let span = tracing::Span::none();
        self.call("commit", None, span).watch(self.inner.commit(commit)).await
    }

    async fn maintain(&self, budget: Budget) -> Result<bool> {
        self.observe("maintain", self.inner.maintain(budget)).await
    }

    async fn confirm(&self) -> Result<()> {
        self.observe("confirm", self.inner.confirm()).await
    }

    async fn probe(&self, epoch: Epoch) -> Result<()> {
        self.observe("probe", self.inner.probe(epoch)).await
    }

    async fn adopt(&self, head: &Head) -> Result<()> {
        self.observe("adopt", self.inner.adopt(head)).await
    }

    async fn reopen(&self) -> Result<Head> {
        self.observe("reopen", self.inner.reopen()).await
    }

    async fn verify(&self) -> Result<()> {
        self.observe("verify", self.inner.verify()).await
    }

    async fn attest(&self, state: &AttestedState) -> Result<Attestation> {
        self.observe("attest", self.inner.attest(state)).await
    }

    fn observe_connections(&self, observer: Arc<dyn ConnectionObserver>) {
        self.inner.observe_connections(observer);
    }

    fn announce_close(&self) {
        self.inner.announce_close();
    }

    async fn close(&self) -> Result<()> {
        self.observe("close", self.inner.close()).await
    }
}
