//! Comparing what stores hold.

use std::collections::BTreeSet;
use std::sync::Arc;

use ghostwire_store_core::command::{Image, Restore};
use ghostwire_store_core::digest::Digests;
use ghostwire_store_core::domain::*;
use ghostwire_store_core::portable::{Item, Reader, Writer};
use ghostwire_store_core::schema::Table;
use ghostwire_store_core::{Entity, Store};

use crate::case::{Check, Judged, Verdict, cases};
use crate::cases::credentials::secrets::user;
use crate::cases::import::restore::sample;
use crate::cases::series::audit::trail;
use crate::cases::views::snapshots::busy_day;
use crate::factory::{Factory, Opening};
use crate::stack::Stack;
use crate::suite::Effort;
use crate::world::{Mode, World};

cases! {
    stored {
        "digests" => [
            every_kind_of_change_changes_the_right_digest,
            content_that_comes_back_has_its_digest_back,
            revisions_times_and_hashes_are_content,
        ],
    }
}

pub(crate) const CHECKS: &[Check] = &[Check {
    rule: "digests",
    name: "what_was_carried_over_has_equal_digests",
    run: |factory, effort| -> Judged<'static> {
        Box::pin(what_was_carried_over_has_equal_digests(factory, effort))
    },
}];

async fn every_kind_of_change_changes_the_right_digest(world: &mut World) {
    let mut store = world.open().await;
    let mut before = store.digests().await.unwrap();
    let mut seen = BTreeSet::from([before.state.to_string()]);
    for image in sample() {
        let entity = image.entity();
        restore(&store, image).await;
        store = world.pass(store).await;
        let after = store.digests().await.unwrap();
        assert!(seen.insert(after.state.to_string()), "{entity}");
        assert_eq!((after.metrics, after.audit), (before.metrics, before.audit), "{entity}");
        before = after;
    }
    store.metrics().record(point(1.0)).await.unwrap();
    store = world.pass(store).await;
    let after = store.digests().await.unwrap();
    assert_ne!(after.metrics, before.metrics);
    assert_eq!(Digests { metrics: before.metrics, ..after }, before);
    before = after;
    store.audit().append(vec![entry("anna")]).await.unwrap();
    store = world.pass(store).await;
    let after = store.digests().await.unwrap();
    assert_ne!(after.audit, before.audit);
    assert_eq!(Digests { audit: before.audit, ..after }, before);
    before = after;
    // An administrative write changes the state and the trail.
    store.users().create(user("bertha")).await.unwrap();
    store = world.pass(store).await;
    let after = store.digests().await.unwrap();
    assert_ne!(after.state, before.state);
    assert_ne!(after.audit, before.audit);
    assert_eq!(after.metrics, before.metrics);
}

async fn content_that_comes_back_has_its_digest_back(world: &mut World) {
    let store = world.open().await;
    busy_day(world, &store).await;
    store.metrics().record(point(1.0)).await.unwrap();
    store.audit().append(vec![entry("anna")]).await.unwrap();
    let store = world.pass(store).await;
    let before = store.digests().await.unwrap();
    let carol = store.users().create(user("carol")).await.unwrap();
    store.metrics().record(point(2.0)).await.unwrap();
    store.audit().append(vec![entry("bert")]).await.unwrap();
    let between = store.digests().await.unwrap();
    assert_ne!(between.state, before.state);
    assert_ne!(between.metrics, before.metrics);
    assert_ne!(between.audit, before.audit);
    store.users().delete(carol.id, false).await.unwrap();
    store.metrics().record(point(1.0)).await.unwrap();
    let store = world.pass(store).await;
    let after = store.digests().await.unwrap();
    assert_eq!((after.state, after.metrics), (before.state, before.metrics));
    assert_ne!(after.audit, before.audit, "the trail tells what happened");
    store.audit().append(vec![entry("anna")]).await.unwrap();
    store.metrics().prune(Timestamp::MAX).await.unwrap();
    store.audit().prune(Timestamp::MAX).await.unwrap();
    let store = world.pass(store).await;
    let emptied = store.digests().await.unwrap();
    assert_eq!(emptied.state, before.state);
    assert_ne!(emptied.metrics, before.metrics);
    assert_ne!(emptied.audit, before.audit);
}

