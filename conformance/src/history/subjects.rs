//! The subjects: how each model's calls are made on a store.

use ghostwire_store_core::view::View;

use super::checker::{Entry, Model};
use super::log::{Log, Outcome};
use super::models::*;
use crate::prelude::*;

/// The caller's number, and the number of its call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    pub(super) number: u8,
    pub(super) step: u32,
}

impl Caller {
    /// A number that no other call has, and that is not 0.
    fn mark(self) -> u32 {
        (u32::from(self.number) + 1) << 16 | self.step
    }
}

#[async_trait]
pub(super) trait Subject: Send + Sync + 'static {
    type Model: Model<Call: Send + Sync, Answer: Send> + Default + Send + Sync + 'static;

    /// Calls once.
    async fn act(&self, store: &Opened, rng: &Rng, caller: Caller, log: &Log<Self::Model>);
}

/// The newest view; where other processes write, too, one has to ask for it.
async fn view(store: &Opened) -> Option<View> {
    if store.info().backend.shared { store.fresh_view().await.ok() } else { Some(store.view()) }
}

async fn looked<A>(store: &Opened, look: impl FnOnce(&View) -> A) -> Outcome<A> {
    view(store).await.map_or(Outcome::Nothing, |view| Outcome::Answered(look(&view)))
}

/// What a refusal of this kind, and of no other, means.
fn refused<A>(kind: ErrorKind, answer: A) -> impl FnOnce(&Error) -> A {
    move |error| {
        assert_eq!(*error.kind(), kind, "{error}");
        answer
    }
}

/// A user's display name is the value.
#[derive(Debug, Clone, Copy)]
pub(super) struct UserRecord(pub(super) UserId);

pub(super) fn record_of(user: &User) -> (u64, u32) {
    let value = user.display_name.as_ref().map_or(0, |text| text.as_str().parse().unwrap());
    (user.revision.get(), value)
}

fn set_value(value: u32) -> UserPatch {
    UserPatch {
        display_name: Patch::Set(value.to_string().parse().unwrap()),
        ..UserPatch::default()
    }
}

#[async_trait]
impl Subject for UserRecord {
    type Model = Record;

    async fn act(&self, store: &Opened, rng: &Rng, caller: Caller, log: &Log<Record>) {
        let read = |view: &View| view.users().get(self.0).map(|user| [record_of(user)]);
        if rng.one_in(2) {
            return log.call(VersionedCall::Read, looked(store, read)).await;
        }
        // Mostly what was last seen, which others may have changed meanwhile.
        let known = store.view().users().get(self.0).map_or(1, |user| user.revision.get());
        let expected = known - u64::from(known > 1 && rng.one_in(8));
        let value = caller.mark();
        let update = async {
            let revision = Some(Revision::new(expected).unwrap());
            let updated = store.users().update(self.0, set_value(value), revision).await;
            Outcome::of(updated, |user| Some([record_of(&user)]), refused(Conflict, None))
        };
        let write = VersionedCall::Write { expected: [expected], values: [value] };
        log.call(write, update).await;
    }
}

/// A one-time key that several machines want to use.
#[derive(Debug, Clone, Copy)]
pub(super) struct ContestedKey {
    pub(super) key: PreAuthKeyId,
    /// Tells its machines from those of other keys.
    pub(super) number: u8,
}

impl ContestedKey {
    fn registration(&self, number: u8) -> Registration {
        let key = Admission::PreAuthKey(self.key);
        machine(u32::from(self.number) << 8 | u32::from(number), key)
    }

    fn look(&self, view: &View) -> KeyAnswer {
        let key = view.preauth_keys().get(self.key).expect("the key is there");
        let mut nodes = view.nodes().iter().filter(|node| node.preauth_key == Some(self.key));
        let machine = nodes.next().map(|node| node.machine_key.as_bytes()[3]);
        assert!(nodes.next().is_none(), "a one-time key admitted two machines");
        KeyAnswer::Is(key.used_at.is_some(), machine)
    }
}

#[async_trait]
impl Subject for ContestedKey {
    type Model = OneTimeKey;

    async fn act(&self, store: &Opened, rng: &Rng, caller: Caller, log: &Log<OneTimeKey>) {
        if rng.one_in(2) {
            return log.call(KeyCall::Look, looked(store, |view| self.look(view))).await;
        }
        let machine = caller.number;
        let register = async {
            let registered = store.nodes().register(self.registration(machine)).await;
            Outcome::of(
                registered,
                |_| KeyAnswer::Admitted,
                refused(PermissionDenied, KeyAnswer::Refused),
            )
        };
        log.call(KeyCall::Register(machine), register).await;
    }
}

