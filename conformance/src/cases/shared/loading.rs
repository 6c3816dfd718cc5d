//! Reading everything while others write: opening, and `verify`.

use std::sync::atomic::AtomicU32;

use futures_util::future::BoxFuture;
use ghostwire_store_core::changes::LogPosition;
use ghostwire_store_core::digest::Digest;

use super::{NOT_SHARED, two};
use crate::prelude::*;

cases! {
    once_unopened {
        "fuzzy-load" => [
            what_is_loaded_while_others_write_is_of_one_moment,
            a_process_that_is_opened_while_others_write_goes_on_from_there,
            a_load_whose_blocks_are_purged_ends_all_the_same,
            who_may_not_write_holds_no_blocks,
            what_is_verified_is_held_for_as_long,
            what_is_verified_while_others_write_is_sound_or_damaged,
        ],
    }
}

/// Two pages of a load, and two of `verify`.
const USERS: u32 = 4_500;
const FEWER: u32 = 1_200;

/// A moment of a store: where in its history, and with what.
type Moment = (LogPosition, Digest);

/// Somebody who writes whenever a page is read.
#[derive(Debug)]
struct Rival {
    store: Opened,
    /// Done so far. Held while it writes, so that whoever asks afterwards is told of everything.
    changes: tokio::sync::Mutex<u32>,
    moments: Mutex<BTreeMap<Position, Moment>>,
    users: AtomicU32,
}

impl Rival {
    fn new(store: &Opened) -> Arc<Self> {
        let (changes, moments, users) = Default::default();
        Arc::new(Self { store: store.clone(), changes, moments, users })
    }

    /// Users whose names are taken over by new ones: of two moments, somebody would be there twice, or
    /// nobody.
    async fn fill(&self, users: u32) {
        let user = |number: u32| {
            let mut random = [0; 10];
            random[..4].copy_from_slice(&number.to_be_bytes());
            EntityRecord::User(Arc::new(User {
                id: UserId::time_ordered(at(0), random),
                ..template(number)
            }))
        };
        self.users.store(users, Ordering::SeqCst);
        restore(&self.store, (0..users).map(user).collect()).await.unwrap();
        self.store.checkpoint().await.unwrap();
        self.remember();
    }

    fn remember(&self) {
        let view = self.store.view();
        let digest = state_digest(&view);
        self.moments.lock().unwrap().insert(view.position(), (view.log_position(), digest));
    }

    /// A row of some page goes, and one of the last page comes.
    async fn change(&self) {
        let mut changes = self.changes.lock().await;
        *changes += 1;
        let (number, users) = (*changes, self.users.load(Ordering::SeqCst));
        let victim = number.wrapping_mul(797) % users;
        let name: UserName = format!("user-{victim}").parse().unwrap();
        let view = self.store.view();
        let old = view.users().by_name(&name).unwrap().id;
        let mut random = [0xff; 10];
        random[..4].copy_from_slice(&number.to_be_bytes());
        let id = UserId::time_ordered(at(1), random);
        let transaction = Transaction::new()
            .then(UserCommand::Delete { id: old, cascade: false, part: Part::WHOLE })
            .unwrap()
            .then(UserCommand::Create { id, user: NewUser::local(name) })
            .unwrap();
        self.store.transact(transaction).await.unwrap();
        self.remember();
        if number % 3 == 0 {
            let point = point(None, "load", at(number.into()), number);
            self.store.metrics().record(point).await.unwrap();
            self.remember();
        }
        if number % 2 == 0 {
            // So pages have rows that are newer than where the load began.
            self.store.checkpoint().await.unwrap();
        }
    }

    /// What the store held at this position.
    async fn moment(&self, position: Position) -> Moment {
        drop(self.changes.lock().await);
        self.moments.lock().unwrap()[&position]
    }
}

fn template(number: u32) -> User {
    local(&format!("user-{number}")).created(UserId::from_bytes([1; 16]), at(0))
}

/// When somebody else writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Rows,
    Blocks,
}

type Hook = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// A backend that others write to before each page of rows.
struct Restless {
    inner: Arc<dyn Backend>,
    before: Before,
    hook: Mutex<Option<Hook>>,
    pages: AtomicUsize,
}

impl Restless {
    fn new(inner: Arc<dyn Backend>) -> Arc<Self> {
        Self::writing_before(Before::Rows, inner)
    }

    fn writing_before(before: Before, inner: Arc<dyn Backend>) -> Arc<Self> {
        Arc::new(Self { inner, before, hook: Mutex::default(), pages: AtomicUsize::new(0) })
    }