async fn revisions_times_and_hashes_are_content(world: &mut World) {
    let mut store = world.open().await;
    restore(&store, sample().remove(0)).await;
    let base = store.digests().await.unwrap().state;
    let Some(Image::ApiKey(key)) = sample().into_iter().nth(5) else { panic!("an API key") };
    let key = ApiKey::clone(&key);
    let later = |at: Timestamp| at.saturating_add(std::time::Duration::from_micros(1));
    let mut seen = BTreeSet::from([base.to_string()]);
    for variant in [
        key.clone(),
        ApiKey { revision: key.revision.next(), ..key.clone() },
        ApiKey { created_at: later(key.created_at), ..key.clone() },
        ApiKey { last_used_at: None, ..key.clone() },
        ApiKey { last_used_at: key.last_used_at.map(later), ..key.clone() },
        ApiKey { hash: SecretHash::hmac([1; 4], [99; 32]), ..key.clone() },
        ApiKey { hash: SecretHash::hmac([2; 4], [2; 32]), ..key.clone() },
        ApiKey { description: None, ..key.clone() },
        ApiKey { description: "".parse().ok(), ..key.clone() },
        ApiKey { user: None, ..key.clone() },
        ApiKey { id: ApiKeyId::from_bytes([32; 16]), ..key.clone() },
    ] {
        let id = variant.id;
        restore(&store, Image::ApiKey(variant.clone().into())).await;
        store = world.pass(store).await;
        let digest = store.digests().await.unwrap().state;
        assert!(seen.insert(digest.to_string()), "{variant:?}");
        store.api_keys().delete(id).await.unwrap();
        assert_eq!(store.digests().await.unwrap().state, base);
    }
}

/// By way of the portable form, in another order, with other serials, into a store of another
/// identity.
async fn what_was_carried_over_has_equal_digests(
    factory: Arc<dyn Factory>,
    effort: Effort,
) -> Verdict {
    for mode in Mode::ALL {
        let make = |seed| World::create(factory.as_ref(), &STACK, mode, seed);
        let mut from = make(effort.seed).await.unwrap();
        let mut to = make(effort.seed + 1).await.unwrap();
        let store = from.open().await;
        busy_day(&from, &store).await;
        let store = from.pass(store).await;
        let expected = store.digests().await.unwrap();
        let exported = export(&store).await;
        assert_eq!(export(&store).await, exported, "the same content gives the same bytes");

        let opening = Opening::new(StoreId::from_bytes([9; 16]));
        let backend = to.try_open_backend(opening).await.unwrap();
        to.advance(1_000_000);
        let copy = ghostwire_store_core::open(backend, to.options()).await.unwrap();
        import(&copy, &exported).await;
        assert_ne!(copy.view().serial(), store.view().serial());
        assert_eq!(copy.digests().await.unwrap(), expected, "{mode:?}");
        let copy = to.pass(copy).await;
        assert_eq!(copy.digests().await.unwrap(), expected, "{mode:?}");
        // Importing once more changes nothing.
        let serial = copy.view().serial();
        import(&copy, &exported).await;
        let copy = to.pass(copy).await;
        assert_eq!(copy.view().serial(), serial);
        assert_eq!(copy.digests().await.unwrap(), expected, "{mode:?}");
        assert_eq!(export(&copy).await, exported);
        copy.dns().delete(copy.view().dns_records().iter().next().unwrap().id).await.unwrap();
        assert_ne!(copy.digests().await.unwrap().state, expected.state);
    }
    Verdict::Passed
}

static STACK: std::sync::LazyLock<Stack> = std::sync::LazyLock::new(Stack::bare);

async fn export(store: &Arc<dyn Store>) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new()).unwrap();
    let view = store.view();
    for image in view.images() {
        writer.image(&image).unwrap();
    }
    let query =
        MetricQuery { node: None, metric: None, from: Timestamp::EPOCH, to: Timestamp::MAX };
    let page = PageRequest::first(Limit::MAX);
    for point in store.metrics().range(&query, &page).await.unwrap().items {
        writer.metric(&point).unwrap();
    }
    for entry in trail(store, &AuditQuery::default(), 1000).await {
        writer.audit(&entry).unwrap();
    }
    writer.finish(None).unwrap().0
}

async fn import(store: &Arc<dyn Store>, exported: &[u8]) {
    let items: Vec<_> = Reader::new(exported).unwrap().map(Result::unwrap).collect();
    // Tables have to come in their order; within them the last one comes first.
    for table in Table::STATE {
        for item in items.iter().rev() {
            if let Item::Image(image) = item
                && image.table() == table
            {
                restore(store, image.clone()).await;
            }
        }
    }
    for item in items.iter().rev() {
        match item {
            Item::Image(_) => {}
            Item::Metric(point) => store.metrics().record(point.clone()).await.unwrap(),
            Item::Audit(entry) => store.audit().append(vec![entry.clone()]).await.unwrap(),
        }
    }
}

async fn restore(store: &Arc<dyn Store>, image: Image) {
    let restore = Restore { images: vec![image], skip_invalid: false };
    store.restore(restore).await.unwrap();
}

fn point(value: f64) -> MetricPoint {
    MetricPoint {
        node: None,
        metric: "load".parse().unwrap(),
        at: Timestamp::EPOCH,
        value: Sample::new(value).unwrap(),
    }
}

fn entry(actor: &str) -> AuditEntry {
    AuditEntry {
        id: AuditId::from_bytes([9; 16]),
        at: Timestamp::EPOCH,
        actor: actor.parse().unwrap(),
        action: "test".parse().unwrap(),
        entity: Entity::Audit,
        subject: "".parse().unwrap(),
    }
}
