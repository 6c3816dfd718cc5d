//! Policies: versions of a text that the store does not interpret.

use crate::prelude::*;

cases! {
    stored {
        "policy-swap" => [
            each_swap_is_the_next_version_and_in_force,
            a_swap_from_another_version_is_a_conflict,
            of_32_swaps_at_once_one_wins,
            a_document_is_not_interpreted,
            a_document_of_4_mib_is_kept,
        ],
        "policy-empty" => [an_empty_policy_is_a_policy_and_not_none],
        "policy-rollback" => [
            rolling_back_makes_a_new_version_of_the_old_text,
            rolling_back_to_what_is_not_kept_is_not_found,
            rolling_back_from_another_version_is_a_conflict,
        ],
        "policy-prune" => [
            pruning_keeps_the_newest,
            pruning_to_zero_keeps_the_policy_in_force,
            versions_go_on_after_pruning,
        ],
    }
    once_unopened {
        "policy-swap" => [a_document_has_a_limit],
    }
}

async fn each_swap_is_the_next_version_and_in_force(env: &mut TestEnv, store: Opened) {
    assert_eq!(store.policies().current().await.unwrap(), None);
    let admin = store.acting_as("admin".parse().unwrap());
    let mut versions = Vec::new();
    for (number, text) in (1..).zip(["one", "two", "two"]) {
        env.advance(1);
        let policy = admin.policies().swap(number_before(number), document(text)).await.unwrap();
        let expected = Policy {
            version: version(number),
            document: document(text),
            author: "admin".parse().unwrap(),
            created_at: env.clock().now(),
        };
        assert_eq!(*policy, expected);
        versions.push(policy);
    }
    let store = env.reload(store).await;
    assert_eq!(store.policies().current().await.unwrap().as_ref(), versions.last());
    for policy in &versions {
        assert_eq!(store.policies().get(policy.version).await.unwrap().as_ref(), Some(policy));
    }
    assert_eq!(store.policies().get(version(4)).await.unwrap(), None);
    versions.reverse();
    assert_eq!(history(&store).await, versions);
    assert_eq!(audit_of(&store, 2).await, ["policy.swap by admin"]);
    let id = some_node(&store).await.id;
    assert_eq!(store.view().netmap(id).unwrap().policy.as_ref(), versions.first());
}

async fn a_swap_from_another_version_is_a_conflict(env: &mut TestEnv, store: Opened) {
    let swap =
        |expected: Option<u64>| store.policies().swap(expected.map(version), document("other"));
    refused(&store, swap(Some(1)), Conflict).await;
    store.policies().swap(None, document("one")).await.unwrap();
    for expected in [None, Some(2)] {
        refused(&store, swap(expected), Conflict).await;
    }
    store.policies().swap(Some(version(1)), document("two")).await.unwrap();
    let store = env.reload(store).await;
    for expected in [None, Some(1), Some(3), Some(i64::MAX as u64)] {
        refused(&store, store.policies().swap(expected.map(version), document("other")), Conflict)
            .await;
    }
    assert_eq!(texts(&store).await, ["two", "one"]);
}

async fn of_32_swaps_at_once_one_wins(env: &mut TestEnv, store: Opened) {
    for number in 1..=3 {
        let calls = (0..32).map(|which| {
            let store = store.clone();
            let text = document(&format!("{number} by {which}"));
            tokio::spawn(async move { store.policies().swap(number_before(number), text).await })
        });
        let calls: Vec<_> = calls.collect();
        let outcomes = join_all(calls).await.into_iter().map(|call| call.unwrap());
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 31));
        for error in lost.into_iter().filter_map(Result::err) {
            assert_eq!(*error.kind(), Conflict);
        }
        let winner = won.into_iter().next().unwrap().unwrap();
        assert_eq!(winner.version, version(number));
        assert_eq!(store.policies().current().await.unwrap(), Some(winner));
    }
    let store = env.reload(store).await;
    assert_eq!(store.view().policies().len(), 3);
}