    async fn pass(&self, what: Before) {
        let hook = self.hook.lock().unwrap().clone();
        if let Some(hook) = hook.filter(|_| what == self.before) {
            hook().await;
            self.pages.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn disturb(&self, rival: &Arc<Rival>) {
        let rival = rival.clone();
        let hook: Hook = Arc::new(move || {
            let rival = rival.clone();
            // A page that is given up must not give up half a change.
            let change = tokio::spawn(async move { rival.change().await });
            Box::pin(async move { change.await.unwrap() })
        });
        *self.hook.lock().unwrap() = Some(hook);
        self.pages.store(0, Ordering::SeqCst);
    }

    fn calm(&self) {
        *self.hook.lock().unwrap() = None;
        let pages = self.pages.load(Ordering::SeqCst);
        assert!(pages >= 10, "somebody wrote before {pages} pages only");
    }
}

impl Debug for Restless {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Restless").field(&self.inner).finish()
    }
}

#[async_trait]
impl Layer for Restless {
    fn inner(&self) -> &dyn Backend {
        self.inner.as_ref()
    }

    async fn scan(&self, scan: Scan) -> Result<ScanPage> {
        // What is read beside the state is read at once, and then written to.
        if scan.range.table.is_state() {
            self.pass(Before::Rows).await;
        }
        self.inner.scan(scan).await
    }

    async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        self.pass(Before::Blocks).await;
        self.inner.blocks(after, limit).await
    }

