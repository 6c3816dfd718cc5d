//! Comparing what stores hold.

use ghostwire_store_core::portable::{Item, Reader};

use crate::cases::import::restore::sample;
use crate::prelude::*;

cases! {
    stored {
        "digests" => [
            every_kind_of_change_changes_the_right_digest,
            content_that_comes_back_has_its_digest_back,
            revisions_times_and_hashes_are_content,
        ],
    }
}

pub(crate) const CHECKS: &[Check] = &[check!(
    "digests",
    what_was_carried_over_has_equal_digests,
    what_was_carried_over_has_equal_digests
)];

async fn every_kind_of_change_changes_the_right_digest(env: &mut TestEnv, mut store: Opened) {
    let mut before = store.digests().await.unwrap();
    let mut seen = BTreeSet::from([before.state.to_string()]);
    for image in sample() {
        let entity = image.entity();
        restore(&store, vec![image]).await.unwrap();
        store = env.reload(store).await;
        let after = store.digests().await.unwrap();
        assert!(seen.insert(after.state.to_string()), "{entity}");
        assert_eq!((after.metrics, after.audit), (before.metrics, before.audit), "{entity}");
        before = after;
    }
    store.metrics().record(load(1.0)).await.unwrap();
    store = env.reload(store).await;
    let after = store.digests().await.unwrap();
    assert_ne!(after.metrics, before.metrics);
    assert_eq!(Digests { metrics: before.metrics, ..after }, before);
    before = after;
    store.audit().append(vec![entry_by("anna")]).await.unwrap();
    store = env.reload(store).await;
    let after = store.digests().await.unwrap();
    assert_ne!(after.audit, before.audit);
    assert_eq!(Digests { audit: before.audit, ..after }, before);
    before = after;
    // An administrative write changes the state and the trail.
    create(&store, "bertha").await;
    store = env.reload(store).await;
    let after = store.digests().await.unwrap();
    assert_ne!(after.state, before.state);
    assert_ne!(after.audit, before.audit);
    assert_eq!(after.metrics, before.metrics);
}

async fn content_that_comes_back_has_its_digest_back(env: &mut TestEnv, store: Opened) {
    populate(env, &store).await;
    store.metrics().record(load(1.0)).await.unwrap();
    store.audit().append(vec![entry_by("anna")]).await.unwrap();
    let store = env.reload(store).await;
    let before = store.digests().await.unwrap();
    let carol = create(&store, "carol").await;
    store.metrics().record(load(2.0)).await.unwrap();
    store.audit().append(vec![entry_by("bert")]).await.unwrap();
    let between = store.digests().await.unwrap();
    assert_ne!(between.state, before.state);
    assert_ne!(between.metrics, before.metrics);
    assert_ne!(between.audit, before.audit);
    store.users().delete(carol.id, false).await.unwrap();
    store.metrics().record(load(1.0)).await.unwrap();
    let store = env.reload(store).await;
    let after = store.digests().await.unwrap();
    assert_eq!((after.state, after.metrics), (before.state, before.metrics));
    assert_ne!(after.audit, before.audit, "the trail tells what happened");
    store.audit().append(vec![entry_by("anna")]).await.unwrap();
    store.metrics().prune(Timestamp::MAX).await.unwrap();
    store.audit().prune(Timestamp::MAX).await.unwrap();
    let store = env.reload(store).await;
    let emptied = store.digests().await.unwrap();
    assert_eq!(emptied.state, before.state);
    assert_ne!(emptied.metrics, before.metrics);
    assert_ne!(emptied.audit, before.audit);
}

async fn revisions_times_and_hashes_are_content(env: &mut TestEnv, mut store: Opened) {
    restore(&store, vec![sample().remove(0)]).await.unwrap();
    let base = store.digests().await.unwrap().state;
    let Some(EntityRecord::ApiKey(key)) = sample().into_iter().nth(5) else { panic!("an API key") };
    let key = ApiKey::clone(&key);
    let later = |at: Timestamp| at.saturating_add(MICROSECOND);
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
        restore(&store, vec![EntityRecord::from(variant.clone())]).await.unwrap();
        store = env.reload(store).await;
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
    let stack = Stack::bare();
    for mode in Mode::ALL {
        let make = |seed| TestEnv::create(&*factory, &stack, mode, seed);
        let mut from = make(effort.seed).await.unwrap();
        let mut to = make(effort.seed + 1).await.unwrap();
        let store = from.open().await;
        populate(&from, &store).await;
        let store = from.reload(store).await;
        let expected = store.digests().await.unwrap();
        let bytes = exported(&store).await;
        assert_eq!(exported(&store).await, bytes, "the same content gives the same bytes");

        let opening = Opening::new(StoreId::from_bytes([9; 16]));
        let backend = to.try_open_backend(opening).await.unwrap();
        to.advance(1_000_000);
        let copy = ghostwire_store_core::open(backend, to.options()).await.unwrap();
        import(&copy, &bytes).await;
        assert_ne!(copy.view().serial(), store.view().serial());
        assert_eq!(copy.digests().await.unwrap(), expected, "{mode:?}");
        let copy = to.reload(copy).await;
        assert_eq!(copy.digests().await.unwrap(), expected, "{mode:?}");
        // Importing once more changes nothing.
        let serial = copy.view().serial();
        import(&copy, &bytes).await;
        let copy = to.reload(copy).await;
        assert_eq!(copy.view().serial(), serial);
        assert_eq!(copy.digests().await.unwrap(), expected, "{mode:?}");
        assert_eq!(exported(&copy).await, bytes);
        copy.dns().delete(copy.view().dns_records().iter().next().unwrap().id).await.unwrap();
        assert_ne!(copy.digests().await.unwrap().state, expected.state);
    }
    Verdict::Passed
}

async fn exported(store: &Opened) -> Vec<u8> {
    let mut bytes = Vec::new();
    export(store, &mut bytes).await;
    bytes
}

async fn import(store: &Opened, exported: &[u8]) {
    let items: Vec<_> = Reader::new(exported).unwrap().map(Result::unwrap).collect();
    // Tables have to come in their order; within them the last one comes first.
    for table in Table::STATE {
        for item in items.iter().rev() {
            if let Item::Entity(image) = item
                && image.table() == table
            {
                restore(store, vec![image.clone()]).await.unwrap();
            }
        }
    }
    for item in items.iter().rev() {
        match item {
            Item::Entity(_) => {}
            Item::Metric(point) => store.metrics().record(point.clone()).await.unwrap(),
            Item::Audit(entry) => store.audit().append(vec![entry.clone()]).await.unwrap(),
        }
    }
}

fn load(value: f64) -> MetricPoint {
    point(None, "load", Timestamp::EPOCH, value)
}

fn entry_by(actor: &str) -> AuditEntry {
    AuditEntry { actor: actor.parse().unwrap(), ..entry(9, Timestamp::EPOCH) }
}
