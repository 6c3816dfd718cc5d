//! What callers of a store with a pin see: nothing is answered before the pin has it.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use crate::common::pinned::*;
use futures_util::StreamExt as _;
use ghostwire_store_core::backend::{Backend, Commit};
use ghostwire_store_core::domain::{Actor, AuditQuery, Limit, NewUser, PageRequest, SystemClock};
use ghostwire_store_core::entropy::SystemEntropy;
use ghostwire_store_core::error::{ErrorKind, Result};
use ghostwire_store_core::options::StoreOptions;
use ghostwire_store_core::store::{Store, begin_timeline};
use ghostwire_store_zqlite::{PinOptions, ZqliteBackend, ZqliteOptions};

/// A program that keeps its line in a file, and ends instead while there is a file `broken`.
const KEEPER: &str = r#"
    while read -r word rest; do
        if [ -e "$1.broken" ]; then exit 1; fi
        held=none code=none commit=none
        if [ -s "$1" ]; then read -r held < "$1"; code=${held##* }; set -- "$1" $held; commit=$7; fi
        case $word in
        read) if [ "$held" = none ]; then echo none; else echo "mark $held"; fi ;;
        advance)
            from=${rest%% *} line=${rest#* }
            if [ "$from" = "$code" ]; then echo "$line" > "$1"; set -- "$1" $line; echo "ok $7"
            else echo "refused $commit"; fi ;;
        esac
    done
"#;

fn kept_by_a_program(site: &Site) -> ZqliteOptions {
    let arguments = ["-c", KEEPER, "pin", site.pin.to_str().unwrap()].map(str::to_owned);
    site.options_with(PinOptions::command("/bin/sh", arguments.into()).key(pin_key()))
}

async fn opened(options: ZqliteOptions) -> Arc<dyn Store> {
    let backend = ZqliteBackend::open(options).await.unwrap();
    ghostwire_store_core::open(Arc::new(backend), StoreOptions::default()).await.unwrap()
}

async fn create(store: &dyn Store, name: &str) -> Result<()> {
    store.users().create(NewUser::local(name.parse().unwrap())).await.map(drop)
}

fn names(store: &dyn Store) -> BTreeSet<String> {
    store.view().users().iter().map(|user| user.name.to_string()).collect()
}

#[tokio::test]
async fn while_the_pin_cannot_be_moved_nothing_is_answered_or_accepted() {
    let site = Site::new();
    let broken = beside(&site.pin, ".broken");
    let store = opened(kept_by_a_program(&site)).await;
    create(&*store, "before").await.unwrap();
    fs::write(&broken, "").unwrap();
    let error = create(&*store, "during").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown);
    assert!(error.to_string().contains("the pin"), "{error}");
    for _ in 0..2 {
        let error = create(&*store, "refused").await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("pin"), "{error}");
    }
    // Nor is it shown.
    assert_eq!(names(&*store), BTreeSet::from(["before".to_owned()]));
    fs::remove_file(&broken).unwrap();
    create(&*store, "after").await.unwrap();
    let expected = ["after", "before", "during"].map(str::to_owned);
    assert_eq!(names(&*store), BTreeSet::from(expected));
    store.close().await.unwrap();
}

