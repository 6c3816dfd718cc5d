//! What `Ok` means, and when.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ghostwire_store_core::domain::*;
use ghostwire_store_core::layer::FaultKind;
use ghostwire_store_core::options::{StoreOptions, WriterOptions};
use ghostwire_store_core::{ErrorKind, Store};

use crate::case::cases;
use crate::world::{BEGINNING, World};

cases! {
    stored {
        "durable-reply" => [every_kind_of_write_is_there_afterwards],
        "all-or-nothing" => [
            a_removal_takes_all_of_its_parts,
            a_registration_that_was_not_stored_used_nothing_up,
            a_batch_of_8000_points_is_whole,
        ],
        "time-forward" => [
            a_clock_that_moves_back_dates_nothing_back,
            a_write_under_a_clock_that_is_ahead_dates_later_ones,
            what_has_expired_stays_expired,
        ],
        "ids" => [
            ids_tell_when_they_were_drawn,
            ids_are_in_order_under_a_clock_that_moves_back,
            ids_are_never_used_again,
        ],
    }
    once {
        "durable-reply" => [each_reply_survives_a_crash_right_after_it],
    }
}

async fn every_kind_of_write_is_there_afterwards(world: &mut World) {
    let store = world.open().await;
    let made = OneOfEach::make(store.as_ref()).await;
    let point = MetricPoint {
        node: Some(made.node.id),
        metric: "rx_bytes".parse().unwrap(),
        at: world.clock().now(),
        value: Sample::new(0.1).unwrap(),
    };
    store.metrics().record(point.clone()).await.unwrap();
    let entry = AuditEntry {
        id: AuditId::from_bytes([5; 16]),
        at: world.clock().now(),
        actor: "operator".parse().unwrap(),
        action: text("backup.made"),
        entity: ghostwire_store_core::Entity::Setting,
        subject: text("nightly"),
    };
    store.audit().append(vec![entry.clone()]).await.unwrap();

    let store = world.pass(store).await;
    made.check(store.as_ref()).await;
    let query = everything();
    let found = store.metrics().range(&query, &PageRequest::default()).await.unwrap();
    assert_eq!(found.items, [point]);
    let wanted = AuditQuery { actor: Some(entry.actor.clone()), ..AuditQuery::default() };
    let found = store.audit().query(&wanted, &PageRequest::default()).await.unwrap();
    assert_eq!(found.items, [Arc::new(entry)]);
}

async fn each_reply_survives_a_crash_right_after_it(world: &mut World) {
    for round in 0..10 {
        let store = world.open_with(never_folding(world)).await;
        assert_eq!(store.view().users().len(), round, "before round {round}");
        let made = store.users().create(local(&format!("user{round}"))).await.unwrap();
        world.crash_place().await;
        drop(store);
        let store = world.open_with(never_folding(world)).await;
        let found = store.users().get(made.id).await.unwrap();
        assert_eq!(found.as_ref(), Some(&made), "in round {round}");
        let info = store.info();
        assert!(info.backend.shared || info.fold_debt > 0, "nothing was folded meanwhile");
        world.crash_place().await;
        drop(store);
    }
}

async fn a_removal_takes_all_of_its_parts(world: &mut World) {
    let store = world.open().await;
    let made = OneOfEach::make(store.as_ref()).await;
    let serial = store.view().serial();
    store.users().delete(made.user.id, true).await.unwrap();
    assert_eq!(store.view().serial(), serial.next(), "one command, one commit");
    let store = world.pass(store).await;
    let view = store.view();
    assert!(view.users().is_empty() && view.nodes().is_empty() && view.routes().is_empty());
    assert!(view.preauth_keys().is_empty() && view.api_keys().is_empty());
    assert!(view.sessions().is_empty());
    assert!(view.presence().get(made.node.id).is_none());
    // What was not the user's stays.
    assert_eq!(view.dns_records().len(), 1);
    assert_eq!(view.policies().len(), 1);
}

