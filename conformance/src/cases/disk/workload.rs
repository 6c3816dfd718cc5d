//! Random writes of every kind on one store, and how the store is opened for them.

use ghostwire_store_core::entropy::SeededEntropy;
use ghostwire_store_core::secrets::HashKey;

use crate::prelude::*;

pub(super) fn opening() -> Opening {
    Opening::new(StoreId::from_bytes([7; 16]))
}

/// Nothing happens by itself; flushing rides along with commits, and blocks are purged soon.
pub(super) fn options(materialize: Materialize, clock: &ManualClock, seed: u64) -> StoreOptions {
    StoreOptions {
        clock: Arc::new(clock.clone()),
        entropy: Arc::new(SeededEntropy::new(seed)),
        hash_key: Some(Arc::new(HashKey::new([3; 32]).into())),
        materialize,
        writer: WriterOptions {
            idle_before_flush: HOUR,
            max_dirty_rows: 60,
            retain_block_bytes: 32 * 1024,
            ..WriterOptions::default()
        },
        ..StoreOptions::default()
    }
}

pub(super) fn clock() -> ManualClock {
    ManualClock::new(Timestamp::from_micros(BEGINNING).unwrap())
}

/// Opens what is kept at a place. Gives the backend, too.
pub(super) async fn open(
    place: &dyn Place,
    options: StoreOptions,
) -> Result<(OpenedBackend, Opened)> {
    let backend = place.open(opening()).await?;
    let store = ghostwire_store_core::open(backend.clone(), options).await?;
    Ok((backend, store))
}

/// What a store holds, found without a fault.
pub(super) async fn sound(store: &Opened) -> Result<Digests> {
    let digests = store.digests().await?;
    store.verify().await?;
    Ok(digests)
}

/// Writes at random.
pub(super) struct Workload {
    pub(super) clock: ManualClock,
    rng: Rng,
    number: u32,
    users: Vec<UserId>,
    nodes: Vec<(NodeId, UserId)>,
    keys: Vec<(PreAuthKeyId, UserId)>,
    policy: Option<PolicyVersion>,
}

