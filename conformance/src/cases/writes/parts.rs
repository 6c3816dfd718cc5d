//! Calls over many entities, whose rows are more than one commit holds.

use crate::prelude::*;

cases! {
    stored_unopened {
        "block-size" => [
            backfilling_goes_on_in_parts,
            expiring_goes_on_in_parts,
            disconnecting_all_goes_on_in_parts,
            reaping_goes_on_in_parts,
            deleting_a_user_with_all_it_owns_goes_on_in_parts,
            sweeping_goes_on_in_parts,
            ending_all_sessions_of_a_user_goes_on_in_parts,
            sweeping_expired_keys_goes_on_in_parts,
            in_a_transaction_a_command_is_one_commit_or_none,
        ],
        "backfill" => [too_few_addresses_for_many_parts_change_none],
        "expire" => [a_node_that_does_not_exist_among_many_changes_none],
    }
}

/// The longest block that is allowed here; the calls write several times as much.
const MOST: usize = 64 * 1024;
/// Each of them with a row of some 2 KiB.
const NODES: u32 = 80;
/// Each of them with so many routes.
const ROUTERS: u32 = 16;
const ROUTES: u16 = 300;
/// Of what is small.
const MANY: u32 = 1_000;

async fn open(env: &TestEnv) -> Opened {
    let mut options = env.options();
    options.writer.max_block_bytes = MOST;
    // For those who look at each of the commits.
    options.writer.retain_block_bytes = u64::MAX;
    env.open_with(options).await
}

/// Makes a call that has to take several commits.
async fn in_parts<T>(store: &Opened, call: impl Future<Output = Result<T>>) -> T {
    let before = store.view().serial().get();
    let answer = call.await.unwrap();
    let commits = store.view().serial().get() - before;
    assert!(commits > 1, "{commits} commits");
    answer
}