async fn a_registration_that_was_not_stored_used_nothing_up(world: &mut World) {
    let mut store = world.open().await;
    let alice = store.users().create(local("alice")).await.unwrap();
    let new = NewPreAuthKey { user: Some(alice.id), ..NewPreAuthKey::default() };
    let (key, _) = store.preauth_keys().create(new).await.unwrap();
    let admission = || Admission::PreAuthKey(key.id);
    for (fault, kind) in
        [(FaultKind::Before, ErrorKind::Unavailable), (FaultKind::DiskFull, ErrorKind::Exhausted)]
    {
        let lines = audit_lines(store.as_ref()).await;
        world.faults().fail_next_commits(1, fault);
        let error = store.nodes().register(machine(1, admission())).await.unwrap_err();
        assert_eq!(*error.kind(), kind);
        store = world.pass(store).await;
        assert!(store.view().nodes().is_empty());
        assert_eq!(store.preauth_keys().get(key.id).await.unwrap(), Some(key.clone()));
        assert_eq!(audit_lines(store.as_ref()).await, lines);
    }
    let lines = audit_lines(store.as_ref()).await;
    world.faults().fail_next_commits(1, FaultKind::After);
    let node = store.nodes().register(machine(1, admission())).await.unwrap();
    store = world.pass(store).await;
    assert_eq!(store.nodes().get(node.id).await.unwrap(), Some(node.clone()));
    let used = store.preauth_keys().get(key.id).await.unwrap().unwrap();
    assert_eq!(used.used_at, Some(node.created_at));
    assert_eq!(audit_lines(store.as_ref()).await, lines + 1);
    // The first free address: the attempts that failed took none.
    assert_eq!(node.ipv4, Some("100.64.0.1".parse().unwrap()));
}

async fn a_batch_of_8000_points_is_whole(world: &mut World) {
    const POINTS: i64 = 8_000;
    let store = world.open().await;
    let point = |n| MetricPoint {
        node: None,
        metric: "rx_bytes".parse().unwrap(),
        at: Timestamp::from_micros(BEGINNING + n).unwrap(),
        value: Sample::new(n as f64).unwrap(),
    };
    let batch = || (0..POINTS).map(point).collect::<Vec<_>>();
    world.faults().fail_next_commits(1, FaultKind::Before);
    let error = store.metrics().record_many(batch()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable);
    let query = everything();
    assert_eq!(store.metrics().aggregate(&query).await.unwrap(), None);
    store.metrics().record_many(batch()).await.unwrap();
    let store = world.pass(store).await;
    let found = store.metrics().aggregate(&query).await.unwrap().unwrap();
    assert_eq!(found.count, POINTS as u64);
    assert_eq!((found.min, found.max), (0.0, (POINTS - 1) as f64));
    assert_eq!(found.sum, (POINTS * (POINTS - 1) / 2) as f64);
}

async fn a_clock_that_moves_back_dates_nothing_back(world: &mut World) {
    let store = world.open().await;
    let alice = store.users().create(local("alice")).await.unwrap();
    let admission = Admission::User { user: alice.id, method: RegisterMethod::Cli };
    let node = store.nodes().register(machine(1, admission)).await.unwrap();
    let last = node.created_at;
    assert_eq!(last, at(0));

    let store = world.pass(store).await;
    world.clock().set(at(-100_000_000));
    let bob = store.users().create(local("bob")).await.unwrap();
    assert_eq!((bob.created_at, bob.updated_at), (last, last));
    let patch = UserPatch { display_name: Patch::Set(text("Alice")), ..UserPatch::default() };
    let alice = store.users().update(alice.id, patch, None).await.unwrap();
    assert_eq!(alice.updated_at, last);
    let session = SessionNumber::new(1).unwrap();
    let presence = store.presence().connect(node.id, session, Change::Keep).await.unwrap();
    assert_eq!(presence.last_seen, Some(last));

    let store = world.pass(store).await;
    let all = PageRequest::first(Limit::MAX);
    let lines = store.audit().query(&AuditQuery::default(), &all).await.unwrap().items;
    assert!(lines.iter().all(|line| line.at == last), "{lines:?}");
    let carol = store.users().create(local("carol")).await.unwrap();
    assert_eq!(carol.created_at, last, "the store remembers, not only the process");
}

async fn a_write_under_a_clock_that_is_ahead_dates_later_ones(world: &mut World) {
    // No more than a clock may be ahead.
    const AHEAD: i64 = 1_800;
    let store = world.open().await;
    world.clock().step(at(AHEAD));
    let ahead = store.users().create(local("ahead")).await.unwrap();
    assert_eq!(ahead.created_at, at(AHEAD));
    world.clock().step(at(0));
    let store = world.pass(store).await;
    let later = store.users().create(local("later")).await.unwrap();
    assert_eq!(later.created_at, at(AHEAD));
    world.clock().set(at(AHEAD + 1));
    let passed = store.users().create(local("passed")).await.unwrap();
    assert_eq!(passed.created_at, at(AHEAD + 1), "that moment has passed");
    let store = world.pass(store).await;
    let times: Vec<_> = store.view().users().iter().map(|user| user.created_at).collect();
    assert!(times.is_sorted(), "{times:?}");
}

