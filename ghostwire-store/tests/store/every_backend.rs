//! What the facade adds, on every backend that is compiled in. The rules themselves are proved by
//! the conformance suite.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use crate::world::{Site, registration};
use ghostwire_store::config::SeriesOptions;
use ghostwire_store::domain::*;
use ghostwire_store::{ErrorKind, Opener, apply_retention};

/// Runs `life` on every backend, in both ways of materialising.
async fn on_every_backend<F, L>(life: L)
where
    L: Fn(Site) -> F,
    F: Future<Output = ()>,
{
    for site in Site::all() {
        life(site).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_there_after_a_reopen() {
    on_every_backend(|mut site| async move {
        let store = site.open().await;
        let alice = store.users().create(NewUser::local("alice".parse().unwrap())).await.unwrap();
        let new = NewPreAuthKey { user: Some(alice.id), ..NewPreAuthKey::default() };
        let (key, secret) = store.preauth_keys().create(new).await.unwrap();
        let node =
            store.nodes().register(registration(1, Admission::PreAuthKey(key.id))).await.unwrap();
        store.policies().swap(None, DocumentText::new("{}").unwrap()).await.unwrap();
        let digests = store.digests().await.unwrap();
        let serial = store.view().serial();

        let store = site.reopen_without_closing(store).await;
        assert_eq!(store.view().serial(), serial);
        assert_eq!(store.digests().await.unwrap(), digests, "from blocks");
        store.verify().await.unwrap();

        store.close().await.unwrap();
        let store = site.open().await;
        assert_eq!(store.digests().await.unwrap(), digests, "from rows");
        assert_eq!(store.info().dirty_rows, 0);
        let found = store.nodes().get_by_node_key(&node.node_key).await.unwrap();
        assert_eq!(found.as_deref(), Some(node.as_ref()));
        let again = store.preauth_keys().authenticate(secret.expose()).await.unwrap();
        assert_eq!(again.id, key.id);
        assert!(again.used_at.is_some());
        store.close().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changing_when_rows_are_written_loses_nothing() {
    use ghostwire_store::config::Materialize;
    for mut site in Site::all().into_iter().filter(|site| site.config.backend.path().is_some()) {
        site.materialize(Materialize::Checkpoint);
        let store = site.open().await;
        store.users().create(NewUser::local("alice".parse().unwrap())).await.unwrap();
        let digests = store.digests().await.unwrap();
        // As after a crash: the blocks are not flushed.
        let mut site = site.crashed(store);
        site.materialize(Materialize::Commit);
        let store = site.open().await;
        assert_eq!(store.digests().await.unwrap(), digests);
        store.users().create(NewUser::local("bob".parse().unwrap())).await.unwrap();
        let digests = store.digests().await.unwrap();
        let mut site = site.crashed(store);
        let store = site.open().await;
        assert_eq!(store.info().dirty_rows, 0);
        assert_eq!(store.digests().await.unwrap(), digests);
        store.verify().await.unwrap();
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_hash_key_is_not_replaced() {
    for mut site in Site::with_key_files() {
        let store = site.open().await;
        let (_, secret) = store.api_keys().create(NewApiKey::default()).await.unwrap();
        store.close().await.unwrap();
        let key = site.config.secret_key_path().unwrap();
        std::fs::rename(&key, key.with_extension("away")).unwrap();
        // Whoever does not ask for it is not turned away by every login.
        for read_only in [false, true] {
            let opener = Opener::new(&site.config).read_only(read_only);
            let error = opener.clone().open().await.map(drop).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Crypto, "{error}");
            assert!(error.to_string().contains(".key"), "{error}");
            opener.allow_missing_key(true).open().await.unwrap().close().await.unwrap();
        }
        std::os::unix::fs::symlink("/nonexistent/key", &key).unwrap();
        let opener = Opener::new(&site.config).allow_missing_key(true);
        assert_eq!(*opener.open().await.map(drop).unwrap_err().kind(), ErrorKind::NotFound);
        std::fs::remove_file(&key).unwrap();
        let store = opener.open().await.unwrap();
        let error = store.api_keys().authenticate(secret.expose()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Crypto);
        assert!(!key.exists());
        store.close().await.unwrap();
        std::fs::rename(key.with_extension("away"), &key).unwrap();
        let store = site.open().await;
        store.api_keys().authenticate(secret.expose()).await.unwrap();
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_store_is_made_beside_the_key_of_one_that_was_lost() {
    for mut site in Site::with_key_files() {
        let path = site.config.backend.path().unwrap().to_owned();
        site.open().await.close().await.unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_file(format!("{}.lock", path.display())).unwrap();
        for content in [None, Some("")] {
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let error = Opener::new(&site.config).open().await.map(drop).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
            assert!(error.to_string().contains(".key"), "{error}");
            assert_eq!(path.exists(), content.is_some(), "a file was made");
        }
        // Whoever names the key means it.
        site.config.secret_key_file = site.config.secret_key_path();
        site.open().await.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_cannot_have_its_key_is_not_made() {
    for site in Site::all().into_iter().filter(|site| site.config.backend.path().is_some()) {
        let path = site.config.backend.path().unwrap();
        let directory = path.parent().unwrap();
        let names = || std::fs::read_dir(directory).unwrap().count();
        let beside = |suffix: &str| std::path::PathBuf::from(format!("{}{suffix}", path.display()));
        for (key, kind) in [
            (directory.join("nosuch/key"), ErrorKind::NotFound),
            (directory.join("k".repeat(250)), ErrorKind::InvalidArgument),
            (directory.to_owned(), ErrorKind::InvalidArgument),
            (path.to_owned(), ErrorKind::InvalidArgument),
            (beside("-wal"), ErrorKind::InvalidArgument),
            (beside(".lock"), ErrorKind::InvalidArgument),
            (beside(".reserve"), ErrorKind::InvalidArgument),
        ] {
            let mut config = site.config.clone();
            config.secret_key_file = Some(key.clone());
            let error = Opener::new(&config).open().await.map(drop).unwrap_err();
            assert_eq!(*error.kind(), kind, "{error}");
            assert_eq!(names(), 0, "{}", key.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_was_cut_short_says_what_to_do() {
    for mut site in Site::with_key_files() {
        site.open().await.close().await.unwrap();
        let key = site.config.secret_key_path().unwrap();
        let whole = std::fs::read(&key).unwrap();
        for length in [0, 1, 63] {
            // In place: who may read it stays.
            std::fs::write(&key, &whole[..length]).unwrap();
            let error = Opener::new(&site.config).open().await.map(drop).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Crypto);
            assert!(error.to_string().contains("remove it and start again"), "{error}");
        }
        std::fs::remove_file(&key).unwrap();
        let store = site.open().await;
        let (_, secret) = store.api_keys().create(NewApiKey::default()).await.unwrap();
        store.close().await.unwrap();
        // Now something needs it.
        let made = std::fs::read(&key).unwrap();
        std::fs::write(&key, &made[..63]).unwrap();
        let error = Opener::new(&site.config).open().await.map(drop).unwrap_err();
        assert!(!error.to_string().contains("remove it"), "{error}");
        std::fs::write(&key, &made).unwrap();
        let store = site.open().await;
        store.api_keys().authenticate(secret.expose()).await.unwrap();
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_removes_what_is_older_than_the_configuration_keeps() {
    on_every_backend(|mut site| async move {
        let store = site.open().await;
        let now = SystemClock.now();
        let day = Duration::from_secs(86_400);
        let metric: MetricName = "load".parse().unwrap();
        for days in 0..4 {
            let at = now.saturating_sub(day * days).saturating_add(Duration::from_secs(3600));
            let value = Sample::new(1.0).unwrap();
            let point = MetricPoint { node: None, metric: metric.clone(), at, value };
            store.metrics().record(point).await.unwrap();
        }
        store.users().create(NewUser::local("alice".parse().unwrap())).await.unwrap();
        let options = SeriesOptions { metrics_retention_days: Some(2), audit_retention_days: None };
        let pruned = apply_retention(store.as_ref(), &options).await.unwrap();
        assert!(pruned.metrics_before >= Some(now.saturating_sub(day * 2)));
        assert_eq!(pruned.audit_before, None);
        let store = site.reopen_without_closing(store).await;
        let query = MetricQuery {
            node: None,
            metric: Some(metric),
            from: Timestamp::EPOCH,
            to: Timestamp::MAX,
        };
        assert_eq!(store.metrics().aggregate(&query).await.unwrap().unwrap().count, 3);
        let page = PageRequest::default();
        let trail = store.audit().query(&AuditQuery::default(), &page).await.unwrap();
        assert_eq!(trail.items.len(), 1, "kept for ever");
        store.close().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_a_clock_that_jumped_retention_removes_nothing() {
    let site = Site::all().pop().unwrap();
    let right = SystemClock.now();
    let clock = ManualClock::new(right);
    let opener = Opener::new(&site.config).clock(Arc::new(clock.clone()));
    let store = opener.open().await.unwrap();
    let value = Sample::new(1.0).unwrap();
    let point = MetricPoint { node: None, metric: "load".parse().unwrap(), at: right, value };
    store.metrics().record(point).await.unwrap();
    let options = SeriesOptions { metrics_retention_days: Some(2), audit_retention_days: Some(2) };
    clock.step(right.saturating_add(Duration::from_secs(60 * 365 * 86_400)));
    let error = apply_retention(store.as_ref(), &options).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    let query = MetricQuery { node: None, metric: None, from: right, to: Timestamp::MAX };
    assert!(store.metrics().aggregate(&query).await.unwrap().is_some());
    clock.step(right);
    apply_retention(store.as_ref(), &options).await.unwrap();
    assert!(store.metrics().aggregate(&query).await.unwrap().is_some());
    clock.advance(Duration::from_secs(2 * 86_400 + 1));
    apply_retention(store.as_ref(), &options).await.unwrap();
    assert!(store.metrics().aggregate(&query).await.unwrap().is_none());
    store.close().await.unwrap();
}