/// The policy, of which there is one.
#[derive(Debug, Clone, Copy)]
pub(super) struct PolicyInForce;

fn policy_of(policy: &Policy) -> Values<1> {
    [(policy.version.get(), policy.document.as_str().parse().unwrap())]
}

#[async_trait]
impl Subject for PolicyInForce {
    type Model = Policies;

    async fn act(&self, store: &Opened, rng: &Rng, caller: Caller, log: &Log<Policies>) {
        let read = |view: &View| view.policies().current().map_or([(0, 0)], |it| policy_of(it));
        if rng.one_in(2) {
            let current = looked(store, |view| Some(read(view)));
            return log.call(VersionedCall::Read, current).await;
        }
        let expected = store.view().policies().current().map(|policy| policy.version);
        let document = caller.mark();
        let swap = async {
            let text = document.to_string().parse().unwrap();
            let swapped = store.policies().swap(expected, text).await;
            Outcome::of(swapped, |policy| Some(policy_of(&policy)), refused(Conflict, None))
        };
        let expected = [expected.map_or(0, PolicyVersion::get)];
        log.call(VersionedCall::Write { expected, values: [document] }, swap).await;
    }
}

/// Nodes that all offer one prefix, the one with the oldest route first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offering {
    pub(super) nodes: [NodeId; ROUTERS],
    pub(super) address: IpAddr,
}

impl Offering {
    fn look(&self, view: &View) -> Online {
        let place = |id: NodeId| self.nodes.iter().position(|node| *node == id);
        let presence = |node| view.presence().get(node).map_or((0, false), |it| presence_of(it));
        let primary = view.route_to(self.address, view.time());
        Online { nodes: self.nodes.map(presence), primary: primary.and_then(|it| place(it.node)) }
    }
}

fn presence_of(presence: &Presence) -> (u64, bool) {
    (presence.session.get(), presence.online)
}

#[async_trait]
impl Subject for Offering {
    type Model = Routers;

    async fn act(&self, store: &Opened, rng: &Rng, _: Caller, log: &Log<Routers>) {
        let look = |view: &View| self.look(view);
        if rng.one_in(2) {
            let looked = looked(store, |view| RouterAnswer::Is(look(view)));
            return log.call(RouterCall::Look, looked).await;
        }
        let node = rng.below(ROUTERS);
        let (current, _) = look(&store.view()).nodes[node];
        // One that is late, the current one, or the next.
        let number = (current + rng.number() % 3).saturating_sub(1).max(1);
        let (id, session) = (self.nodes[node], SessionNumber::new(number).unwrap());
        let presence = store.presence();
        let answered = |result| {
            let done = |it: Arc<Presence>| {
                let (session, online) = presence_of(&it);
                RouterAnswer::Presence(session, online)
            };
            Outcome::of(result, done, |error| panic!("{error}"))
        };
        match rng.below(4) {
            0 => {
                let call = async { answered(presence.heartbeat(id, session, Update::Keep).await) };
                log.call(RouterCall::Heartbeat(node, number), call).await;
            }
            1 => {
                let call = async { answered(presence.disconnect(id, session).await) };
                log.call(RouterCall::Disconnect(node, number), call).await;
            }
            _ => {
                let call = async { answered(presence.connect(id, session, Update::Keep).await) };
                log.call(RouterCall::Connect(node, number), call).await;
            }
        }
    }
}

/// Two users. What they have is in their display names, as bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct TwoOwners(pub(super) [UserId; 2]);

impl TwoOwners {
    fn look(&self, view: &View) -> Values<2> {
        self.0.map(|id| view.users().get(id).map_or((0, 0), |user| record_of(user)))
    }
}

#[async_trait]
impl Subject for TwoOwners {
    type Model = Owners;

    async fn act(&self, store: &Opened, rng: &Rng, caller: Caller, log: &Log<Owners>) {
        if rng.one_in(2) {
            return log
                .call(VersionedCall::Read, looked(store, |view| Some(self.look(view))))
                .await;
        }
        let expected = self.look(&store.view()).map(|(revision, _)| revision);
        // A value that only this call uses goes to one user, and its complement to the other.
        let then = [caller.mark(), !caller.mark()];
        let mut transaction = Transaction::new();
        for (id, revision) in self.0.into_iter().zip(expected) {
            let revision = Revision::new(revision).unwrap();
            transaction = transaction.require(Precondition::UserRevision(id, revision)).unwrap();
        }
        for (id, value) in self.0.into_iter().zip(then) {
            let update = UserCommand::Update { id, patch: set_value(value), expected: None };
            transaction = transaction.then(update).unwrap();
        }
        let moved = async {
            let next = [0, 1].map(|owner: usize| (expected[owner] + 1, then[owner]));
            Outcome::of(store.transact(transaction).await, |_| Some(next), refused(Conflict, None))
        };
        log.call(VersionedCall::Write { expected, values: then }, moved).await;
    }
}

