//! The audit trail.

use crate::prelude::*;

cases! {
    stored {
        "audit-trail" => [
            a_change_and_its_lines_are_one_commit,
            queries_merge_what_is_flushed_and_what_is_not,
            appended_entries_are_found_and_replaced,
            a_line_of_the_store_can_be_replaced_too,
            a_batch_of_entries_is_stored_as_a_whole,
        ],
        "audit-details" => [
            an_entry_says_where_from_how_it_ended_and_more,
            lines_name_the_second_subject_that_a_command_knows,
            a_cursor_stays_within_its_action_and_result,
        ],
        "retention" => [pruned_entries_do_not_come_back],
    }
    stored_unopened {
        "audit-trail" => [lines_name_the_actor_of_the_handle],
    }
    once {
        "retention" => [blocks_keep_pruned_entries_until_they_are_dropped],
    }
}

async fn lines_name_the_actor_of_the_handle(env: &mut TestEnv) {
    let mut options = env.options();
    options.actor = "control-plane".parse().unwrap();
    let store = env.open_with(options).await;
    let anna = store.acting_as("anna@example.com".parse().unwrap());
    let bert = anna.acting_as("bert".parse().unwrap());
    for (handle, name) in [(&store, "a"), (&anna, "b"), (&bert, "c"), (&anna, "d"), (&store, "e")] {
        handle.users().create(local(name)).await.unwrap();
        env.advance(1);
    }
    let store = env.reload(store).await;
    let store = env.reopen(store).await;
    create(&store, "f").await;
    let actors: Vec<_> = trail(&store, &AuditQuery::default(), 1000)
        .await
        .iter()
        .map(|entry| entry.actor.to_string())
        .collect();
    let expected =
        ["control-plane", "anna@example.com", "bert", "anna@example.com", "control-plane"];
    assert_eq!(actors[..5], expected);
    assert_eq!(actors[5..], ["system"]);
}