async fn a_document_is_not_interpreted(env: &mut TestEnv, store: Opened) {
    let given = [
        "// hujson\r\n{\"acls\": [,],}\t\n\n",
        "{",
        " \u{feff}日本 🦀 \u{1}\u{7f}\u{85} e\u{301} ",
        "'; DROP TABLE policies; --",
        "null",
        "\n",
    ];
    for (number, text) in (1..).zip(given) {
        store.policies().swap(number_before(number), document(text)).await.unwrap();
    }
    let store = env.reload(store).await;
    let mut kept = texts(&store).await;
    kept.reverse();
    assert_eq!(kept, given);
}

async fn a_document_of_4_mib_is_kept(env: &mut TestEnv, store: Opened) {
    // No two pieces are alike, so that a lost or repeated page shows.
    let mut text: String = (0..).map(|number| format!("é{number},")).take(600_000).collect();
    text.truncate(4 * 1024 * 1024 - 1);
    text.push('.');
    assert_eq!(text.len(), DocumentText::MAX_BYTES);
    store.policies().swap(None, document(&text)).await.unwrap();
    store.policies().swap(Some(version(1)), document("short")).await.unwrap();
    let store = env.reload(store).await;
    let kept = store.policies().get(version(1)).await.unwrap().unwrap();
    assert!(kept.document.as_str() == text, "the text came back otherwise");
    let again = store.policies().rollback(version(2), version(1)).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(again.version, version(3));
    let kept = store.policies().current().await.unwrap().unwrap();
    assert!(kept.document.as_str() == text, "the text came back otherwise");
}

async fn a_document_has_a_limit(_: &mut TestEnv) {
    let longest = "é".repeat(DocumentText::MAX_BYTES / 2);
    assert_eq!(longest.len(), 4 * 1024 * 1024);
    DocumentText::new(&longest).unwrap();
    for bad in [longest + ".", "a\0".to_owned()] {
        fails(DocumentText::new(&bad), InvalidArgument);
    }
}

async fn an_empty_policy_is_a_policy_and_not_none(env: &mut TestEnv, store: Opened) {
    user(&store, "alice").await;
    let store = env.reload(store).await;
    assert_eq!(store.policies().current().await.unwrap(), None);
    assert!(store.view().policies().is_empty());
    let empty = store.policies().swap(None, document("")).await.unwrap();
    let store = env.reload(store).await;
    let store = env.reopen(store).await;
    let current = store.policies().current().await.unwrap();
    assert_eq!(current.as_ref(), Some(&empty));
    assert_eq!((empty.version, empty.document.as_str()), (PolicyVersion::FIRST, ""));
    assert!(!store.view().policies().is_empty());
    // So there is a version to expect, and one to go back to.
    refused(&store, store.policies().swap(None, document("x")), Conflict).await;
    store.policies().swap(Some(empty.version), document("x")).await.unwrap();
    store.policies().rollback(version(2), version(1)).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(texts(&store).await, ["", "x", ""]);
}

async fn rolling_back_makes_a_new_version_of_the_old_text(env: &mut TestEnv, store: Opened) {
    for (number, text) in (1..).zip(["one", "two", "three"]) {
        store.policies().swap(number_before(number), document(text)).await.unwrap();
    }
    let store = env.reload(store).await;
    env.advance(1);
    let admin = store.acting_as("admin".parse().unwrap());
    let back = admin.policies().rollback(version(3), version(1)).await.unwrap();
    let expected = Policy {
        version: version(4),
        document: document("one"),
        author: "admin".parse().unwrap(),
        created_at: env.clock().now(),
    };
    assert_eq!(*back, expected);
    // To what is in force already, too.
    store.policies().rollback(version(4), version(4)).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(texts(&store).await, ["one", "one", "three", "two", "one"]);
    assert_eq!(audit_of(&store, 4).await, ["policy.rollback by admin"]);
}

