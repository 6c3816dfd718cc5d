//! A file of the first schema is carried through every later one.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use crate::world::{self, Site, registration};
use ghostwire_store::domain::*;
use ghostwire_store::{ErrorKind, Opener};
use ghostwire_store_core::schema::{MIGRATIONS, Schema};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_1_file_goes_through_every_later_version() {
    for site in Site::all().into_iter().filter(|site| site.config.backend.path().is_some()) {
        let path = site.config.backend.path().unwrap().to_owned();
        // The backend alone, so that it stays at version 1; blocks and rows of that version.
        let old = Opener::new(&site.config).schema(Schema::at(1).unwrap());
        let backend = old.open_backend().await.unwrap();
        assert_eq!(backend.head().await.unwrap().schema.version, 1);
        world::write_as_version_1(backend.as_ref()).await;
        backend.close().await.unwrap();

        for step in MIGRATIONS.iter().skip(1) {
            let version = step.to.version;
            let backend = Opener::new(&site.config).create(false).open_backend().await.unwrap();
            let from = backend.head().await.unwrap().schema.version;
            backend.migrate(Schema::at(version).unwrap()).await.unwrap();
            assert_eq!(backend.head().await.unwrap().schema, step.to);
            backend.close().await.unwrap();
            let backup = format!("{}.v{from}.bak", path.display());
            assert!(std::fs::metadata(&backup).unwrap().len() > 0, "{backup}");
        }
        // A backend alone makes no hash key.
        let opener = || Opener::new(&site.config).create(false).allow_missing_key(true);
        let store = opener().open().await.unwrap();
        store.verify().await.unwrap();
        let record = store.view().dns_records().iter().next().cloned().unwrap();
        assert_eq!((record.value.as_str(), record.ttl), ("10.0.0.1", None));
        let patch = DnsRecordPatch { ttl: Patch::Set(60), ..DnsRecordPatch::default() };
        store.dns().update(record.id, patch, Some(record.revision)).await.unwrap();
        let digests = store.digests().await.unwrap();
        store.close().await.unwrap();
        let store = opener().open().await.unwrap();
        assert_eq!(store.digests().await.unwrap(), digests);
        store.close().await.unwrap();

        // The copy from before the upgrade is a whole store of its own.
        let mut before = site.config.clone();
        let backup = std::path::PathBuf::from(format!("{}.v1.bak", path.display()));
        world::move_to(&mut before, backup);
        let backend = Opener::new(&before).create(false).open_backend().await.unwrap();
        assert_eq!(backend.head().await.unwrap().schema.version, 1);
        backend.verify().await.unwrap();
        backend.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_happens_at_open_and_keeps_the_state() {
    for mut site in Site::all().into_iter().filter(|site| site.config.backend.path().is_some()) {
        let old = Opener::new(&site.config).schema(Schema::at(1).unwrap());
        old.open_backend().await.unwrap().close().await.unwrap();
        let store = site.open().await;
        assert_eq!(store.info().backend.name, site.config.backend.kind().name());
        let alice = store.users().create(NewUser::local("alice".parse().unwrap())).await.unwrap();
        let admission = Admission::User { user: alice.id, method: RegisterMethod::Cli };
        store.nodes().register(registration(1, admission)).await.unwrap();
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_gets_a_clear_error_at_once() {
    for mut site in Site::all().into_iter().filter(|site| site.config.backend.path().is_some()) {
        let store = site.open().await;
        let error = Opener::new(&site.config).open().await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Busy);
        let path = site.config.backend.path().unwrap().display().to_string();
        assert!(error.to_string().contains(&path), "{error}");
        store.close().await.unwrap();
        Opener::new(&site.config).open().await.unwrap().close().await.unwrap();
    }
}
