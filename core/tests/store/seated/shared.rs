//! One of both databases is written to by several processes.

use super::*;

impl Moved {
    /// From a database of one process to one of several.
    async fn to_shared() -> Self {
        let source = Failing::new(1);
        let options = SeatOptions { is_shared: true, ..SeatOptions::default() };
        let seat = Seat::with_options(Occupant::new(Arc::new(source.clone())), options);
        let moved = Self::on(seat, source).await;
        let inner = moved.target.inner.clone().shared();
        Self { target: Failing { inner, ..moved.target }, ..moved }
    }

    /// What another process has open.
    async fn elsewhere(&self) -> Arc<dyn Store> {
        let backend = Arc::new(self.target.inner.clone());
        open(backend, StoreOptions::default()).await.unwrap()
    }
}

fn has(store: &Arc<dyn Store>, name: &str) -> bool {
    store.view().users().iter().any(|user| user.name.as_str() == name)
}

async fn add_to(store: &Arc<dyn Store>, name: &str) {
    store.users().create(NewUser::local(name.parse().unwrap())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_moves_to_a_database_that_others_write_to_and_back() {
    let moved = Moved::to_shared().await;
    let migration = moved.begin(patient()).await;
    mirrored(&migration).await;
    migration.advance("somebody").await.unwrap();
    let store = &moved.store;
    let ours = store.instances().begin("control-1".parse().unwrap()).await.unwrap();
    let elsewhere = moved.elsewhere().await;
    let theirs = elsewhere.instances().begin("control-2".parse().unwrap()).await.unwrap();
    for number in 0..20 {
        add_to(store, &format!("here-{number}")).await;
        add_to(&elsewhere, &format!("elsewhere-{number}")).await;
    }
    store.fresh_view().await.unwrap();
    assert!(has(store, "elsewhere-19"));
    // Whoever writes elsewhere would have to be told.
    let error = migration.back("somebody").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Restricted, "{error}");
    assert!(error.to_string().contains("instances=control-2"), "{error}");
    elsewhere.instances().end(theirs.id).await.unwrap();
    store.fresh_view().await.unwrap();
    migration.back("somebody").await.unwrap();
    assert_eq!(moved.source.role().await, Role::ActiveAsync);
    assert!(has(store, "elsewhere-19"));
    add_to(store, "back").await;
    // It had not ended, and is told what became of its database.
    let user = NewUser::local("too-late".parse().unwrap());
    let late = elsewhere.users().create(user).await.unwrap_err();
    assert!(matches!(late.kind(), ErrorKind::Fenced { .. }), "{late}");
    let _ = elsewhere.close().await;
    let digests = store.digests().await.unwrap();
    until(&migration, |status| status.lag == Some(0)).await;
    migration.advance("somebody").await.unwrap();
    assert_eq!(store.digests().await.unwrap(), digests);
    store.verify().await.unwrap();
    migration.finish("somebody").await.unwrap();
    store.instances().end(ours.id).await.unwrap();
    let elsewhere = moved.elsewhere().await;
    add_to(&elsewhere, "one-of-several").await;
    store.fresh_view().await.unwrap();
    assert!(has(store, "one-of-several"));
    elsewhere.close().await.unwrap();
    store.close().await.unwrap();
}

/// Whoever writes there already learns of it before its next commit, of which the copy needs an entry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_writes_to_a_database_when_it_begins_to_move_is_copied_too() {
    let moved = Moved::to_shared().await;
    let source = moved.target.inner.clone();
    let options = SeatOptions { is_shared: true, ..SeatOptions::default() };
    let seat = Seat::with_options(Occupant::new(Arc::new(source)), options);
    let options = StoreOptions { seat: Some(seat.clone()), ..StoreOptions::default() };
    let store = open(seat, options).await.unwrap();
    add_to(&store, "first").await;
    let elsewhere = moved.elsewhere().await;
    let target = Failing::new(4);
    target.hang(Call::Adopt);
    let other = Occupant::new(Arc::new(target.clone()));
    let begun = Migration::launch(store.as_ref(), other, MIGRATION, patient()).await.unwrap();
    while moved.target.role().await != Role::ActiveAsync {
        tokio::task::yield_now().await;
    }
    for number in 0..5 {
        add_to(&elsewhere, &format!("elsewhere-{number}")).await;
    }
    target.go_on();
    begun.has_begun().await.unwrap();
    mirrored(&begun).await;
    add_to(&elsewhere, "last").await;
    elsewhere.close().await.unwrap();
    store.fresh_view().await.unwrap();
    let digests = store.digests().await.unwrap();
    begun.advance("somebody").await.unwrap();
    assert_eq!(store.digests().await.unwrap(), digests);
    assert!(has(&store, "elsewhere-4") && has(&store, "last"));
    store.verify().await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_database_of_several_processes_is_not_kept_in_step() {
    let moved = Moved::to_shared().await;
    let begin = async |moved: &Moved, options| {
        let other = Occupant::new(Arc::new(moved.target.clone()));
        Migration::begin(moved.store.as_ref(), other, MIGRATION, options).await.map(drop)
    };
    let synchronous = MoveOptions { synchronous: true, ..patient() };
    let error = begin(&moved, synchronous).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}");
    begin(&moved, patient()).await.unwrap();
    // Nor moved to where the store does not look for what others write.
    let alone = Moved::new().await;
    let alone = Moved { target: moved.target.clone(), ..alone };
    let error = begin(&alone, patient()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}");
}

/// A backend that answers like a standby, and counts.
#[derive(Debug)]
struct Standby(MemoryBackend);

#[async_trait]
impl Layer for Standby {
    fn inner(&self) -> &dyn Backend {
        &self.0
    }

    fn lagging_answers(&self) -> u64 {
        3
    }
}

#[tokio::test]
async fn a_seat_says_what_its_backend_says() {
    let backend = Standby(MemoryBackend::new(StoreId::from_bytes([1; 16])));
    let revision = Backend::revision(&backend).await.unwrap();
    assert!(revision.is_some());
    let seat = Seat::new(Occupant::new(Arc::new(backend)));
    assert_eq!((seat.lagging_answers(), seat.revision().await.unwrap()), (3, revision));
}