/// Users that are created by an actor of their own, and the actor's audit lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct LinesOf(pub(super) u8);

impl LinesOf {
    fn actor(&self) -> ActorName {
        format!("actor-{}", self.0).parse().unwrap()
    }

    fn id(&self, user: u8) -> UserId {
        UserId::from_bytes([user + 1, self.0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1])
    }

    /// Reads the lines and then the state. If the state lacks the user of a line, that line is
    /// recorded, otherwise any.
    async fn look(&self, store: &Opened, rng: &Rng, log: &Log<Trail>) {
        let query = AuditQuery { actor: Some(self.actor()), ..AuditQuery::default() };
        let page = PageRequest::first(Limit::MAX);
        let began = log.moment();
        let read = store.audit().query(&query, &page).await;
        let ended = log.moment();
        let got = log.moment();
        let view = view(store).await;
        let seen = log.moment();
        let (Ok(page), Some(view)) = (read, view) else { return };
        let subjects = page.items.iter().map(|line| line.subject.as_str());
        let users: Vec<UserId> = subjects.map(|subject| subject.parse().unwrap()).collect();
        let is_there = |user: &UserId| view.users().get(*user).is_some();
        let missing = users.iter().find(|user| !is_there(user));
        let Some(id) = missing.or_else(|| rng.choose(&users)) else { return };
        let user = id.as_bytes()[0] - 1;
        log.add(Entry { call: TrailCall::ReadLine(user), answer: Some(true), began, ended });
        let answer = Some(is_there(id));
        log.add(Entry { call: TrailCall::Get(user), answer, began: got, ended: seen });
    }
}

#[async_trait]
impl Subject for LinesOf {
    type Model = Trail;

    async fn act(&self, store: &Opened, rng: &Rng, caller: Caller, log: &Log<Trail>) {
        // Each caller creates a user of its own from time to time, and reads in between.
        if !caller.step.is_multiple_of(5) {
            return self.look(store, rng, log).await;
        }
        let user = caller.number * 8 + u8::try_from(caller.step / 5).unwrap();
        let name = format!("user-{}-{user}", self.0 + 100).parse().unwrap();
        let command = UserCommand::Create { id: self.id(user), user: NewUser::local(name) };
        let create = async {
            let transaction = Transaction::new().then(command).unwrap();
            let created = store.acting_as(self.actor().into()).transact(transaction).await;
            Outcome::of(created, |_| true, |error| panic!("{error}"))
        };
        log.call(TrailCall::Create(user), create).await;
    }
}

/// A point that every caller records, together with one of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct SharedPoint(pub(super) u8);

impl SharedPoint {
    fn name(&self) -> String {
        format!("shared_{}", self.0)
    }

    fn point(metric: &str, value: u32) -> MetricPoint {
        point(None, metric, Timestamp::EPOCH, value)
    }
}

#[async_trait]
impl Subject for SharedPoint {
    type Model = Point;

    async fn act(&self, store: &Opened, rng: &Rng, caller: Caller, log: &Log<Point>) {
        if rng.one_in(2) {
            let shared = Self::point(&self.name(), 0);
            let query = MetricQuery {
                node: Some(None),
                metric: Some(shared.metric),
                from: shared.at,
                to: Timestamp::MAX,
            };
            let read = async {
                if view(store).await.is_none() {
                    return Outcome::Nothing;
                }
                let page = store.metrics().range(&query, &PageRequest::first(Limit::MAX)).await;
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let value = |point: &MetricPoint| point.value.get() as u32;
                let done = |page: Page<MetricPoint>| page.items.first().map_or(0, value);
                Outcome::of(page, done, |error| panic!("{error}"))
            };
            return log.call(PointCall::Read, read).await;
        }
        let value = caller.mark();
        let own = format!("of_{}", caller.number);
        let points = vec![Self::point(&self.name(), value), Self::point(&own, value)];
        let record = async {
            let recorded = store.metrics().record_many(points).await;
            Outcome::of(recorded, |()| value, |error| panic!("{error}"))
        };
        log.call(PointCall::Record(value), record).await;
    }
}