async fn rolling_back_to_what_is_not_kept_is_not_found(env: &mut TestEnv, store: Opened) {
    refused(&store, store.policies().rollback(version(1), version(1)), NotFound).await;
    for (number, text) in (1..).zip(["one", "two", "three"]) {
        store.policies().swap(number_before(number), document(text)).await.unwrap();
    }
    assert_eq!(store.policies().prune(2).await.unwrap(), 1);
    let store = env.reload(store).await;
    for gone in [1, 4] {
        refused(&store, store.policies().rollback(version(3), version(gone)), NotFound).await;
    }
    store.policies().rollback(version(3), version(2)).await.unwrap();
}

async fn rolling_back_from_another_version_is_a_conflict(env: &mut TestEnv, store: Opened) {
    for (number, text) in (1..).zip(["one", "two"]) {
        store.policies().swap(number_before(number), document(text)).await.unwrap();
    }
    let store = env.reload(store).await;
    for stale in [1, 3] {
        refused(&store, store.policies().rollback(version(stale), version(1)), Conflict).await;
    }
    assert_eq!(texts(&store).await, ["two", "one"]);
}

async fn pruning_keeps_the_newest(env: &mut TestEnv, store: Opened) {
    assert_eq!(idle(&store, store.policies().prune(1)).await, 0);
    for number in 1..=6 {
        store.policies().swap(number_before(number), document(&number.to_string())).await.unwrap();
    }
    let store = env.reload(store).await;
    for keep in [6, 7, u32::MAX] {
        assert_eq!(idle(&store, store.policies().prune(keep)).await, 0);
    }
    assert_eq!(store.policies().prune(4).await.unwrap(), 2);
    let store = env.reload(store).await;
    assert_eq!(texts(&store).await, ["6", "5", "4", "3"]);
    assert_eq!(store.policies().get(version(2)).await.unwrap(), None);
    assert_eq!(store.policies().prune(1).await.unwrap(), 3);
    let store = env.reload(store).await;
    assert_eq!(texts(&store).await, ["6"]);
}

async fn pruning_to_zero_keeps_the_policy_in_force(env: &mut TestEnv, store: Opened) {
    for (number, text) in (1..).zip(["one", ""]) {
        store.policies().swap(number_before(number), document(text)).await.unwrap();
    }
    let store = env.reload(store).await;
    assert_eq!(store.policies().prune(0).await.unwrap(), 1);
    let store = env.reload(store).await;
    assert_eq!(texts(&store).await, [""]);
    assert_eq!(idle(&store, store.policies().prune(0)).await, 0);
}

async fn versions_go_on_after_pruning(env: &mut TestEnv, store: Opened) {
    for number in 1..=3 {
        store.policies().swap(number_before(number), document("x")).await.unwrap();
    }
    store.policies().prune(1).await.unwrap();
    let store = env.reload(store).await;
    refused(&store, store.policies().swap(None, document("y")), Conflict).await;
    let next = store.policies().swap(Some(version(3)), document("y")).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(next.version, version(4));
    assert_eq!(store.policies().current().await.unwrap(), Some(next));
}

fn document(text: &str) -> DocumentText {
    DocumentText::new(text).unwrap()
}

fn version(number: u64) -> PolicyVersion {
    PolicyVersion::new(number).unwrap()
}

/// What has to be in force for this version to come next.
fn number_before(number: u64) -> Option<PolicyVersion> {
    (number > 1).then(|| version(number - 1))
}

/// All versions that are kept, newest first.
async fn history(store: &Opened) -> Vec<Arc<Policy>> {
    store.policies().history(&PageRequest::first(Limit::MAX)).await.unwrap().items
}

async fn texts(store: &Opened) -> Vec<String> {
    history(store).await.iter().map(|policy| policy.document.as_str().to_owned()).collect()
}
