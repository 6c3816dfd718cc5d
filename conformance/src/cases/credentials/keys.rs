//! What keys are for, who made them, how many there may be, and which are swept.

use crate::prelude::*;

cases! {
    stored {
        "api-key-permissions" => [permissions_and_maker_are_kept],
        "key-limit" => [
            a_user_has_as_many_live_api_keys_as_the_settings_allow,
            a_user_has_as_many_usable_preauth_keys_as_the_settings_allow,
            of_keys_made_at_once_no_more_than_the_limit_come,
        ],
        "key-sweep" => [
            what_ended_before_a_moment_is_removed,
            nodes_of_swept_keys_stay,
            a_key_that_a_machine_may_show_again_stays,
        ],
    }
}

async fn permissions_and_maker_are_kept(env: &mut TestEnv, store: Opened) {
    let names = ["nodes:read", "nodes:write", "nodes:read"];
    let permissions = PermissionSet::new(names.map(|name| name.parse().unwrap())).unwrap();
    let new = NewApiKey { permissions: permissions.clone(), ..NewApiKey::default() };
    let anna = store.acting_as("anna".parse().unwrap());
    let (key, text) = anna.api_keys().create(new).await.unwrap();
    let (plain, plain_text) = store.api_keys().create(NewApiKey::default()).await.unwrap();
    drop(anna);
    let store = env.reload(store).await;
    let found = store.api_keys().authenticate(text.expose()).await.unwrap();
    assert_eq!((found.id, &found.permissions), (key.id, &permissions));
    assert_eq!(permissions.len(), 2);
    assert_eq!(found.created_by.as_ref().map(ActorName::as_str), Some("anna"));
    let found = store.api_keys().authenticate(plain_text.expose()).await.unwrap();
    assert_eq!((found.id, found.permissions.len(), &found.created_by), (plain.id, 0, &None));
    // Whoever revokes it has not made it.
    let bert = store.acting_as("bert".parse().unwrap());
    let revoked = bert.api_keys().revoke(key.id).await.unwrap();
    assert_eq!((&revoked.created_by, &revoked.permissions), (&key.created_by, &permissions));
    let many = (0..65).map(|number| format!("p{number}").parse().unwrap());
    assert_eq!(*PermissionSet::new(many).unwrap_err().kind(), InvalidArgument);
}

/// Sets how many API keys and pre-auth keys a user may have.
async fn limit(store: &Opened, api_keys: Option<u32>, preauth_keys: Option<u32>) {
    let network = NetworkSettings {
        max_api_keys_per_user: api_keys,
        max_preauth_keys_per_user: preauth_keys,
        ..NetworkSettings::default()
    };
    store.settings().put(SettingDocument::Network(network), None).await.unwrap();
}

async fn a_user_has_as_many_live_api_keys_as_the_settings_allow(env: &mut TestEnv, store: Opened) {
    let (alice, bob) = (user(&store, "alice").await, user(&store, "bob").await);
    let expiring = NewApiKey { expires_at: Some(at(60)), ..api_key_of(alice) };
    store.api_keys().create(expiring).await.unwrap();
    let (second, _) = store.api_keys().create(api_key_of(alice)).await.unwrap();
    limit(&store, Some(2), None).await;
    let store = env.reload(store).await;
    let error = fails(store.api_keys().create(api_key_of(alice)).await, Exhausted);
    assert_eq!(error.entity(), Some(EntityKind::ApiKey));
    assert!(error.context().contains(&("limit", "2".to_owned())), "{error}");
    // Another user has room, and nobody's keys are not counted.
    store.api_keys().create(api_key_of(bob)).await.unwrap();
    for _ in 0..3 {
        store.api_keys().create(NewApiKey::default()).await.unwrap();
    }
    // Ended ones leave room, each at its moment.
    store.api_keys().revoke(second.id).await.unwrap();
    store.api_keys().create(api_key_of(alice)).await.unwrap();
    let store = env.reload(store).await;
    env.clock().set(at(60).saturating_sub(MICROSECOND));
    fails(store.api_keys().create(api_key_of(alice)).await, Exhausted);
    env.clock().set(at(60));
    let (last, _) = store.api_keys().create(api_key_of(alice)).await.unwrap();
    fails(store.api_keys().create(api_key_of(alice)).await, Exhausted);
    // A lower limit takes nothing away; the default is none.
    limit(&store, Some(0), None).await;
    assert!(store.view().api_keys().get(last.id).unwrap().is_active(at(60)));
    fails(store.api_keys().create(api_key_of(bob)).await, Exhausted);
    store.settings().reset(SettingKind::Network).await.unwrap();
    let store = env.reload(store).await;
    store.api_keys().create(api_key_of(alice)).await.unwrap();
    store.preauth_keys().create(one_time(alice)).await.unwrap();
}

