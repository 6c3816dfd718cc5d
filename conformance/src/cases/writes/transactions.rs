//! Transactions.

use ghostwire_store_core::state::Reply;

use crate::prelude::*;

cases! {
    stored {
        "transaction" => [
            each_step_sees_those_before_it,
            a_refused_step_leaves_nothing_and_is_named,
            a_precondition_that_does_not_hold_is_a_conflict,
            eight_thousand_commands_are_one_commit,
            a_commit_that_fails_takes_all_of_it_along,
        ],
    }
    once {
        "transaction" => [
            it_shares_its_commit_with_nobody,
            it_has_at_most_10000_steps,
            it_cannot_contain_a_transaction,
        ],
    }
}

async fn each_step_sees_those_before_it(env: &mut TestEnv, store: Opened) {
    let serial = store.view().serial();
    let (user, key, node) = (user_id(1), preauth_key_id(1), node_id(1));
    let prefix: Prefix = "10.1.0.0/16".parse().unwrap();
    let document = DocumentText::new("{}").unwrap();
    let steps: [Command; 9] = [
        UserCommand::Create { id: user, user: local("alice") }.into(),
        PreAuthKeyCommand::Create {
            id: key,
            prefix: "abc".parse().unwrap(),
            hash: SecretHash::hmac([1; 4], [2; 32]),
            key: one_time(user),
        }
        .into(),
        NodeCommand::Register {
            id: node,
            registration: Box::new(machine(1, Admission::PreAuthKey(key))),
        }
        .into(),
        RouteCommand::Advertise { node, prefixes: vec![(route_id(1), prefix)], expected: None }
            .into(),
        RouteCommand::Approve { node, prefixes: vec![(route_id(2), prefix)], expected: None }
            .into(),
        PresenceCommand::Connect {
            node,
            session: Some(SessionNumber::new(1).unwrap()),
            endpoints: Update::Keep,
            instance: None,
        }
        .into(),
        PolicyCommand::Swap { expected: None, document: document.clone() }.into(),
        PolicyCommand::Swap { expected: Some(PolicyVersion::FIRST), document }.into(),
        UserCommand::Update {
            id: user,
            patch: UserPatch { display_name: Patch::Set(text("A")), ..UserPatch::default() },
            expected: Some(Revision::FIRST),
        }
        .into(),
    ];
    let transaction =
        steps.into_iter().fold(Transaction::new(), |whole, step| whole.then(step).unwrap());
    let committed = store.transact(transaction).await.unwrap();
    assert_eq!(committed.serial, serial.next());
    assert_eq!(store.view().serial(), committed.serial);
    let replies = committed.value;
    assert_eq!(replies.len(), 9);
    assert!(matches!(&replies[0], Reply::User(found) if found.revision == Revision::FIRST));
    assert!(matches!(&replies[1], Reply::PreAuthKey(found) if found.used_at.is_none()));
    assert!(matches!(&replies[2], Reply::Node(found) if found.user == Some(user)));
    assert!(matches!(&replies[3], Reply::Routes(found) if found[0].id == route_id(1)));
    assert!(matches!(&replies[4], Reply::Routes(found) if found[0].id == route_id(1)));
    assert!(matches!(&replies[5], Reply::Presence(found) if found.online));
    assert!(matches!(&replies[7], Reply::Policy(found) if found.version.get() == 2));
    let Reply::User(last) = &replies[8] else { panic!("{replies:?}") };
    let store = env.reload(store).await;
    let view = store.view();
    assert_eq!(view.users().get(user), Some(last));
    assert_eq!(last.revision.get(), 2);
    assert!(view.preauth_keys().get(key).unwrap().used_at.is_some());
    assert!(view.routes().get(route_id(1)).unwrap().primary);
    assert!(view.routes().get(route_id(2)).is_none());
    assert_eq!(view.policies().len(), 2);
}

async fn a_refused_step_leaves_nothing_and_is_named(env: &mut TestEnv, mut store: Opened) {
    let alice = create(&store, "alice").await;
    let before = (store.view().serial(), store.digests().await.unwrap());
    let refused: [(Command, fn(&Error)); 3] = [
        (UserCommand::Create { id: user_id(9), user: local("alice") }.into(), |error| {
            assert_eq!(error.constraint(), Some("name"))
        }),
        (
            UserCommand::Delete { id: user_id(8), cascade: false, part: Part::WHOLE }.into(),
            |error| assert_eq!(*error.kind(), NotFound),
        ),
        (
            DnsCommand::Create {
                id: DnsRecordId::from_bytes([1; 16]),
                record: record("wiki.example.com", "no address"),
            }
            .into(),
            |error| assert_eq!(*error.kind(), InvalidArgument),
        ),
    ];
    for (command, check) in refused {
        let transaction = Transaction::new()
            .require(Precondition::UserExists(alice.id))
            .unwrap()
            .then(UserCommand::Create { id: user_id(1), user: local("bob") })
            .unwrap()
            .then(UserCommand::Delete { id: alice.id, cascade: true, part: Part::WHOLE })
            .unwrap()
            .then(UserCommand::Create { id: user_id(2), user: local("alice") })
            .unwrap()
            .then(command)
            .unwrap()
            // Refused, too, but not the first one.
            .then(UserCommand::Delete { id: user_id(7), cascade: false, part: Part::WHOLE })
            .unwrap();
        let error = store.transact(transaction).await.unwrap_err();
        check(&error);
        assert!(error.context().contains(&("step", "3".to_owned())), "{error}");
        assert_eq!((store.view().serial(), store.digests().await.unwrap()), before);
        store = env.reload(store).await;
        assert_eq!(store.users().get(alice.id).await.unwrap(), Some(alice.clone()));
    }
}