async fn an_entry_says_where_from_how_it_ended_and_more(env: &mut TestEnv, store: Opened) {
    let anna = "anna".parse::<Actor>().unwrap();
    let anna = anna.at("::ffff:192.0.2.7".parse().unwrap()).with_user_agent("curl/8.9");
    // What the store writes has where the actor was; and a handle without that leaves nulls.
    store.acting_as(anna.clone()).users().create(local("alice")).await.unwrap();
    env.advance(1);
    create(&store, "bob").await;
    env.advance(1);
    let now = env.clock().now();
    let kind: ResourceKind = "config".parse().unwrap();
    let id = AuditId::from_bytes([9; 16]);
    let plain = AuditEntry::new((now, id), anna, text("config.put"), kind.clone(), text("derp"));
    let failed = AuditEntry {
        result: AuditResult::Failed,
        details: Some(r#"{"error":"out of range"}"#.parse().unwrap()),
        second: "node:n1".parse().ok(),
        ..plain.clone()
    };
    let denied = AuditEntry {
        id: AuditId::from_bytes([10; 16]),
        result: AuditResult::Denied,
        user_agent: None,
        ..plain
    };
    store.audit().append(vec![failed.clone(), denied.clone()]).await.unwrap();
    let store = env.reload(store).await;
    let all = entries(&store).await;
    assert_eq!(all.len(), 4);
    let from = |entry: &AuditEntry| {
        let agent = entry.user_agent.as_ref().map(ToString::to_string);
        (entry.address.map(|address| address.to_string()), agent)
    };
    assert_eq!(from(&all[0]), (Some("192.0.2.7".to_owned()), Some("curl/8.9".to_owned())));
    assert_eq!(from(&all[1]), (None, None));
    assert!(all[..2].iter().all(|entry| entry.result == AuditResult::Success));
    assert_eq!(all[2..], [failed.clone(), denied.clone()]);
    let query = AuditQuery::default;
    for (query, expected) in [
        (AuditQuery { result: Some(AuditResult::Failed), ..query() }, vec![&failed]),
        (AuditQuery { result: Some(AuditResult::Denied), ..query() }, vec![&denied]),
        (AuditQuery { action: Some(text("config.put")), ..query() }, vec![&failed, &denied]),
        (AuditQuery { entity: Some(kind), ..query() }, vec![&failed, &denied]),
        (AuditQuery { entity: Some(EntityKind::Node.into()), ..query() }, vec![&failed]),
        (AuditQuery { subject: Some(text("n1")), ..query() }, vec![&failed]),
        (AuditQuery { action: Some(text("config")), ..query() }, vec![]),
    ] {
        let found = trail(&store, &query, 1).await;
        assert!(found.iter().map(Arc::as_ref).eq(expected), "{query:?}");
    }
    // A command that is refused leaves no line, whoever asked.
    store.users().create(local("alice")).await.unwrap_err();
    assert_eq!(entries(&store).await.len(), 4);
}

async fn lines_name_the_second_subject_that_a_command_knows(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let (key, _) = store.preauth_keys().create(one_time(alice)).await.unwrap();
    store.preauth_keys().revoke(key.id).await.unwrap();
    store.preauth_keys().delete(key.id).await.unwrap();
    let (key, _) = store.api_keys().create(api_key_of(alice)).await.unwrap();
    store.api_keys().revoke(key.id).await.unwrap();
    store.api_keys().delete(key.id).await.unwrap();
    let id = node(&store, alice, 1).await.id;
    let routes = store.routes().advertise(id, vec![prefix("10.1.0.0/16")], None).await.unwrap();
    store.routes().delete(routes[0].id).await.unwrap();
    let new = session_of(SessionOwner::Node(id), Timestamp::MAX);
    let session = store.sessions().begin(new).await.unwrap().0.id;
    store.sessions().end(session).await.unwrap();
    store.nodes().delete(id).await.unwrap();
    let store = env.reload(store).await;
    let of = |kind: EntityKind, subject: &dyn Display| AuditQuery {
        entity: Some(kind.into()),
        subject: Some(text(&subject.to_string())),
        ..AuditQuery::default()
    };
    let actions = async |query: AuditQuery| {
        let found = trail(&store, &query, 1000).await;
        let mut actions: Vec<_> = found.iter().map(|entry| entry.action.to_string()).collect();
        actions.sort();
        actions
    };
    let of_alice = [
        "api_key.create",
        "api_key.delete",
        "api_key.revoke",
        "node.delete",
        "node.register",
        "preauth_key.create",
        "preauth_key.delete",
        "preauth_key.revoke",
        "user.create",
    ];
    assert_eq!(actions(of(EntityKind::User, &alice)).await, of_alice);
    let of_node = [
        "node.delete",
        "node.register",
        "route.advertise",
        "route.delete",
        "session.begin",
        "session.end",
    ];
    assert_eq!(actions(of(EntityKind::Node, &id)).await, of_node);
}

async fn a_cursor_stays_within_its_action_and_result(env: &mut TestEnv, store: Opened) {
    let results = [AuditResult::Success, AuditResult::Denied, AuditResult::Failed];
    let lines = (1..=30_u8).map(|n| AuditEntry {
        action: text(["login", "logout"][usize::from(n) % 2]),
        result: results[usize::from(n) % 3],
        ..entry(env.clock().now(), n, "anna", EntityKind::User, "u1")
    });
    store.audit().append(lines.collect()).await.unwrap();
    let store = env.reload(store).await;
    let query = AuditQuery {
        action: Some(text("login")),
        result: Some(AuditResult::Denied),
        ..AuditQuery::default()
    };
    assert_eq!(trail(&store, &query, 2).await.len(), 5);
    let request = PageRequest::first(Limit::new(2).unwrap());
    let cursor = store.audit().query(&query, &request).await.unwrap().next.unwrap();
    let page = PageRequest { cursor: Some(cursor), ..request };
    for other in [
        AuditQuery { action: Some(text("logout")), ..query.clone() },
        AuditQuery { action: None, ..query.clone() },
        AuditQuery { result: Some(AuditResult::Failed), ..query.clone() },
        AuditQuery { result: None, ..query.clone() },
    ] {
        fails(store.audit().query(&other, &page).await, InvalidArgument);
    }
}

async fn a_change_and_its_lines_are_one_commit(env: &mut TestEnv, store: Opened) {
    env.faults().fail_next_commits(1, FaultKind::Before);
    store.users().create(local("alice")).await.unwrap_err();
    assert_eq!(lines(&store).await, []);
    env.faults().fail_next_commits(1, FaultKind::After);
    let alice = store.users().create(local("alice")).await.unwrap();
    assert_eq!(lines(&store).await, [("user.create".to_owned(), alice.id.to_string())]);
    env.advance(1);
    let now = env.options().clock.now();
    let bob = UserId::time_ordered(now, [1; 10]);
    let create = |id, name| UserCommand::Create { id, user: local(name) };
    let refused = Transaction::new().then(create(bob, "bob")).unwrap();
    let refused = refused.then(create(UserId::time_ordered(now, [2; 10]), "alice")).unwrap();
    store.transact(refused).await.unwrap_err();
    assert_eq!(lines(&store).await.len(), 1);
    let deleted = UserCommand::Delete { id: alice.id, cascade: false, part: Part::WHOLE };
    let both = Transaction::new().then(create(bob, "bob")).unwrap().then(deleted).unwrap();
    store.transact(both).await.unwrap();
    let store = env.reload(store).await;
    let mut found = lines(&store).await.split_off(1);
    found.sort();
    let expected = [("user.create", bob), ("user.delete", alice.id)];
    assert_eq!(found, expected.map(|(action, id)| (action.to_owned(), id.to_string())));
}

async fn queries_merge_what_is_flushed_and_what_is_not(env: &mut TestEnv, mut store: Opened) {
    let mut expected = Vec::new();
    for n in 0..90_u8 {
        // Several lines at one moment, and others between them in time that were appended.
        if n % 3 == 0 {
            env.advance(10);
        }
        let now = env.options().clock.now();
        let actor: ActorName = ["anna", "bert", "system"][usize::from(n) % 3].parse().unwrap();
        let handle = store.acting_as(actor.clone().into());
        let created = handle.users().create(local(&format!("user{n}"))).await.unwrap();
        expected.push((now, actor.to_string(), "user.create".to_owned(), created.id.to_string()));
        if n % 5 == 0 {
            let at = now.saturating_sub(Duration::from_secs(4));
            let entry = entry(at, n, "clara", EntityKind::Node, "node-1");
            expected.push((at, "clara".to_owned(), "test".to_owned(), "node-1".to_owned()));
            store.audit().append(vec![entry]).await.unwrap();
        }
        match n {
            30 => drop(store.checkpoint().await.unwrap()),
            60 => store = env.reload(store).await,
            _ => {}
        }
    }
    check_trail(&store, &mut expected).await;
    store = env.reload(store).await;
    check_trail(&store, &mut expected).await;
    store.checkpoint().await.unwrap();
    check_trail(&store, &mut expected).await;
}

async fn appended_entries_are_found_and_replaced(env: &mut TestEnv, store: Opened) {
    let now = env.options().clock.now();
    let before = store.view().serial();
    let first = entry(now, 1, "anna", EntityKind::User, "u1");
    let other = entry(now, 2, "anna", EntityKind::User, "u1");
    let later = entry(now.saturating_add(MICROSECOND), 1, "a", EntityKind::Audit, "");
    store.audit().append(vec![later.clone(), other.clone(), first.clone()]).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(entries(&store).await, [first.clone(), other.clone(), later.clone()]);
    let replaced = AuditEntry { actor: "bert".parse().unwrap(), ..first };
    store.audit().append(vec![replaced.clone()]).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(entries(&store).await, [replaced, other, later]);
    assert_eq!(store.view().serial(), before, "no block is made");
}

async fn a_line_of_the_store_can_be_replaced_too(env: &mut TestEnv, store: Opened) {
    create(&store, "alice").await;
    let line = entries(&store).await.remove(0);
    let replaced = AuditEntry { actor: "bert".parse().unwrap(), ..line };
    store.audit().append(vec![replaced.clone()]).await.unwrap();
    assert_eq!(entries(&store).await, std::slice::from_ref(&replaced));
    let store = env.reload(store).await;
    assert_eq!(entries(&store).await, std::slice::from_ref(&replaced));
    store.checkpoint().await.unwrap();
    assert_eq!(entries(&store).await, [replaced]);
}

async fn a_batch_of_entries_is_stored_as_a_whole(env: &mut TestEnv, store: Opened) {
    let now = env.options().clock.now();
    let batch = |count: u64| {
        let one = |n: u64| {
            let at = now.saturating_add(Duration::from_micros(n));
            entry(at, (n % 256) as u8, "anna", EntityKind::User, "u1")
        };
        (0..count).map(one).collect::<Vec<_>>()
    };
    fails(store.audit().append(batch(10_001)).await, InvalidArgument);
    env.faults().fail_next_commits(1, FaultKind::DiskFull);
    fails(store.audit().append(batch(10)).await, Exhausted);
    assert_eq!(entries(&store).await, []);
    store.audit().append(Vec::new()).await.unwrap();
    store.audit().append(batch(10_000)).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(entries(&store).await, batch(10_000));
}

async fn pruned_entries_do_not_come_back(env: &mut TestEnv, store: Opened) {
    for n in 0..12 {
        create(&store, &format!("user{n}")).await;
        let now = env.options().clock.now();
        store.audit().append(vec![entry(now, n, "anna", EntityKind::Node, "n")]).await.unwrap();
        env.advance(1);
        if n == 4 {
            store.checkpoint().await.unwrap();
        }
    }
    let all = entries(&store).await;
    assert_eq!(all.len(), 24);
    let cut = all[14].at;
    let left: Vec<_> = all.iter().filter(|entry| entry.at >= cut).cloned().collect();
    assert_eq!(left.len(), 10, "the moment itself is kept");
    store.audit().prune(cut).await.unwrap();
    assert_eq!(entries(&store).await, left);
    let store = env.reload(store).await;
    assert_eq!(entries(&store).await, left);
    let store = env.crash(store).await;
    assert_eq!(entries(&store).await, left);
    store.audit().prune(Timestamp::MAX).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(entries(&store).await, []);
    assert_eq!(store.view().users().len(), 12, "only the record of it is gone");
}

async fn blocks_keep_pruned_entries_until_they_are_dropped(
    env: &mut TestEnv,
    store: Opened,
) -> Verdict {
    if env.place().is_of_two() {
        return KEEPS_BLOCKS;
    }
    create(&store, "alice").await;
    let line = entries(&store).await;
    store.audit().prune(Timestamp::MAX).await.unwrap();
    store.close().await.unwrap();
    let backend = env.open_backend().await;
    let blocks = backend.blocks(Serial::ZERO, 10).await.unwrap();
    assert_eq!(blocks[0].decode().unwrap().audit, Some(line));
    backend.close().await.unwrap();
    let mut options = env.options();
    options.writer.retain_block_bytes = 0;
    let store = env.open_with(options).await;
    create(&store, "bob").await;
    store.checkpoint().await.unwrap();
    store.close().await.unwrap();
    let backend = env.open_backend().await;
    let error = backend.blocks(Serial::ZERO, 10).await.unwrap_err();
    assert!(matches!(error.kind(), Compacted { .. }), "{error}");
    Verdict::Passed
}

fn entry(at: Timestamp, n: u8, actor: &str, entity: EntityKind, subject: &str) -> AuditEntry {
    // In the order of the numbers, and none is nil.
    let mut id = [n; 16];
    id[15] = 1;
    let actor = actor.parse().unwrap();
    AuditEntry::new((at, AuditId::from_bytes(id)), actor, text("test"), entity, text(subject))
}

async fn entries(store: &Opened) -> Vec<AuditEntry> {
    let all = trail(store, &AuditQuery::default(), 1000).await;
    all.iter().map(|entry| AuditEntry::clone(entry)).collect()
}

async fn lines(store: &Opened) -> Vec<(String, String)> {
    let all = entries(store).await;
    all.iter().map(|entry| (entry.action.to_string(), entry.subject.to_string())).collect()
}

/// The trail is what is expected, and every query gives what a naive filter does.
async fn check_trail(store: &Opened, expected: &mut Vec<(Timestamp, String, String, String)>) {
    let all = trail(store, &AuditQuery::default(), 1000).await;
    assert!(all.is_sorted_by_key(|entry| (entry.at, entry.id)));
    let text = |text: &dyn Display| text.to_string();
    let mut found: Vec<_> = all
        .iter()
        .map(|entry| (entry.at, text(&entry.actor), text(&entry.action), text(&entry.subject)))
        .collect();
    found.sort();
    expected.sort();
    assert_eq!(found, *expected);
    let middle = all[all.len() / 2].at;
    let default = AuditQuery::default;
    for query in [
        default(),
        AuditQuery { from: Some(middle), ..default() },
        AuditQuery { to: Some(middle), ..default() },
        AuditQuery { from: Some(middle), to: Some(middle), ..default() },
        AuditQuery { actor: Some("anna".parse().unwrap()), ..default() },
        AuditQuery { actor: Some("nobody".parse().unwrap()), ..default() },
        AuditQuery { entity: Some(EntityKind::Node.into()), ..default() },
        AuditQuery { action: Some("test".parse().unwrap()), ..default() },
        AuditQuery { result: Some(AuditResult::Success), ..default() },
        AuditQuery { result: Some(AuditResult::Denied), ..default() },
        AuditQuery { subject: Some(all[7].subject.clone()), ..default() },
        AuditQuery {
            to: Some(middle),
            actor: Some("clara".parse().unwrap()),
            entity: Some(EntityKind::Node.into()),
            subject: Some("node-1".parse().unwrap()),
            ..default()
        },
    ] {
        let mut expected: Vec<_> = all
            .iter()
            .filter(|entry| query.from.is_none_or(|from| entry.at >= from))
            .filter(|entry| query.to.is_none_or(|to| entry.at < to))
            .filter(|entry| query.actor.as_ref().is_none_or(|actor| entry.actor == *actor))
            .filter(|entry| query.entity.as_ref().is_none_or(|entity| entry.entity == *entity))
            .filter(|entry| query.action.as_ref().is_none_or(|action| entry.action == *action))
            .filter(|entry| query.result.is_none_or(|result| entry.result == result))
            .filter(|entry| query.subject.as_ref().is_none_or(|name| entry.subject == *name))
            .cloned()
            .collect();
        for newest_first in [false, true] {
            let query = AuditQuery { newest_first, ..query.clone() };
            for limit in [1, 7, 1000] {
                assert_eq!(trail(store, &query, limit).await, expected, "{query:?}");
            }
            expected.reverse();
        }
    }
}
