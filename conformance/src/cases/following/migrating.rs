//! Moving a network from one database to another while it is written.

use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;

use ghostwire_store_core::migration::{
    CopyOptions, Event, Migration, MoveOptions, Mover, Next, Occupant, Role, Seat, SeatOptions,
    Service, Side, Stage, Which,
};
use ghostwire_store_memory::MemoryBackend;

use crate::prelude::*;

cases! {
    stored_unopened {
        "migration" => [a_copy_that_is_broken_off_anywhere_goes_on],
    }
    once_unopened {
        "migration" => [
            a_network_that_is_written_moves_and_nothing_is_lost,
            a_hand_over_that_takes_too_long_is_taken_back,
            a_target_that_is_given_up_is_no_store,
            only_an_empty_database_becomes_the_target,
            an_open_store_moves_while_its_callers_wait,
            callers_of_an_open_store_are_served_when_a_hand_over_is_taken_back,
        ],
    }
}

const MIGRATION: MigrationId = MigrationId::from_bytes([3; 16]);

/// A network that is somewhere else.
struct Source {
    backend: Arc<dyn Backend>,
    store: Opened,
}

impl Source {
    /// With everything that a network can have, some of it only in blocks, and metrics of some hours.
    async fn filled(env: &TestEnv) -> Self {
        let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::new(StoreId::from_bytes([9; 16])));
        let writer = WriterOptions { idle_before_flush: HOUR, ..WriterOptions::default() };
        let options =
            StoreOptions { writer, materialize: Materialize::Checkpoint, ..env.options() };
        let store = ghostwire_store_core::open(backend.clone(), options).await.unwrap();
        populate(env, &store).await;
        let points = (0..40).map(|second| point(None, "load", at(second), second as f64));
        store.metrics().record_many(points.collect()).await.unwrap();
        store.checkpoint().await.unwrap();
        for number in 0..9 {
            create(&store, &format!("unflushed-{number}")).await;
        }
        Self { backend, store }
    }

    fn to(&self, target: &Arc<dyn Backend>, options: MoveOptions) -> Mover {
        Mover::new(Side::open(self.store.as_ref()), Side::closed(target.clone()), options)
    }
}

const HOUR: Duration = Duration::from_secs(3600);

/// In small steps, without rests; as long as it takes.
fn in_steps() -> MoveOptions {
    let copy = CopyOptions { page: 3, share: 100 };
    MoveOptions { copy, max_stall: HOUR, ..MoveOptions::default() }
}

/// Writes of every kind, of which the tables are to see some before and some after they are copied.
async fn write(store: &Opened, round: u32) {
    let name = format!("user-{round}");
    let user = create(store, &name).await;
    let node = node(store, user.id, 1_000 + round).await;
    let number = u64::from(round) + 1;
    connect(store, node.id, number).await;
    let second = i64::from(round);
    store.metrics().record(point(Some(node.id), "rx", at(second), 1.0)).await.unwrap();
    let writer = WriterId::from_bytes([4; 16]);
    let points = vec![point(None, "load", at(second), -1.0)];
    store.metrics().record_batch(writer, number, points).await.unwrap();
    store
        .audit()
        .append(vec![entry(u8::try_from(round % 200 + 1).unwrap(), at(second))])
        .await
        .unwrap();
    if round.is_multiple_of(3) {
        store.nodes().delete(node.id).await.unwrap();
        store.metrics().prune(at(second / 2)).await.unwrap();
        store.audit().prune(at(second / 2)).await.unwrap();
    }
}

async fn begun(source: &Source, target: &Arc<dyn Backend>) {
    source.to(target, in_steps()).start(MIGRATION).await.unwrap();
}

async fn roles(mover: &Mover) -> [Role; 2] {
    let pair = mover.look().await.unwrap();
    [pair.first, pair.second].map(|seen| seen.unwrap().record.role)
}

/// The target holds the network, as it was, and is written.
async fn moved(env: &TestEnv, source: &Source, target: &Arc<dyn Backend>) {
    let wanted = source.store.digests().await.unwrap();
    let position = source.store.view().log_position();
    let last = source.backend.head().await.unwrap();
    fails(source.store.users().create(local("too-late")).await, Unavailable);
    let store = ghostwire_store_core::open(target.clone(), env.options()).await.unwrap();
    assert_eq!(store.digests().await.unwrap(), wanted);
    assert_eq!((store.view().log_position(), store.info().store), (position, last.store));
    assert_eq!(store.view().position(), last.position);
    store.verify().await.unwrap();
    create(&store, "afterwards").await;
    close(store).await;
}

