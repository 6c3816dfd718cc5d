//! What `Observe` says to `tracing`. Alone in its process: `tracing` remembers for the whole process
//! which spans anybody wants, and tests beside this one would be seen or would unsettle that.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use ghostwire_store_core::backend::{Backend, Commit, KeyRange, Scan};
use ghostwire_store_core::block::{ChangeKind, RowChange};
use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::layer::{Chaos, FaultKind, Observe};
use ghostwire_store_core::schema::{RowKey, Table};
use ghostwire_store_memory::MemoryBackend;

/// Remembers the fields of spans and events, as text.
#[derive(Clone, Default)]
struct Fields(Arc<Mutex<Vec<(&'static str, String)>>>);

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn Debug) {
        self.0.lock().unwrap().push((field.name(), format!("{value:?}")));
    }
}

impl tracing::Subscriber for Fields {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        span.record(&mut self.clone());
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn spans_have_the_names_of_opentelemetry_and_no_secrets() {
    let fields = Fields::default();
    tracing::subscriber::set_global_default(fields.clone()).unwrap();
    let chaos = Chaos::new(Arc::new(MemoryBackend::new(StoreId::from_bytes([1; 16]))));
    chaos.faults().fail_next_commits(1, FaultKind::Before);
    let observe = Observe::new(Arc::new(chaos), Arc::new(()));
    let put = |number: u8| RowChange {
        table: Table::Users,
        kind: ChangeKind::Created,
        key: RowKey::new().id(&[number; 16]),
        body: Some("mkey:secret".into()),
    };
    observe
        .scan(Scan { range: KeyRange::all(Table::Users), reverse: false, limit: 9 })
        .await
        .unwrap();
    let one = Commit { rows: vec![put(1)], ..Commit::default() };
    observe.commit(&one).await.unwrap_err();
    observe.commit(&one).await.unwrap();
    observe.commit(&Commit { rows: vec![put(1), put(2)], ..Commit::default() }).await.unwrap();
    observe.head().await.unwrap();
    let mut seen = std::mem::take(&mut *fields.0.lock().unwrap());
    // The memory backend below says nothing of what it stores.
    seen.retain(|(name, _)| *name != "message");
    let of = |name: &'static str, operation: &'static str| {
        [
            ("otel.name", name),
            ("otel.kind", "client"),
            ("db.system.name", "memory"),
            ("db.operation.name", operation),
        ]
    };
    let mut wanted = of("scan users", "scan").to_vec();
    wanted.push(("db.collection.name", "users"));
    // A commit's span is the writer's; what failed is an event all the same.
    wanted.push(("error.type", "unavailable"));
    wanted.extend(of("head", "head"));
    let seen: Vec<_> = seen.iter().map(|(name, value)| (*name, value.trim_matches('"'))).collect();
    assert_eq!(seen, wanted);
}
