//! From one schema to the next.

use ghostwire_store_core::schema::{ColumnKind, SchemaVersion, Value};

use super::fixtures::*;

cases! {
    stored_unopened {
        "backend-migrate" => [
            an_older_store_is_brought_forward,
            a_migration_that_is_repeated_does_nothing,
        ],
    }
    once_unopened {
        "backend-migrate" => [a_newer_schema_is_refused_unless_it_admits_this_program],
    }
}

async fn first(env: &TestEnv) -> Arc<dyn Backend> {
    let opening = env.opening().schema(Schema::at(1).unwrap());
    let backend = env.try_open_backend(opening).await.unwrap();
    for table in Schema::at(1).unwrap().tables() {
        commit_block(&backend, (0..5).map(|number| put(table, number, number)).collect()).await;
    }
    backend
}

/// Bodies as today's schema has them; what came with it is nothing in an older store.
fn fitted(content: &Content, table: Table) -> Vec<Row> {
    let fit = |row: &Row| Row {
        key: row.key.clone(),
        body: Schema::current().fit(table, &row.body).unwrap(),
    };
    content.rows[&table].iter().map(fit).collect()
}

async fn an_older_store_is_brought_forward(env: &mut TestEnv) {
    let backend = first(env).await;
    let mut backend = env.reload_backend(backend).await;
    let before = Content::of(&backend).await;
    assert_eq!(before.head.schema, Schema::at(1).unwrap().version());
    assert_eq!(before.blocks.len(), Schema::at(1).unwrap().tables().count());
    backend.migrate(Schema::current()).await.unwrap();
    for _ in 0..2 {
        let after = Content::of(&backend).await;
        let wanted = Head { schema: Schema::current().version(), ..before.head };
        assert_eq!(after.head, wanted);
        assert_eq!(backend.reopen().await.unwrap(), wanted);
        assert_eq!(after.blocks, before.blocks);
        for table in Schema::at(1).unwrap().tables() {
            assert_eq!(fitted(&after, table), fitted(&before, table), "{table:?}");
        }
        backend = env.reload_backend(backend).await;
    }
    // What the newer schema added can be stored now.
    let with_all = body_of(Table::DnsRecords, |column| match column.kind {
        ColumnKind::Text => Value::Text("t"),
        _ => Value::Integer(60),
    });
    let row = image(Table::DnsRecords, key(Table::DnsRecords, 2), with_all.clone());
    commit_block(&backend, vec![row]).await;
    let backend = env.reload_backend(backend).await;
    assert_eq!(rows_of(&backend, Table::DnsRecords).await[2].body, with_all);
}

async fn a_migration_that_is_repeated_does_nothing(env: &mut TestEnv) {
    let backend = first(env).await;
    let before = Content::of(&backend).await;
    backend.migrate(Schema::at(1).unwrap()).await.unwrap();
    assert_eq!(Content::of(&backend).await, before);
    backend.migrate(Schema::current()).await.unwrap();
    let backend = env.reload_backend(backend).await;
    let after = Content::of(&backend).await;
    for _ in 0..2 {
        backend.migrate(Schema::current()).await.unwrap();
        // Nor does it go back: who knows no more than that may not even read it.
        let error = backend.migrate(Schema::at(1).unwrap()).await.unwrap_err();
        assert!(matches!(error.kind(), SchemaMismatch { .. }), "{error}");
    }
    let backend = env.reload_backend(backend).await;
    assert_eq!(Content::of(&backend).await, after);
    assert_eq!(after.head.schema, Schema::current().version());
}

/// No program can make a store that is newer than itself, so the head is changed on the way.
async fn a_newer_schema_is_refused_unless_it_admits_this_program(env: &mut TestEnv) {
    let supported = Schema::current().version().version;
    let found = supported + 7;
    let newer = |oldest_reader| SchemaVersion { version: found, oldest_reader };
    let backend = env.open_backend().await;
    commit_block(&backend, vec![]).await;
    let refuses = Arc::new(Newer { inner: backend.clone(), schema: newer(found) });
    let error = ghostwire_store_core::open(refuses, env.options()).await.unwrap_err();
    assert_eq!(*error.kind(), SchemaMismatch { found, supported });
    let text = error.to_string();
    let names = |what: &str, version: u32| text.contains(&format!("{what}={version}"));
    assert!(names("found", found) && names("supported", supported), "{text}");
    let error = Schema::at(found).unwrap_err();
    assert_eq!(*error.kind(), SchemaMismatch { found, supported });
    // Who is refused leaves the backend closed.
    let backend = env.open_backend().await;
    let admits = Arc::new(Newer { inner: backend, schema: newer(1) });
    let store = ghostwire_store_core::open(admits, env.options()).await.unwrap();
    assert_eq!(store.view().serial(), Serial::new(1));
}

/// Says that a newer program made the store.
#[derive(Debug)]
struct Newer {
    inner: Arc<dyn Backend>,
    schema: SchemaVersion,
}

#[async_trait]
impl Layer for Newer {
    fn inner(&self) -> &dyn Backend {
        self.inner.as_ref()
    }

    async fn head(&self) -> Result<Head> {
        Ok(Head { schema: self.schema, ..self.inner.head().await? })
    }

    async fn migrate(&self, target: Schema) -> Result<()> {
        target.steps_from(self.schema).map(drop)
    }

    async fn reopen(&self) -> Result<Head> {
        Ok(Head { schema: self.schema, ..self.inner.reopen().await? })
    }
}