async fn what_has_expired_stays_expired(world: &mut World) {
    let store = world.open().await;
    let new = NewApiKey { expires_at: Some(at(10)), ..NewApiKey::default() };
    let (_, secret) = store.api_keys().create(new).await.unwrap();
    store.api_keys().authenticate(secret.expose()).await.unwrap();
    world.clock().set(at(10));
    store.users().create(local("alice")).await.unwrap();
    world.clock().set(at(0));
    let store = world.pass(store).await;
    let error = store.api_keys().authenticate(secret.expose()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::PermissionDenied);
}

async fn ids_tell_when_they_were_drawn(world: &mut World) {
    let mut store = world.open().await;
    let mut seen = Vec::new();
    for round in 0..5u8 {
        let now = world.clock().now();
        let user = store.users().create(local(&format!("user{round}"))).await.unwrap();
        let admission = Admission::User { user: user.id, method: RegisterMethod::Cli };
        let node = store.nodes().register(machine(round + 1, admission)).await.unwrap();
        let prefix = format!("10.{round}.0.0/16").parse().unwrap();
        let routes = store.routes().advertise(node.id, vec![prefix]).await.unwrap();
        let (api_key, _) = store.api_keys().create(NewApiKey::default()).await.unwrap();
        let ids = [
            *user.id.as_bytes(),
            *node.id.as_bytes(),
            *routes[0].id.as_bytes(),
            *api_key.id.as_bytes(),
        ];
        for id in ids {
            assert_eq!(id[6] >> 4, 7, "the version");
            assert_eq!(id[8] >> 6, 0b10, "the variant");
            let millis = id[..6].iter().fold(0i64, |millis, byte| millis << 8 | i64::from(*byte));
            assert_eq!(millis, now.as_millis());
        }
        seen.push(ids);
        store = world.pass(store).await;
        world.clock().advance(Duration::from_millis(1));
    }
    for kind in 0..4 {
        assert!(seen.is_sorted_by(|earlier, later| earlier[kind] < later[kind]));
    }
}

async fn ids_are_in_order_under_a_clock_that_moves_back(world: &mut World) {
    let store = world.open().await;
    let first = store.users().create(local("first")).await.unwrap();
    world.clock().set(at(-3600));
    let store = world.pass(store).await;
    let second = store.users().create(local("second")).await.unwrap();
    assert_eq!(first.id.as_bytes()[..6], second.id.as_bytes()[..6], "dated like the user itself");
    world.clock().set(at(1));
    let third = store.users().create(local("third")).await.unwrap();
    assert!(third.id > first.id && third.id > second.id);
}

async fn ids_are_never_used_again(world: &mut World) {
    let mut store = world.open().await;
    let mut seen = BTreeSet::new();
    let mut version = None;
    for _ in 0..4 {
        for _ in 0..25 {
            let user = store.users().create(local("again")).await.unwrap();
            assert!(seen.insert(user.id));
            store.users().delete(user.id, false).await.unwrap();
        }
        let policy = store.policies().swap(version, DocumentText::empty()).await.unwrap();
        assert_eq!(
            Some(policy.version.get()),
            Some(version.map_or(1, PolicyVersion::get) + u64::from(version.is_some()))
        );
        version = Some(policy.version);
        store.policies().prune(1).await.unwrap();
        store = world.pass(store).await;
    }
    assert_eq!(store.view().policies().len(), 1);
    assert_eq!(store.view().policies().current().unwrap().version.get(), 4);
}

/// This many seconds after the beginning.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(BEGINNING + seconds * 1_000_000).unwrap()
}

pub(crate) fn text<const MAX: usize>(text: &str) -> Text<MAX> {
    text.parse().unwrap()
}

pub(crate) fn local(name: &str) -> NewUser {
    NewUser::local(name.parse().unwrap())
}

/// A machine that wants to register.
pub(crate) fn machine(n: u8, admission: Admission) -> Registration {
    Registration {
        machine_key: MachineKey::from_bytes([n; 32]).unwrap(),
        node_key: NodeKey::from_bytes([n; 32]).unwrap(),
        disco_key: None,
        hostname: format!("machine-{n}").parse().unwrap(),
        host_info: HostInfo::default(),
        admission,
        expires_at: None,
    }
}

/// Options under which nothing is folded before the store is closed.
pub(crate) fn never_folding(world: &World) -> StoreOptions {
    let writer = WriterOptions {
        idle_before_fold: Duration::from_secs(3600),
        max_fold_debt: 1_000_000_000,
        ..WriterOptions::default()
    };
    StoreOptions { writer, ..world.options() }
}

/// Every point there is.
pub(crate) fn everything() -> MetricQuery {
    MetricQuery { node: None, metric: None, from: Timestamp::EPOCH, to: Timestamp::MAX }
}