async fn a_precondition_that_does_not_hold_is_a_conflict(env: &mut TestEnv, store: Opened) {
    let made = OneOfEach::make(&store).await;
    let store = env.reload(store).await;
    let (second, serial) = (Revision::new(2).unwrap(), store.view().serial());
    let (user, node) = (made.user.id, made.node.id);
    let (name, kind) = (made.record.name.clone(), made.record.kind);
    let fingerprint = store.dns().get_set(&name, kind).await.unwrap().fingerprint;
    let unmet = [
        Precondition::SerialIs(serial.next()),
        Precondition::UserExists(user_id(9)),
        Precondition::UserRevision(user, second),
        Precondition::UserRevision(user_id(9), Revision::FIRST),
        Precondition::NodeExists(node_id(9)),
        Precondition::NodeAbsent(node),
        Precondition::NodeRevision(node, second),
        Precondition::NodeRevision(node_id(9), Revision::FIRST),
        Precondition::PolicyVersion(None),
        Precondition::PolicyVersion(Some(PolicyVersion::new(2).unwrap())),
        Precondition::SettingRevision(SettingKind::Dns, None),
        Precondition::SettingRevision(SettingKind::Dns, Some(second)),
        Precondition::SettingRevision(SettingKind::Network, Some(Revision::FIRST)),
        Precondition::DnsRecordSet(name.clone(), kind, Fingerprint::of::<DnsRecordId>([])),
        Precondition::DnsRecordSet(name.clone(), DnsRecordKind::Txt, fingerprint),
    ];
    let met = [
        Precondition::SerialIs(serial),
        Precondition::UserExists(user),
        Precondition::UserRevision(user, Revision::FIRST),
        Precondition::NodeExists(node),
        Precondition::NodeAbsent(node_id(9)),
        Precondition::NodeRevision(node, Revision::FIRST),
        Precondition::PolicyVersion(Some(PolicyVersion::FIRST)),
        Precondition::SettingRevision(SettingKind::Dns, Some(Revision::FIRST)),
        Precondition::SettingRevision(SettingKind::Network, None),
        Precondition::DnsRecordSet(name.clone(), kind, fingerprint),
    ];
    let all_met = || {
        let met = met.iter().cloned();
        met.fold(Transaction::new(), |whole, condition| whole.require(condition).unwrap())
    };
    for condition in unmet {
        // A precondition comes before the commands, even before one that would be refused.
        let transaction = all_met()
            .require(condition.clone())
            .unwrap()
            .then(UserCommand::Delete { id: user_id(9), cascade: false, part: Part::WHOLE })
            .unwrap();
        let error = store.transact(transaction).await.unwrap_err();
        assert_eq!(*error.kind(), Conflict, "{condition:?}: {error}");
    }
    let nothing = store.transact(all_met()).await.unwrap();
    assert_eq!((nothing.value.len(), store.view().serial()), (0, serial));
    let create = UserCommand::Create { id: user_id(1), user: local("bob") };
    store.transact(all_met().then(create).unwrap()).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(names(&store), ["alice", "bob"]);
}

async fn eight_thousand_commands_are_one_commit(env: &mut TestEnv, store: Opened) {
    const COMMANDS: u16 = 8_000;
    let transaction = (0..COMMANDS).fold(Transaction::new(), |whole, n| {
        let user = local(&format!("user{n}"));
        whole.then(UserCommand::Create { id: user_id(n), user }).unwrap()
    });
    let committed = store.transact(transaction).await.unwrap();
    assert_eq!(committed.value.len(), usize::from(COMMANDS));
    assert_eq!(committed.serial, Serial::new(1));
    let store = env.reload(store).await;
    assert_eq!(store.view().serial(), Serial::new(1));
    assert_eq!(store.view().users().len(), usize::from(COMMANDS));
    for n in [0, 1, COMMANDS / 2, COMMANDS - 1] {
        let name: UserName = format!("user{n}").parse().unwrap();
        assert_eq!(store.view().users().by_name(&name).unwrap().id, user_id(n));
    }
}