    /// It is the other one's to close.
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

/// Both use one handle of the backend, so this needs none that can be shared.
async fn what_is_loaded_while_others_write_is_of_one_moment(env: &mut TestEnv) {
    let backend = env.open_backend().await;
    let store = ghostwire_store_core::open(backend.clone(), never_flushing(env)).await.unwrap();
    let rival = Rival::new(&store);
    rival.fill(USERS).await;
    for _ in 0..2 {
        let restless = Restless::new(backend.clone());
        restless.disturb(&rival);
        let options = StoreOptions { read_only: true, ..env.options() };
        let reader = ghostwire_store_core::open(restless.clone(), options).await.unwrap();
        restless.calm();
        let view = reader.view();
        let found = (view.log_position(), state_digest(&view));
        assert_eq!(found, rival.moment(view.position()).await);
        assert_eq!(view.users().len(), USERS as usize);
        for user in view.users().iter() {
            assert_eq!(view.users().by_name(&user.name), Some(user));
        }
        assert!(view.position() > Position::new(5), "it began and ended at the same moment");
    }
    close(store).await;
}

async fn a_process_that_is_opened_while_others_write_goes_on_from_there(
    env: &mut TestEnv,
) -> Verdict {
    let Some((store, other)) = two(env, |_| ()).await else { return NOT_SHARED };
    other.close().await.unwrap();
    let rival = Rival::new(&store);
    rival.fill(FEWER).await;
    let restless = Restless::new(env.open_backend().await);
    restless.disturb(&rival);
    let opened = ghostwire_store_core::open(restless.clone(), env.options()).await.unwrap();
    restless.calm();
    let view = opened.view();
    assert_eq!((view.log_position(), state_digest(&view)), rival.moment(view.position()).await);
    for round in 0..3 {
        rival.change().await;
        create(&opened, &format!("mine-{round}")).await;
        store.fresh_view().await.unwrap();
        assert_eq!(opened.digests().await.unwrap(), store.digests().await.unwrap());
        assert_eq!(opened.view().log_position(), store.view().log_position());
    }
    opened.verify().await.unwrap();
    store.verify().await.unwrap();
    Verdict::Passed
}

/// Somebody who keeps no block, on a backend that others may open, too.
async fn purging_at_once(env: &TestEnv) -> Option<(Opened, Arc<Rival>)> {
    let forget = |options: &mut StoreOptions| options.writer.retain_block_bytes = 0;
    let (store, other) = two(env, forget).await?;
    other.close().await.unwrap();
    let rival = Rival::new(&store);
    rival.fill(FEWER).await;
    Some((store, rival))
}

async fn a_load_whose_blocks_are_purged_ends_all_the_same(env: &mut TestEnv) -> Verdict {
    let Some((store, rival)) = purging_at_once(env).await else { return NOT_SHARED };
    let restless = Restless::new(env.open_backend().await);
    restless.disturb(&rival);
    let opened = ghostwire_store_core::open(restless.clone(), env.options()).await.unwrap();
    restless.calm();
    let fresh = opened.fresh_view().await.unwrap();
    let theirs = store.fresh_view().await.unwrap();
    assert_eq!(fresh.log_position(), theirs.log_position());
    assert_eq!(state_digest(&fresh), state_digest(&theirs));
    let left = store.consumers().list().await.unwrap();
    assert!(left.is_empty(), "whoever held blocks is still registered: {left:?}");
    create(&opened, "mine").await;
    // So does verifying.
    restless.disturb(&rival);
    opened.verify().await.unwrap();
    restless.calm();
    assert!(store.consumers().list().await.unwrap().is_empty());
    Verdict::Passed
}

async fn who_may_not_write_holds_no_blocks(env: &mut TestEnv) -> Verdict {
    let Some((store, rival)) = purging_at_once(env).await else { return NOT_SHARED };
    let restless = Restless::new(env.open_backend().await);
    restless.disturb(&rival);
    let options = StoreOptions { read_only: true, ..env.options() };
    fails(ghostwire_store_core::open(restless.clone(), options).await, Busy);
    assert_eq!(store.consumers().list().await.unwrap(), []);
    restless.calm();
    Verdict::Passed
}

/// Blocks are purged with every commit, and somebody commits before every read of blocks.
async fn what_is_verified_is_held_for_as_long(env: &mut TestEnv) {
    let backend = env.open_backend().await;
    let restless = Restless::writing_before(Before::Blocks, backend);
    let mut options = StoreOptions { materialize: Materialize::Commit, ..env.options() };
    options.writer.retain_block_bytes = 0;
    let store = ghostwire_store_core::open(restless.clone(), options).await.unwrap();
    let rival = Rival::new(&store);
    rival.fill(FEWER).await;
    let before = store.view().serial();
    create(&store, "alice").await;
    create(&store, "carol").await;
    let purged = store.watch(before).next().await.unwrap().unwrap_err();
    assert!(matches!(purged.kind(), Compacted { .. }), "{purged}");
    restless.disturb(&rival);
    store.verify().await.unwrap();
    // Whoever gives it up, at whatever it waits for, leaves nothing behind.
    for polls in 1..20 {
        let mut given_up = Box::pin(store.verify());
        for _ in 0..polls {
            if let Some(verified) = (&mut given_up).now_or_never() {
                verified.unwrap();
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    *restless.hook.lock().unwrap() = None;
    assert_eq!(store.consumers().list().await.unwrap(), []);
    store.checkpoint().await.unwrap();
    create(&store, "bob").await;
    let purged = store.watch(before).next().await.unwrap().unwrap_err();
    assert!(matches!(purged.kind(), Compacted { .. }), "{purged}");
    close(store).await;
}

async fn what_is_verified_while_others_write_is_sound_or_damaged(env: &mut TestEnv) {
    let backend = env.open_backend().await;
    let restless = Restless::new(backend.clone());
    let options = never_flushing(env);
    let store = ghostwire_store_core::open(restless.clone(), options).await.unwrap();
    let rival = Rival::new(&store);
    rival.fill(FEWER).await;
    let alice = create(&store, "alice").await;
    create(&store, "bob").await;
    store.checkpoint().await.unwrap();
    let restored = row(&*alice);
    let renamed = row(&User { name: "mallory".parse().unwrap(), ..User::clone(&alice) });
    let stranger = row(&User { id: UserId::from_bytes([0xfe; 16]), ..template(99_999) });
    let absent =
        |row: &RowChange| RowChange { kind: ChangeKind::Deleted, body: None, ..row.clone() };
    for (what, damage, repair) in [
        ("nothing", None, None),
        ("a row with other content", Some(renamed), Some(restored.clone())),
        ("a lost row", Some(absent(&restored)), Some(restored.clone())),
        ("a row that nobody wrote", Some(stranger.clone()), Some(absent(&stranger))),
        ("nothing any more", None, None),
    ] {
        let is_sound = damage.is_none();
        let store_row = async |row: Option<RowChange>| {
            let head = backend.head().await.unwrap();
            let rows = row.into_iter().collect();
            backend.commit(&Commit { rows, ..Commit::on(&head) }).await.unwrap();
        };
        store_row(damage).await;
        restless.disturb(&rival);
        let verified = store.verify().await;
        restless.calm();
        match verified {
            Ok(()) => assert!(is_sound, "not found: {what}"),
            Err(error) => {
                assert!(!is_sound, "found, and not there: {error}");
                assert_eq!(*error.kind(), Corrupt, "{error}");
            }
        }
        store_row(repair).await;
    }
}