/// How many lines the audit trail has, up to 1,000.
pub(crate) async fn audit_lines(store: &dyn Store) -> usize {
    let all = PageRequest::first(Limit::MAX);
    store.audit().query(&AuditQuery::default(), &all).await.unwrap().items.len()
}

/// One of each kind of entity, as the store acknowledged it.
pub(crate) struct OneOfEach {
    pub(crate) user: Arc<User>,
    pub(crate) node: Arc<Node>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) route: Arc<Route>,
    pub(crate) api_key: Arc<ApiKey>,
    pub(crate) api_secret: Secret,
    pub(crate) preauth_key: Arc<PreAuthKey>,
    pub(crate) preauth_secret: Secret,
    pub(crate) session: Arc<Session>,
    pub(crate) token: Secret,
    pub(crate) policy: Arc<Policy>,
    pub(crate) record: Arc<DnsRecord>,
    pub(crate) setting: Arc<Setting>,
}

impl OneOfEach {
    /// Makes them, all of one user.
    pub(crate) async fn make(store: &dyn Store) -> Self {
        let user = store.users().create(local("alice")).await.unwrap();
        let admission = Admission::User { user: user.id, method: RegisterMethod::Cli };
        let node = store.nodes().register(machine(1, admission)).await.unwrap();
        let number = SessionNumber::new(1).unwrap();
        let presence = store.presence().connect(node.id, number, Change::Keep).await.unwrap();
        let prefix = vec!["10.1.0.0/16".parse().unwrap()];
        let route = store.routes().advertise(node.id, prefix).await.unwrap().remove(0);
        let new = NewApiKey { user: Some(user.id), ..NewApiKey::default() };
        let (api_key, api_secret) = store.api_keys().create(new).await.unwrap();
        let new = NewPreAuthKey { user: Some(user.id), ..NewPreAuthKey::default() };
        let (preauth_key, preauth_secret) = store.preauth_keys().create(new).await.unwrap();
        let new = NewSession {
            owner: SessionOwner::User(user.id),
            client: None,
            expires_at: at(1_000_000_000),
        };
        let (session, token) = store.sessions().begin(new).await.unwrap();
        let document = DocumentText::new("{}").unwrap();
        let policy = store.policies().swap(None, document).await.unwrap();
        let record = store.dns().create(record("wiki.example.com", "10.0.0.1")).await.unwrap();
        let document =
            SettingDocument::Dns(DnsSettings { magic_dns: true, ..DnsSettings::default() });
        let setting = store.settings().put(document, None).await.unwrap();
        Self {
            user,
            node,
            presence,
            route,
            api_key,
            api_secret,
            preauth_key,
            preauth_secret,
            session,
            token,
            policy,
            record,
            setting,
        }
    }

    /// They are all there, and as they were.
    pub(crate) async fn check(&self, store: &dyn Store) {
        assert_eq!(store.users().get(self.user.id).await.unwrap().as_ref(), Some(&self.user));
        assert_eq!(store.nodes().get(self.node.id).await.unwrap().as_ref(), Some(&self.node));
        let presence = store.presence().get(self.node.id).await.unwrap();
        assert_eq!(presence.as_ref(), Some(&self.presence));
        assert_eq!(store.routes().get(self.route.id).await.unwrap().as_ref(), Some(&self.route));
        let key = store.api_keys().get(self.api_key.id).await.unwrap();
        assert_eq!(key.as_ref(), Some(&self.api_key));
        let key = store.preauth_keys().get(self.preauth_key.id).await.unwrap();
        assert_eq!(key.as_ref(), Some(&self.preauth_key));
        assert_eq!(store.view().sessions().get(self.session.id), Some(&self.session));
        assert_eq!(store.policies().current().await.unwrap().as_ref(), Some(&self.policy));
        assert_eq!(store.dns().get(self.record.id).await.unwrap().as_ref(), Some(&self.record));
        let setting = store.settings().get(SettingKind::Dns).await.unwrap();
        assert_eq!(setting.as_ref(), Some(&self.setting));
        let key = store.api_keys().authenticate(self.api_secret.expose()).await.unwrap();
        assert_eq!(key.id, self.api_key.id);
        let key = store.preauth_keys().authenticate(self.preauth_secret.expose()).await.unwrap();
        assert_eq!(key.id, self.preauth_key.id);
        let session = store.sessions().authenticate(self.token.expose()).await.unwrap();
        assert_eq!(session.id, self.session.id);
    }
}

pub(crate) fn record(name: &str, address: &str) -> NewDnsRecord {
    NewDnsRecord {
        name: name.parse().unwrap(),
        kind: DnsRecordKind::A,
        value: text(address),
        ttl: None,
    }
}