/// With commits that overlap: whoever got an error of unknown outcome finds out, and nothing is half there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pin_that_fails_among_many_callers_loses_and_invents_nothing() {
    let site = Site::new();
    let broken = beside(&site.pin, ".broken");
    let store = opened(kept_by_a_program(&site)).await;
    let mut expected = BTreeSet::new();
    for round in 0..6 {
        let callers: Vec<_> = (0..64)
            .map(|caller| {
                let (store, broken) = (store.clone(), broken.clone());
                tokio::spawn(async move {
                    let name = format!("u{round}-{caller}");
                    let outcome = create(&*store, &name).await;
                    // In the middle of it all.
                    if caller == 7 * round {
                        fs::write(&broken, "").unwrap();
                    }
                    (name, outcome)
                })
            })
            .collect();
        let (mut maybe, mut refused) = (BTreeSet::new(), BTreeSet::new());
        for caller in callers {
            let (name, outcome) = caller.await.unwrap();
            match outcome.map_err(|error| error.kind().clone()) {
                Ok(()) => drop(expected.insert(name)),
                Err(ErrorKind::OutcomeUnknown) => drop(maybe.insert(name)),
                Err(_) => drop(refused.insert(name)),
            }
        }
        let _ = fs::remove_file(&broken);
        let last = format!("last-{round}");
        create(&*store, &last).await.unwrap();
        expected.insert(last);
        let found = names(&*store);
        assert!(found.is_superset(&expected), "round {round}");
        assert!(found.is_disjoint(&refused), "round {round}");
        let more: BTreeSet<_> = found.difference(&expected).cloned().collect();
        assert!(more.is_subset(&maybe), "round {round}");
        expected = found;
    }
    store.checkpoint().await.unwrap();
    store.verify().await.unwrap();
    store.close().await.unwrap();
    let store = opened(kept_by_a_program(&site)).await;
    assert_eq!(names(&*store), expected);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_store_that_a_clone_has_overtaken_ends() {
    let site = Site::new();
    let store = opened(site.options()).await;
    create(&*store, "before").await.unwrap();
    // As if a clone had moved it.
    let pin = fs::read(&site.pin).unwrap();
    create(&*store, "between").await.unwrap();
    fs::write(&site.pin, pin).unwrap();
    let error = create(&*store, "after").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert!(error.to_string().contains("a copy of this store runs"), "{error}");
    let error = store.close().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Fenced { .. }), "{error}");
    let error = create(&*store, "later").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Fenced { .. }), "{error}");
    let id = store.view().users().iter().next().unwrap().id;
    let error = store.users().get(id).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Fenced { .. }), "{error}");
}

#[tokio::test]
async fn a_rollback_that_is_accepted_begins_a_new_epoch() {
    for site in Site::both() {
        begins_a_new_epoch(site).await;
    }
}

async fn begins_a_new_epoch(site: Site) {
    let store = opened(site.options()).await;
    create(&*store, "kept").await.unwrap();
    store.close().await.unwrap();
    let older = site.copy();
    let store = opened(site.options()).await;
    create(&*store, "lost").await.unwrap();
    let newer = store.view().log_position();
    store.close().await.unwrap();
    let overridden = fs::read(&site.pin).unwrap();
    site.put_back(&older);
    let serial = site.compared().await.store.serial;
    let accepting = |serial| site.options_with(site.pin().accept_rollback(serial));
    let error = ZqliteBackend::open(accepting(serial.next())).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Restricted, "{error}");
    // It is opened for that one commit.
    let backend = ZqliteBackend::open(accepting(serial)).await.unwrap();
    let before = backend.head().await.unwrap();
    let error = backend.commit(&Commit::on(&before)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Restricted, "{error}");
    assert_eq!(fs::read(&site.pin).unwrap(), overridden);
    let (clock, entropy) = (SystemClock, SystemEntropy);
    let begin = begin_timeline(&backend, before.epoch.next(), Actor::system(), &clock, &entropy);
    let head = begin.await.unwrap();
    let begun = site.copy();
    assert_eq!((head.epoch, head.serial), (before.epoch.next(), serial));
    assert_ne!(head.lineage, before.lineage);
    backend.close().await.unwrap();
    assert_eq!(site.compared().await.verdict, "equal");
    // Killed before the new mark: it is not asked again.
    site.put_back(&begun);
    fs::write(&site.pin, &overridden).unwrap();
    assert_eq!(site.compared().await.verdict, "accepted");
    let store = opened(site.options()).await;
    assert_eq!(names(&*store), BTreeSet::from(["kept".to_owned()]));
    let lines = AuditQuery { action: Some("pin.accept".parse().unwrap()), ..AuditQuery::default() };
    let page = store.audit().query(&lines, &PageRequest::first(Limit::MAX)).await.unwrap();
    assert_eq!(page.items[0].subject.as_str(), serial.to_string());
    // Whoever followed the other history is told.
    create(&*store, "other").await.unwrap();
    assert_eq!(store.view().serial(), newer.serial);
    let followed = store.watch_from(newer).next().await;
    assert!(followed.unwrap().is_err());
    store.close().await.unwrap();
    // Neither the copy from before nor the pin from before is taken any more.
    let pin = fs::read(&site.pin).unwrap();
    site.put_back(&older);
    assert_eq!(*site.refusal().await.kind(), ErrorKind::Corrupt);
    assert_eq!(fs::read(&site.pin).unwrap(), pin);
}