async fn a_network_that_is_written_moves_and_nothing_is_lost(env: &mut TestEnv) {
    let source = Source::filled(env).await;
    let target = env.open_backend().await;
    begun(&source, &target).await;
    let mover = source.to(&target, in_steps());
    assert_eq!(roles(&mover).await, [Role::ActiveAsync, Role::Filling]);
    // It is opened by nobody meanwhile, and served by the source.
    let writing = async {
        for round in 0..40 {
            write(&source.store, round).await;
            tokio::task::yield_now().await;
        }
    };
    let (filled, ()) = tokio::join!(mover.fill(), writing);
    let served = Next::Served(Service::Alone { authority: Which::First });
    assert_eq!(filled.unwrap(), served);
    assert_eq!(roles(&mover).await, [Role::ActiveAsync, Role::PassiveAsync]);
    for round in 40..50 {
        write(&source.store, round).await;
    }
    assert!(mover.lag().await.unwrap() > 0);
    let store = &source.store;
    let (handed, ()) = tokio::join!(mover.hand_over(), async {
        // Whatever comes too late was not stored.
        for number in 0..40 {
            let user = match store.users().create(local(&format!("in-time-{number}"))).await {
                Ok(user) => user,
                Err(error) => return drop(fails::<()>(Err(error), Unavailable)),
            };
            let _ = store.users().delete(user.id, false).await;
        }
    });
    handed.unwrap();
    assert_eq!(roles(&mover).await, [Role::PassiveAsync, Role::ActiveAsync]);
    moved(env, &source, &target).await;
}

const BROKEN_OFF: &str = "so many commits, and no more";

/// Takes so many commits.
#[derive(Debug)]
struct Breaking {
    inner: Arc<dyn Backend>,
    left: AtomicI64,
}

#[async_trait]
impl Layer for Breaking {
    fn inner(&self) -> &dyn Backend {
        self.inner.as_ref()
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        match self.left.fetch_sub(1, Relaxed) {
            1.. => self.inner.commit(commit).await,
            _ => Err(Error::new(Unavailable, BROKEN_OFF)),
        }
    }
}

async fn a_copy_that_is_broken_off_anywhere_goes_on(env: &mut TestEnv) {
    let source = Source::filled(env).await;
    let mut target = env.open_backend().await;
    begun(&source, &target).await;
    let mut round = 0;
    loop {
        // After so many commits the copy is given up, wherever it is; later each time, or the writes would
        // always be ahead.
        let left = AtomicI64::new(i64::from(1 + round % 7 + round / 2));
        let breaking: Arc<dyn Backend> = Arc::new(Breaking { inner: target.clone(), left });
        match source.to(&breaking, in_steps()).fill().await {
            Ok(_) => break,
            Err(error) => assert!(error.to_string().contains(BROKEN_OFF), "{error}"),
        }
        drop(breaking);
        write(&source.store, round).await;
        if round % 4 == 1 {
            source.store.checkpoint().await.unwrap();
        }
        target = env.reload_backend(target).await;
        round += 1;
    }
    assert!(round > 5, "{round}");
    let mover = source.to(&target, in_steps());
    mover.hand_over().await.unwrap();
    moved(env, &source, &target).await;
}

async fn a_hand_over_that_takes_too_long_is_taken_back(env: &mut TestEnv) {
    let source = Source::filled(env).await;
    let target = env.open_backend().await;
    begun(&source, &target).await;
    let mover = source.to(&target, MoveOptions { max_stall: Duration::ZERO, ..in_steps() });
    mover.fill().await.unwrap();
    let error = fails(mover.hand_over().await, Busy);
    assert!(error.to_string().contains("max_stall_ms"), "{error}");
    assert_eq!(roles(&mover).await, [Role::ActiveAsync, Role::PassiveAsync]);
    // As if nothing had been: it is written, and can be handed over.
    write(&source.store, 1).await;
    source.to(&target, in_steps()).hand_over().await.unwrap();
    moved(env, &source, &target).await;
}

async fn a_target_that_is_given_up_is_no_store(env: &mut TestEnv) {
    let source = Source::filled(env).await;
    let target = env.open_backend().await;
    begun(&source, &target).await;
    let mover = source.to(&target, in_steps());
    mover.fill().await.unwrap();
    mover.take(Event::Abort).await.unwrap();
    assert_eq!(roles(&mover).await, [Role::ActiveAlone, Role::None]);
    assert!(source.store.consumers().list().await.unwrap().is_empty());
    write(&source.store, 1).await;
    // Nor is it an empty one, in which another migration could begin.
    fails(mover.start(MIGRATION).await, Restricted);
    target.close().await.unwrap();
    drop(mover);
    let opened = ghostwire_store_core::open(env.open_backend().await, env.options()).await;
    let error = fails(opened, Restricted);
    assert!(error.to_string().contains("discard"), "{error}");
}