async fn a_user_has_as_many_usable_preauth_keys_as_the_settings_allow(
    env: &mut TestEnv,
    store: Opened,
) {
    let alice = user(&store, "alice").await;
    limit(&store, Some(0), Some(1)).await;
    let key = one_time_key(&store, alice).await;
    let store = env.reload(store).await;
    fails(store.preauth_keys().create(reusable(alice)).await, Exhausted);
    // One that is used up admits nobody any longer.
    register(&store, 1, with(&key)).await;
    let (key, _) = store.preauth_keys().create(reusable(alice)).await.unwrap();
    register(&store, 2, with(&key)).await;
    fails(store.preauth_keys().create(reusable(alice)).await, Exhausted);
    let tagged = NewPreAuthKey { tags: tags(&["tag:server"]), ..NewPreAuthKey::default() };
    store.preauth_keys().create(tagged).await.unwrap();
    store.preauth_keys().revoke(key.id).await.unwrap();
    let store = env.reload(store).await;
    one_time_key(&store, alice).await;
}

async fn of_keys_made_at_once_no_more_than_the_limit_come(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    limit(&store, Some(5), Some(5)).await;
    let calls = (0..20).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let api_key = store.api_keys().create(api_key_of(alice)).await.map(|_| ());
            (api_key, store.preauth_keys().create(one_time(alice)).await.map(|_| ()))
        })
    });
    let (mut api_keys, mut preauth_keys) = (0, 0);
    for made in join_all(calls).await {
        let (api_key, preauth_key) = made.unwrap();
        for (made, count) in [(api_key, &mut api_keys), (preauth_key, &mut preauth_keys)] {
            match made {
                Ok(()) => *count += 1,
                Err(error) => assert_eq!(*error.kind(), Exhausted),
            }
        }
    }
    assert_eq!((api_keys, preauth_keys), (5, 5));
    let store = env.reload(store).await;
    let view = store.view();
    assert_eq!((view.api_keys().of_user(alice).count(), view.preauth_keys().len()), (5, 5));
}

async fn what_ended_before_a_moment_is_removed(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let mut api_keys = Vec::new();
    let mut preauth_keys = Vec::new();
    for end in [Some(10), Some(20), Some(90), None] {
        let expires_at = end.map(at);
        let new = NewApiKey { expires_at, ..api_key_of(alice) };
        api_keys.push(store.api_keys().create(new).await.unwrap().0.id);
        let new = NewPreAuthKey { expires_at, ..one_time(alice) };
        preauth_keys.push(store.preauth_keys().create(new).await.unwrap().0.id);
    }
    env.clock().set(at(15));
    store.api_keys().revoke(api_keys[2]).await.unwrap();
    store.preauth_keys().revoke(preauth_keys[2]).await.unwrap();
    let store = env.reload(store).await;
    env.clock().set(at(19));
    for (before, removed) in [(at(10), 0), (at(11), 1), (at(15), 0), (Timestamp::MAX, 1)] {
        assert_eq!(store.api_keys().sweep_expired(before).await.unwrap(), removed, "{before}");
        assert_eq!(store.preauth_keys().sweep_expired(before).await.unwrap(), removed, "{before}");
    }
    let store = env.reload(store).await;
    let view = store.view();
    let left: BTreeSet<_> = view.api_keys().iter().map(|key| key.id).collect();
    assert_eq!(left, [api_keys[1], api_keys[3]].into(), "what is yet to expire stays");
    let left: BTreeSet<_> = view.preauth_keys().iter().map(|key| key.id).collect();
    assert_eq!(left, [preauth_keys[1], preauth_keys[3]].into());
    let lines = store.audit().query(&AuditQuery::default(), &PageRequest::default()).await.unwrap();
    for action in ["api_key.delete", "preauth_key.delete"] {
        let lines = lines.items.iter().filter(|line| line.action.as_str() == action);
        assert_eq!(lines.count(), 2, "{action}");
    }
}

async fn nodes_of_swept_keys_stay(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let used = one_time_key(&store, alice).await;
    let node = register(&store, 1, with(&used)).await;
    env.advance(1);
    // That it was used up is no end.
    assert_eq!(store.preauth_keys().sweep_expired(Timestamp::MAX).await.unwrap(), 0);
    store.preauth_keys().revoke(used.id).await.unwrap();
    store.nodes().expire(vec![node.id], env.clock().now()).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(store.preauth_keys().sweep_expired(Timestamp::MAX).await.unwrap(), 1);
    let store = env.reload(store).await;
    let left = store.nodes().get(node.id).await.unwrap().unwrap();
    assert_eq!((left.id, left.preauth_key), (node.id, Some(used.id)));
    assert!(store.view().preauth_keys().is_empty());
}

async fn a_key_that_a_machine_may_show_again_stays(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let (key, text) = store.preauth_keys().create(one_time(alice)).await.unwrap();
    let node = register(&store, 1, with(&key)).await;
    store.preauth_keys().revoke(key.id).await.unwrap();
    env.advance(1);
    let store = env.reload(store).await;
    assert_eq!(store.preauth_keys().sweep_expired(Timestamp::MAX).await.unwrap(), 0);
    // The machine starts again, and shows the text that it was given.
    let found = store.preauth_keys().authenticate(text.expose()).await.unwrap();
    assert_eq!(register(&store, 1, with(&found)).await, node);
}
