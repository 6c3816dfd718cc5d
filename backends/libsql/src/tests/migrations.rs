//! Schemas, older and newer.

use super::*;
use crate::meta::MetaLayout;

#[tokio::test]
async fn a_version_1_file_is_carried_forward_and_backed_up() {
    let (_directory, path) = place();
    let first = Schema::at(1).unwrap();
    let options = LibsqlOptions::new(&path, STORE).create(true).schema(first);
    let backend = LibsqlBackend::open(options).await.unwrap();
    fill(&backend).await;
    let before = content(&backend).await.unwrap();
    assert_eq!(before.head.schema, first.version());
    let (_, records) = before.rows.iter().find(|(table, _)| *table == Table::DnsRecords).unwrap();
    // The time to live came with version 2.
    let wanted = first.fit(Table::DnsRecords, &record(0, Some(0)).encode()).unwrap();
    assert_eq!(records[0].body, wanted);
    backend.migrate(first).await.unwrap();
    backend.migrate(Schema::current()).await.unwrap();
    backend.migrate(Schema::current()).await.unwrap();
    let after = content(&backend).await.unwrap();
    assert_eq!(after.head, Head { schema: Schema::current().version(), ..before.head });
    assert_eq!(after.blocks, before.blocks);
    for ((table, before), (_, after)) in before.rows.iter().zip(&after.rows) {
        let fitted = before.iter().map(|row| Row {
            key: row.key.clone(),
            body: Schema::current().fit(*table, &row.body).unwrap(),
        });
        assert!(fitted.eq(after.iter().cloned()), "{table:?}");
    }
    backend.verify().await.unwrap();
    backend.commit(&rows_only(&after.head, vec![put(&record(3, Some(60)))])).await.unwrap();
    let rows = all(&backend, Table::DnsRecords).await.unwrap();
    assert_eq!(rows[3].body, record(3, Some(60)).encode());
    assert_eq!(rows[4].body, record(4, None).encode());
    backend.close().await.unwrap();
    open(&path).await.unwrap().verify().await.unwrap();
    let backup = PathBuf::from(format!("{}.v1.bak", path.display()));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let backup = open(&backup).await.unwrap();
    assert_eq!(content(&backup).await.unwrap(), before);
    backup.verify().await.unwrap();
}

#[tokio::test]
async fn a_file_of_an_older_schema_is_read_as_it_is() {
    for version in [1, 2] {
        let (_directory, path) = place();
        let schema = Schema::at(version).unwrap();
        let options = LibsqlOptions::new(&path, STORE).create(true).schema(schema);
        let backend = LibsqlBackend::open(options).await.unwrap();
        fill(&backend).await;
        let head = backend.head().await.unwrap();
        assert_eq!((head.position.get(), head.serial.get()), (4, 4));
        // What came later has no place yet.
        let later = RowChange { table: Table::Feed, ..put(&node(1)) };
        let error = backend.commit(&rows_only(&head, vec![later])).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::SchemaMismatch { .. }), "{error}");
        let error = backend.adopt(&head).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::SchemaMismatch { .. }), "{error}");
        let before = content(&backend).await.unwrap();
        backend.close().await.unwrap();
        let whole = std::fs::read(&path).unwrap();
        let options = LibsqlOptions::new(&path, STORE).read_only(true);
        let reader = LibsqlBackend::open(options).await.unwrap();
        assert_eq!(content(&reader).await.unwrap(), before);
        assert_eq!(before.head, before.head.carried_forward());
        assert!(all(&reader, Table::Feed).await.unwrap().is_empty());
        reader.verify().await.unwrap();
        let error = reader.migrate(Schema::current()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::ReadOnly);
        reader.close().await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        let backend = open(&path).await.unwrap();
        backend.migrate(Schema::current()).await.unwrap();
        let after = content(&backend).await.unwrap();
        assert_eq!(after.head, Head { schema: Schema::current().version(), ..before.head });
        backend.verify().await.unwrap();
        // A program that does not know the record of a migration would write where it must not.
        assert_eq!(after.head.schema.oldest_reader, 5);
    }
}

#[tokio::test]
async fn a_migration_that_fails_leaves_the_old_schema() {
    let (_directory, path) = place();
    let options = LibsqlOptions::new(&path, STORE).create(true).schema(Schema::at(1).unwrap());
    let backend = LibsqlBackend::open(options).await.unwrap();
    fill(&backend).await;
    let before = content(&backend).await.unwrap();
    edit(&path, "ALTER TABLE dns_records ADD COLUMN ttl INTEGER").await;
    backend.migrate(Schema::current()).await.unwrap_err();
    assert_eq!(content(&backend).await.unwrap(), before);
    edit(&path, "ALTER TABLE dns_records DROP COLUMN ttl").await;
    assert_eq!(backend.reopen().await.unwrap(), before.head);
    // Somebody else's table is let be until its name is wanted.
    edit(&path, "CREATE TABLE consumers (id)").await;
    let error = backend.migrate(Schema::current()).await.unwrap_err();
    assert!(error.to_string().contains("consumers"), "{error}");
    assert_eq!(content(&backend).await.unwrap(), before);
}

#[tokio::test]
async fn a_newer_schema_is_read_by_name_if_it_admits_this_build() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    fill(&backend).await;
    let before = content(&backend).await.unwrap();
    backend.close().await.unwrap();
    let newer = u32::try_from(MIGRATIONS.len()).unwrap() + 1;
    let set = |oldest_reader: u32| {
        let mut link = connect::<Link>(&path, Role::Writer).unwrap();
        let mut head = crate::meta::head(&mut link).unwrap();
        head.schema.version = newer;
        head.schema.oldest_reader = oldest_reader;
        MetaLayout::of(head.schema).move_head(&mut link, &head, &head).unwrap();
        link.run(&format!("PRAGMA user_version = {newer}")).unwrap();
    };
    edit(&path, "ALTER TABLE nodes ADD COLUMN colour TEXT").await;
    edit(&path, "ALTER TABLE nodes ADD COLUMN weight INTEGER").await;
    set(1);
    let backend = open(&path).await.unwrap();
    assert_eq!(content(&backend).await.unwrap().rows, before.rows);
    let head = backend.head().await.unwrap();
    let renamed = Node { hostname: Hostname::new("new").unwrap(), ..node(4) };
    backend.commit(&rows_only(&head, vec![put(&renamed)])).await.unwrap();
    assert_eq!(all(&backend, Table::Nodes).await.unwrap()[4].body, renamed.encode());
    backend.migrate(Schema::current()).await.unwrap();
    backend.verify().await.unwrap();
    backend.close().await.unwrap();
    // What the newer build stores is covered by its check too.
    edit(&path, "UPDATE nodes SET colour = 'red' WHERE hostname = 'host-9'").await;
    let backend = open(&path).await.unwrap();
    let error = all(&backend, Table::Nodes).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt);
    backend.close().await.unwrap();
    set(newer);
    let error = open(&path).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::SchemaMismatch { found: newer, supported: newer - 1 });
}