impl Workload {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            clock: clock(),
            rng: Rng::new(seed),
            number: 0,
            users: Vec::new(),
            nodes: Vec::new(),
            keys: Vec::new(),
            policy: None,
        }
    }

    /// One write, which is one commit as far as its content goes. Every one of them succeeds if
    /// the disk does.
    pub(super) async fn step(&mut self, store: &Opened) -> Result<()> {
        self.clock.advance(Duration::from_secs(1));
        self.number += 1;
        if self.users.is_empty() {
            return self.create_user(store).await;
        }
        match self.rng.below(32) {
            0..=1 => self.create_user(store).await,
            2..=8 => self.register(store).await,
            9..=11 => self.update_node(store).await,
            12..=15 => self.connect(store).await,
            16..=17 => self.delete_node(store).await,
            18 => self.delete_user(store).await,
            19..=20 => self.create_key(store).await,
            21..=22 => self.transact(store).await,
            23..=24 => self.measure(store, 40).await,
            25 => self.measure(store, 800).await,
            26 => self.append(store).await,
            27..=28 => self.swap_policy(store).await,
            29 => store.metrics().prune(self.some_time_ago()).await,
            30 => store.audit().prune(self.some_time_ago()).await,
            _ => store.checkpoint().await.map(|_| ()),
        }
    }

    fn some_time_ago(&mut self) -> Timestamp {
        let seconds = self.rng.below(40) as i64;
        Timestamp::from_micros(self.clock.now().as_micros() - seconds * 1_000_000).unwrap()
    }

    async fn create_user(&mut self, store: &Opened) -> Result<()> {
        let name = format!("user-{}", self.number).parse().unwrap();
        let user = store.users().create(NewUser::local(name)).await?;
        self.users.push(user.id);
        Ok(())
    }

    async fn register(&mut self, store: &Opened) -> Result<()> {
        let key = if self.rng.one_in(2) { self.keys.pop() } else { None };
        let (user, admission) = match key {
            Some((key, user)) => (user, Admission::PreAuthKey(key)),
            None => {
                let user = self.rng.choose(&self.users).copied().unwrap();
                (user, by(user))
            }
        };
        let node = store.nodes().register(machine(self.number, admission)).await?;
        self.nodes.push((node.id, user));
        Ok(())
    }

    async fn update_node(&mut self, store: &Opened) -> Result<()> {
        let Some((id, _)) = self.rng.choose(&self.nodes).copied() else {
            return self.register(store).await;
        };
        let hostname = format!("renamed-{}", self.number).parse().unwrap();
        let patch = NodePatch { hostname: Update::Set(hostname), ..NodePatch::default() };
        store.nodes().update(id, patch, None).await.map(|_| ())
    }

    async fn connect(&mut self, store: &Opened) -> Result<()> {
        let Some((id, _)) = self.rng.choose(&self.nodes).copied() else {
            return self.register(store).await;
        };
        let session = SessionNumber::new(self.number.into()).unwrap();
        store.presence().connect(id, session, Update::Keep).await.map(|_| ())
    }

    async fn delete_node(&mut self, store: &Opened) -> Result<()> {
        let Some((id, _)) = self.rng.choose(&self.nodes).copied() else {
            return self.register(store).await;
        };
        store.nodes().delete(id).await?;
        self.nodes.retain(|(node, _)| *node != id);
        Ok(())
    }

    async fn delete_user(&mut self, store: &Opened) -> Result<()> {
        let user = self.rng.choose(&self.users).copied().unwrap();
        store.users().delete(user, true).await?;
        self.users.retain(|other| *other != user);
        self.nodes.retain(|(_, owner)| *owner != user);
        self.keys.retain(|(_, owner)| *owner != user);
        Ok(())
    }

    async fn create_key(&mut self, store: &Opened) -> Result<()> {
        let user = self.rng.choose(&self.users).copied().unwrap();
        let (key, _) = store.preauth_keys().create(one_time(user)).await?;
        self.keys.push((key.id, user));
        Ok(())
    }

    /// A user, three nodes, and the end of another user.
    async fn transact(&mut self, store: &Opened) -> Result<()> {
        let now = self.clock.now();
        let (old, mut id) = (self.users[0], [0; 10]);
        id[..4].copy_from_slice(&self.number.to_be_bytes());
        let user = UserId::time_ordered(now, id);
        let name = format!("user-{}", self.number).parse().unwrap();
        let mut transaction = Transaction::new()
            .then(UserCommand::Create { id: user, user: NewUser::local(name) })?;
        let mut nodes = Vec::new();
        for part in 1..=3 {
            id[9] = part;
            let node = NodeId::time_ordered(now, id);
            let admission = by(user);
            let number = self.number + u32::from(part) * 1_000_000;
            let registration = Box::new(machine(number, admission));
            let register: Command = NodeCommand::Register { id: node, registration }.into();
            transaction = transaction.then(register)?;
            nodes.push((node, user));
        }
        transaction =
            transaction.then(UserCommand::Delete { id: old, cascade: true, part: Part::WHOLE })?;
        store.transact(transaction).await?;
        self.users.retain(|other| *other != old);
        self.nodes.retain(|(_, owner)| *owner != old);
        self.keys.retain(|(_, owner)| *owner != old);
        self.users.push(user);
        self.nodes.extend(nodes);
        Ok(())
    }

    async fn measure(&mut self, store: &Opened, points: usize) -> Result<()> {
        let now = self.clock.now().as_micros();
        let point = |index: usize| {
            let node = self.rng.choose(&self.nodes).copied().map(|(node, _)| node);
            let at = Timestamp::from_micros(now - index as i64 * 50_000).unwrap();
            point(node, "rx_bytes_total", at, index as f64 * 0.25)
        };
        let points = (0..points).map(point).collect();
        let writer = WriterId::from_bytes([9; 16]);
        store.metrics().record_batch(writer, self.number.into(), points).await
    }

    async fn append(&mut self, store: &Opened) -> Result<()> {
        let mut random = [0; 10];
        random[..4].copy_from_slice(&self.number.to_be_bytes());
        let at = self.clock.now();
        let entry = |part: u8| {
            random[9] = part;
            let id = AuditId::time_ordered(at, random);
            AuditEntry { id, subject: text(&"x".repeat(200)), ..entry(part, at) }
        };
        store.audit().append((0..5).map(entry).collect()).await
    }

    async fn swap_policy(&mut self, store: &Opened) -> Result<()> {
        let length = self.rng.below(60_000);
        let document = DocumentText::new("p".repeat(length)).unwrap();
        self.policy = Some(store.policies().swap(self.policy, document).await?.version);
        Ok(())
    }
}