async fn a_commit_that_fails_takes_all_of_it_along(env: &mut TestEnv, mut store: Opened) {
    let transaction = || {
        Transaction::new()
            .then(UserCommand::Create { id: user_id(1), user: local("a") })
            .unwrap()
            .then(UserCommand::Create { id: user_id(2), user: local("b") })
            .unwrap()
    };
    env.faults().fail_next_commits(1, FaultKind::Before);
    fails(store.transact(transaction()).await, Unavailable);
    store = env.reload(store).await;
    assert!(store.view().users().is_empty());
    env.faults().fail_next_commits(1, FaultKind::After);
    let committed = store.transact(transaction()).await.unwrap();
    assert_eq!(committed.value.len(), 2);
    store = env.reload(store).await;
    assert_eq!(names(&store), ["a", "b"]);
    assert_eq!(audit_lines(&store).await, 2);
}

async fn it_shares_its_commit_with_nobody(env: &mut TestEnv, store: Opened) {
    let hold = env.faults().hold_commits();
    let first = spawn_create(&store, "first");
    until_held(env).await;
    let create = |n: u16, name: &str| UserCommand::Create { id: user_id(n), user: local(name) };
    let one = || Transaction::new().then(create(1, "t1")).unwrap().then(create(2, "t2")).unwrap();
    let two = || Transaction::new().then(create(3, "t3")).unwrap();
    let mut before = Box::pin(join_all(["a", "b"].map(|name| store.users().create(local(name)))));
    assert!((&mut before).now_or_never().is_none());
    let mut transactions = Box::pin(join_all([store.transact(one()), store.transact(two())]));
    assert!((&mut transactions).now_or_never().is_none());
    let mut after = Box::pin(join_all(["c", "d"].map(|name| store.users().create(local(name)))));
    assert!((&mut after).now_or_never().is_none());
    drop(hold);
    first.await.unwrap().unwrap();
    assert!(before.await.iter().all(|outcome| outcome.is_ok()));
    let serials: Vec<_> =
        transactions.await.into_iter().map(|committed| committed.unwrap().serial.get()).collect();
    assert!(after.await.iter().all(|outcome| outcome.is_ok()));
    assert_eq!(serials, [3, 4]);
    let commits: Vec<_> = store.watch(Serial::ZERO).take(5).collect().await;
    let sizes: Vec<_> = commits.into_iter().map(|commit| commit.unwrap().changes.len()).collect();
    assert_eq!(sizes, [1, 2, 2, 1, 2]);
    assert_eq!(store.view().serial(), Serial::new(5));
}

async fn it_has_at_most_10000_steps(_: &mut TestEnv, store: Opened) {
    let prune = || PolicyCommand::Prune { keep: 1, part: Part::WHOLE };
    let full = (0..MAX_STEPS / 2).fold(Transaction::new(), |whole, _| {
        let condition = Precondition::PolicyVersion(None);
        whole.require(condition).unwrap().then(prune()).unwrap()
    });
    assert_eq!(MAX_STEPS, 10_000);
    invalid(&full.clone().then(prune()).unwrap_err());
    invalid(&full.clone().require(Precondition::SerialIs(Serial::ZERO)).unwrap_err());
    assert_eq!(store.transact(full).await.unwrap().value.len(), MAX_STEPS / 2);
    // One that was read from outside has not been counted yet.
    let step = "{ policy = { prune = { keep = 1 } } },".repeat(MAX_STEPS + 1);
    let read = read_transaction(&format!("preconditions = []\ncommands = [{step}]"));
    invalid(&store.transact(read).await.unwrap_err());
}

async fn it_cannot_contain_a_transaction(_: &mut TestEnv, store: Opened) {
    let create = || UserCommand::Create { id: user_id(1), user: local("alice") };
    invalid(&Transaction::new().then(Transaction::new()).unwrap_err());
    let inner = "{ transaction = { preconditions = [], commands = [] } }";
    let read = read_transaction(&format!("preconditions = []\ncommands = [{inner}]"));
    let error = store.transact(read.then(create()).unwrap()).await.unwrap_err();
    invalid(&error);
    assert!(store.view().users().is_empty());
}

fn read_transaction(text: &str) -> Transaction {
    toml::from_str(text).unwrap()
}

fn invalid(error: &Error) {
    assert_eq!(*error.kind(), InvalidArgument, "{error}");
}

pub(crate) fn user_id(n: u16) -> UserId {
    UserId::time_ordered(at(0), numbered(n))
}

fn node_id(n: u16) -> NodeId {
    NodeId::time_ordered(at(0), numbered(n))
}

fn route_id(n: u16) -> RouteId {
    RouteId::time_ordered(at(0), numbered(n))
}

fn preauth_key_id(n: u16) -> PreAuthKeyId {
    PreAuthKeyId::time_ordered(at(0), numbered(n))
}

fn numbered(n: u16) -> [u8; 10] {
    let [high, low] = n.to_be_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, high, low]
}