async fn only_an_empty_database_becomes_the_target(env: &mut TestEnv) {
    let source = Source::filled(env).await;
    let record = source.backend.head().await.unwrap().record();
    let again: Arc<dyn Backend> = source.backend.clone();
    let error = fails(source.to(&again, in_steps()).start(MIGRATION).await, Restricted);
    assert!(error.to_string().contains("same database"), "{error}");
    let target = env.open_backend().await;
    let head = target.head().await.unwrap();
    let entry = Some(CommitId::from_bytes([1; 16]));
    target.commit(&Commit { entry, ..Commit::on(&head) }).await.unwrap();
    fails(source.to(&target, in_steps()).start(MIGRATION).await, Restricted);
    // Nothing of the source changed: it does not wait for a target that it never gets.
    assert_eq!(source.backend.head().await.unwrap().record(), record);
    assert!(source.store.consumers().list().await.unwrap().is_empty());
}

/// A network in memory, on a seat.
async fn seated(env: &TestEnv, target: &Arc<dyn Backend>) -> Opened {
    let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::new(StoreId::from_bytes([9; 16])));
    let is_shared = target.info().shared;
    let options = SeatOptions { is_shared, ..SeatOptions::default() };
    let seat = Seat::with_options(Occupant::new(backend), options);
    let options = StoreOptions { seat: Some(seat.clone()), ..env.options() };
    let store = ghostwire_store_core::open(seat, options).await.unwrap();
    populate(env, &store).await;
    store
}

async fn mirrored(migration: &Migration) {
    while migration.status().await.unwrap().stage != Stage::Mirror {
        tokio::task::yield_now().await;
    }
}

async fn an_open_store_moves_while_its_callers_wait(env: &mut TestEnv) {
    let target = env.open_backend().await;
    let store = seated(env, &target).await;
    let name = target.info().name;
    let occupant = Occupant::new(target.clone());
    let begun = Migration::begin(store.as_ref(), occupant, MIGRATION, in_steps()).await;
    let migration = begun.unwrap();
    mirrored(&migration).await;
    fails(migration.finish("nobody").await, Restricted);
    fails(migration.back("nobody").await, Restricted);
    for (to_target, backend, epoch) in [(true, name, 1), (false, "memory", 2), (true, name, 3)] {
        let handing_over = async {
            match to_target {
                true => migration.advance("somebody").await,
                false => migration.back("somebody").await,
            }
        };
        // Whoever writes meanwhile is answered by the one side or the other.
        let (handed, ()) = tokio::join!(handing_over, async {
            for round in 0..12 {
                write(&store, u32::try_from(epoch).unwrap() * 100 + round).await;
            }
        });
        handed.unwrap();
        let info = store.info();
        assert_eq!((info.backend.name, info.epoch.get()), (backend, epoch));
        store.verify().await.unwrap();
    }
    fails(migration.abort("somebody").await, Restricted);
    migration.finish("somebody").await.unwrap();
    assert!(migration.has_ended());
    assert!(store.consumers().list().await.unwrap().is_empty());
    write(&store, 900).await;
    let (digests, position) = (store.digests().await.unwrap(), store.view().position());
    close(store).await;
    let store = ghostwire_store_core::open(env.open_backend().await, env.options()).await.unwrap();
    assert_eq!((store.digests().await.unwrap(), store.view().position()), (digests, position));
    close(store).await;
}

async fn callers_of_an_open_store_are_served_when_a_hand_over_is_taken_back(env: &mut TestEnv) {
    let target = env.open_backend().await;
    let store = seated(env, &target).await;
    let options = MoveOptions { max_stall: Duration::ZERO, ..in_steps() };
    let occupant = Occupant::new(target);
    let migration = Migration::begin(store.as_ref(), occupant, MIGRATION, options).await.unwrap();
    mirrored(&migration).await;
    let (handed, ()) = tokio::join!(migration.advance("somebody"), async {
        for round in 0..12 {
            write(&store, round).await;
        }
    });
    let error = fails(handed.map(drop), Busy);
    assert!(error.to_string().contains("commits_per_second"), "{error}");
    assert_eq!(
        (migration.status().await.unwrap().stage, store.info().backend.name),
        (Stage::Mirror, "memory")
    );
    write(&store, 50).await;
    store.verify().await.unwrap();
    close(store).await;
}