/// Registers nodes with much to tell about themselves.
async fn many_nodes(store: &Opened, user: UserId) -> Vec<NodeId> {
    let info: HostInfo = format!(r#"{{"OS":"{}"}}"#, "x".repeat(2_000)).parse().unwrap();
    let calls = (1..=NODES).map(|number| {
        let registration = Registration { host_info: info.clone(), ..machine(number, by(user)) };
        async move { store.nodes().register(registration).await.unwrap().id }
    });
    let mut ids = join_all(calls).await;
    ids.sort_unstable();
    ids
}

/// Approves many routes of each of these nodes.
async fn with_routes(store: &Opened, nodes: &[NodeId]) {
    let texts: Vec<_> = (0..ROUTES).map(|n| format!("10.{}.{}.0/24", n / 256, n % 256)).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    for id in nodes {
        approve(store, *id, &texts).await.unwrap();
    }
}

async fn backfilling_goes_on_in_parts(env: &mut TestEnv) {
    let store = open(env).await;
    let alice = user(&store, "alice").await;
    put_network(&store, network(Some("10.1.0.0/24"), None)).await;
    let ids = many_nodes(&store, alice).await;
    put_network(&store, network(Some("10.1.0.0/24"), Some("fd01::/64"))).await;
    env.advance(1);
    assert_eq!(in_parts(&store, store.nodes().backfill_addresses()).await, ids);
    let store = env.reload(store).await;
    let sixes: BTreeSet<_> = store.view().nodes().iter().map(|node| node.ipv6.unwrap()).collect();
    assert_eq!(sixes.len(), ids.len());
    for id in ids {
        let lines = audit_of(&store, id).await;
        assert_eq!(lines, ["node.register by system", "node.backfill_addresses by system"]);
    }
    assert_eq!(idle(&store, store.nodes().backfill_addresses()).await, []);
}

async fn too_few_addresses_for_many_parts_change_none(env: &mut TestEnv) {
    let store = open(env).await;
    let alice = user(&store, "alice").await;
    put_network(&store, network(Some("10.1.0.0/24"), None)).await;
    let ids = many_nodes(&store, alice).await;
    // 63 for 80 nodes: enough for the first part.
    put_network(&store, network(Some("10.1.0.0/24"), Some("fd01::/122"))).await;
    refused(&store, store.nodes().backfill_addresses(), Exhausted).await;
    let store = env.reload(store).await;
    assert!(store.view().nodes().iter().all(|node| node.ipv6.is_none()));
    put_network(&store, network(Some("10.1.0.0/24"), Some("fd01::/121"))).await;
    assert_eq!(store.nodes().backfill_addresses().await.unwrap(), ids);
}

async fn expiring_goes_on_in_parts(env: &mut TestEnv) {
    let store = open(env).await;
    let alice = user(&store, "alice").await;
    let ids = many_nodes(&store, alice).await;
    env.advance(1);
    let at = env.clock().now();
    // In any order, and some of them twice.
    let named: Vec<_> = ids.iter().rev().chain(&ids[..10]).copied().collect();
    assert_eq!(in_parts(&store, store.nodes().expire(named.clone(), at)).await, u64::from(NODES));
    let store = env.reload(store).await;
    assert!(store.view().nodes().iter().all(|node| node.expires_at == Some(at)));
    for id in ids {
        let lines = audit_of(&store, id).await;
        assert_eq!(lines, ["node.register by system", "node.expire by system"]);
    }
    assert_eq!(idle(&store, store.nodes().expire(named, at)).await, 0);
}

async fn a_node_that_does_not_exist_among_many_changes_none(env: &mut TestEnv) {
    let store = open(env).await;
    let alice = user(&store, "alice").await;
    let mut named = many_nodes(&store, alice).await;
    named.push(NodeId::from_bytes([0xff; 16]));
    refused(&store, store.nodes().expire(named, env.clock().now()), NotFound).await;
    let store = env.reload(store).await;
    assert!(store.view().nodes().iter().all(|node| node.expires_at.is_none()));
}

async fn disconnecting_all_goes_on_in_parts(env: &mut TestEnv) {
    const PREFIX: &str = "10.9.0.0/16";
    let store = open(env).await;
    let alice = user(&store, "alice").await;
    let ids = many_nodes(&store, alice).await;
    for id in [ids[0], ids[ids.len() - 1]] {
        carry(&store, id, &[PREFIX]).await;
    }
    let seen_at = env.clock().now();
    let endpoint = |port: u16| Endpoint::new(([192, 0, 2, 1], port).into(), seen_at);
    let endpoints =
        EndpointList::new((1..=EndpointList::MAX_ENDPOINTS as u16).map(endpoint)).unwrap();
    let session = SessionNumber::new(1).unwrap();
    let presence = store.presence();
    let calls = ids.iter().map(|id| presence.connect(*id, session, Update::Set(endpoints.clone())));
    join_all(calls).await.into_iter().for_each(|call| assert!(call.unwrap().online));
    assert!(primary(&store, PREFIX).await.is_some());
    env.advance(60);
    assert_eq!(in_parts(&store, store.presence().disconnect_all()).await, u64::from(NODES));
    let store = env.reload(store).await;
    let view = store.view();
    assert!(view.presence().iter().all(|presence| !presence.online));
    assert!(view.presence().iter().all(|presence| presence.last_seen == Some(seen_at)));
    assert_eq!(primary(&store, PREFIX).await, None);
    assert_eq!(idle(&store, store.presence().disconnect_all()).await, 0);
}

async fn reaping_goes_on_in_parts(env: &mut TestEnv) {
    let store = open(env).await;
    let alice = user(&store, "alice").await;
    let key = store.preauth_keys().create(ephemeral(alice)).await.unwrap().0;
    let mut ids = Vec::new();
    for number in 1..=ROUTERS {
        ids.push(register(&store, number, with(&key)).await.id);
    }
    with_routes(&store, &ids).await;
    let stays = node(&store, alice, 1000).await.id;
    env.advance(1800);
    ids.sort_unstable();
    assert_eq!(in_parts(&store, store.nodes().reap_ephemeral()).await, ids);
    let store = env.reload(store).await;
    assert_eq!(store.view().nodes().iter().map(|node| node.id).collect::<Vec<_>>(), [stays]);
    assert!(store.view().routes().is_empty());
    for id in ids {
        assert_eq!(audit_of(&store, id).await.last().unwrap(), "node.reap by system");
    }
}

async fn deleting_a_user_with_all_it_owns_goes_on_in_parts(env: &mut TestEnv) {
    let store = open(env).await;
    let (alice, bob) = (user(&store, "alice").await, user(&store, "bob").await);
    let mut ids = Vec::new();
    for number in 1..=ROUTERS {
        ids.push(node(&store, alice, number).await.id);
    }
    with_routes(&store, &ids).await;
    let stays = node(&store, bob, 1000).await.id;
    let key = one_time(alice);
    let (key, _) = store.preauth_keys().create(key).await.unwrap();
    let api_key = api_key_of(alice);
    let (api_key, _) = store.api_keys().create(api_key).await.unwrap();
    refused(&store, store.users().delete(alice, false), Restricted).await;
    env.advance(1);
    let before = store.view().serial();
    in_parts(&store, store.users().delete(alice, true)).await;
    // The user goes last, and what admits nodes goes first.
    let commits = (store.view().serial().get() - before.get()) as usize;
    let told: Vec<_> = store.watch(before).take(commits).collect().await;
    let gone: Vec<_> = told
        .into_iter()
        .flat_map(|commit| commit.unwrap().changes)
        .inspect(|change| assert_eq!(change.kind, ChangeKind::Deleted))
        .map(|change| change.handle)
        .collect();
    assert_eq!(gone[..2], [EntityId::PreAuthKey(key.id), EntityId::ApiKey(api_key.id)]);
    assert_eq!(gone.last(), Some(&EntityId::User(alice)));
    let store = env.reload(store).await;
    let view = store.view();
    assert_eq!(view.users().iter().map(|user| user.id).collect::<Vec<_>>(), [bob]);
    assert_eq!(view.nodes().iter().map(|node| node.id).collect::<Vec<_>>(), [stays]);
    assert!(view.routes().is_empty() && view.preauth_keys().is_empty());
    assert!(view.api_keys().is_empty());
    assert_eq!(audit_of(&store, alice).await.last().unwrap(), "user.delete by system");
    for id in ids {
        assert_eq!(audit_of(&store, id).await.last().unwrap(), "node.delete by system");
    }
}

async fn sweeping_goes_on_in_parts(env: &mut TestEnv) {
    const SESSIONS: u32 = 4_000;
    const AT_ONCE: usize = 200;
    let store = open(env).await;
    let alice = user(&store, "alice").await;
    let began = env.clock().now();
    let session = |n: u32, lasts| {
        let mut id = [1; 16];
        id[12..].copy_from_slice(&n.to_be_bytes());
        let owner = SessionOwner::User(alice);
        let hash = SecretHash::hmac([1; 4], [2; 32]);
        let expires_at = began.saturating_add(Duration::from_secs(lasts));
        let id = SessionId::from_bytes(id);
        let session = Session {
            id,
            owner,
            node: None,
            hash,
            client: None,
            created_at: began,
            expires_at,
            last_seen: began,
        };
        EntityRecord::from(session)
    };
    let images: Vec<_> =
        (0..SESSIONS).map(|n| session(n, 60)).chain([session(SESSIONS, 3600)]).collect();
    for part in images.chunks(AT_ONCE) {
        store.restore(Restore { images: part.to_vec(), skip_invalid: false }).await.unwrap();
    }
    env.advance(60);
    assert_eq!(in_parts(&store, store.sessions().sweep()).await, u64::from(SESSIONS));
    let store = env.reload(store).await;
    let left = store.sessions().list(None, &PageRequest::default()).await.unwrap();
    assert_eq!(left.items.len(), 1);
    assert_eq!(idle(&store, store.sessions().sweep()).await, 0);
}

async fn ending_all_sessions_of_a_user_goes_on_in_parts(env: &mut TestEnv) {
    let store = open(env).await;
    let (alice, bob) = (user(&store, "alice").await, user(&store, "bob").await);
    let expires_at = env.clock().now().saturating_add(HOUR);
    let begin = |user| session_of(SessionOwner::User(user), expires_at);
    let sessions = store.sessions();
    let calls = (0..MANY).map(|_| sessions.begin(begin(alice)));
    join_all(calls).await.into_iter().for_each(|call| drop(call.unwrap()));
    let (stays, _) = sessions.begin(begin(bob)).await.unwrap();
    let owner = SessionOwner::User(alice);
    assert_eq!(in_parts(&store, store.sessions().end_all(owner)).await, u64::from(MANY));
    let store = env.reload(store).await;
    assert!(store.view().sessions().iter().eq([&stays]));
    assert_eq!(lines_of(&store, "session.end").await, MANY as usize);
    assert_eq!(idle(&store, store.sessions().end_all(owner)).await, 0);
}

async fn sweeping_expired_keys_goes_on_in_parts(env: &mut TestEnv) {
    let store = open(env).await;
    let alice = user(&store, "alice").await;
    let expires_at = Some(env.clock().now().saturating_add(HOUR));
    let (api_keys, preauth_keys) = (store.api_keys(), store.preauth_keys());
    let api_key = || NewApiKey { expires_at, ..api_key_of(alice) };
    let calls = (0..MANY).map(|_| api_keys.create(api_key()));
    join_all(calls).await.into_iter().for_each(|call| drop(call.unwrap()));
    let calls =
        (0..MANY).map(|_| preauth_keys.create(NewPreAuthKey { expires_at, ..one_time(alice) }));
    join_all(calls).await.into_iter().for_each(|call| drop(call.unwrap()));
    let (api_key, _) = api_keys.create(api_key_of(alice)).await.unwrap();
    let (preauth_key, _) = preauth_keys.create(one_time(alice)).await.unwrap();
    env.advance(3_601);
    let now = env.clock().now();
    assert_eq!(in_parts(&store, store.api_keys().sweep_expired(now)).await, u64::from(MANY));
    assert_eq!(in_parts(&store, store.preauth_keys().sweep_expired(now)).await, u64::from(MANY));
    let store = env.reload(store).await;
    assert!(store.view().api_keys().iter().eq([&api_key]));
    assert!(store.view().preauth_keys().iter().eq([&preauth_key]));
    for action in ["api_key.delete", "preauth_key.delete"] {
        assert_eq!(lines_of(&store, action).await, MANY as usize);
    }
    assert_eq!(idle(&store, store.api_keys().sweep_expired(now)).await, 0);
    assert_eq!(idle(&store, store.preauth_keys().sweep_expired(now)).await, 0);
}

/// How many lines of the audit trail tell of this action.
async fn lines_of(store: &Opened, action: &str) -> usize {
    let query = AuditQuery { action: Some(text(action)), ..AuditQuery::default() };
    let query = &query;
    all_pages(500, |page| async move { store.audit().query(query, &page).await }).await.len()
}

async fn in_a_transaction_a_command_is_one_commit_or_none(env: &mut TestEnv) {
    let store = open(env).await;
    let alice = user(&store, "alice").await;
    let ids = many_nodes(&store, alice).await;
    let session = SessionNumber::new(1).unwrap();
    store.presence().connect(ids[0], session, Update::Keep).await.unwrap();
    let part = Part::WHOLE;
    let at: Timestamp = env.clock().now();
    let whole = |command: Command| Transaction::new().then(command).unwrap();
    let expire = NodeCommand::Expire { nodes: ids, at, part };
    refused(&store, store.transact(whole(expire.into())), Exhausted).await;
    let before = store.view().serial();
    store.transact(whole(PresenceCommand::DisconnectAll { of: None, part }.into())).await.unwrap();
    let delete = UserCommand::Delete { id: alice, cascade: true, part };
    store.transact(whole(delete.into())).await.unwrap();
    assert_eq!(store.view().serial(), Serial::new(before.get() + 2));
    let store = env.reload(store).await;
    assert!(store.view().nodes().is_empty());
}
