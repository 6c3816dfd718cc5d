//! The admin socket from both of its ends: what a client gets, and what one that misbehaves does not.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

mod changes;
mod world;

use std::time::Duration;

use futures_util::StreamExt;
use ghostwire_store_admin::protocol::{
    HEADER, Issue, Kind, MAGIC, Method, MigrateRequest, Request,
};
use ghostwire_store_admin::select::{Condition, Selection, id_of, position};
use ghostwire_store_admin::{Client, Excerpt, Hooks, RemoteBackend};
use ghostwire_store_core::backend::{Backend, KeyRange, Scan, ScanPage};
use ghostwire_store_core::block::Serial;
use ghostwire_store_core::command::{EntityRecord, Restore, Transaction, UserCommand};
use ghostwire_store_core::domain::{ActorName, NewPreAuthKey, NewUser, Timestamp, UserId};
use ghostwire_store_core::layer::Layer;
use ghostwire_store_core::options::StoreOptions;
use ghostwire_store_core::schema::Table;
use ghostwire_store_core::state::Reply;
use ghostwire_store_core::{Error, ErrorKind, Result, store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use world::World;

/// Selects users.
async fn taken(
    excerpt: &mut Excerpt,
    selection: &Selection,
    page: (Option<Vec<u8>>, u32),
) -> (Vec<EntityRecord>, bool) {
    excerpt.take(Table::Users, selection, page).await.unwrap()
}

#[tokio::test]
async fn some_entities_come_alone_with_what_is_shown_beside_them() {
    let world = World::new().await;
    world.fill(500).await;
    let user = world.store().view().users().iter().next().unwrap().clone();
    let key = NewPreAuthKey { user: Some(user.id), ..NewPreAuthKey::default() };
    world.store().preauth_keys().create(key).await.unwrap();
    let scans = || world.backend.info().counters.scans;
    let before = scans();
    let mut excerpt = Excerpt::new(world.client().await, false).await.unwrap();
    let name = Condition::UserName("user-7".parse().unwrap());
    let one = Selection::Where(vec![name], Timestamp::EPOCH);
    let (records, more) = taken(&mut excerpt, &one, (None, 10)).await;
    assert!(matches!(&records[..], [EntityRecord::User(user)] if user.name.as_str() == "user-7"));
    assert!(!more);
    // Page by page everything comes, once and in order.
    let all = Selection::Where(Vec::new(), Timestamp::EPOCH);
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let (records, more) = taken(&mut excerpt, &all, (after, 128)).await;
        ids.extend(records.iter().map(id_of));
        after = records.last().map(position);
        if !more {
            break;
        }
    }
    let view = world.store().view();
    assert!(
        ids.iter().eq(view
            .images_of(Table::Users)
            .map(|user| id_of(&user))
            .collect::<Vec<_>>()
            .iter())
    );
    // By a part of its id, and what names it.
    let part = Selection::Called(user.id.to_string()[20..].to_owned());
    assert_eq!(taken(&mut excerpt, &part, (None, 10)).await.0, [EntityRecord::User(user.clone())]);
    let mut keys = Excerpt::new(world.client().await, false).await.unwrap();
    let of_user = Selection::Where(vec![Condition::User(user.id)], Timestamp::EPOCH);
    keys.take(Table::PreAuthKeys, &of_user, (None, 10)).await.unwrap();
    assert_eq!(keys.meant().len(), 1);
    let options = StoreOptions { read_only: true, ..StoreOptions::default() };
    let copy = store::open(std::sync::Arc::new(keys), options).await.unwrap();
    assert_eq!(copy.view().users().get(user.id), Some(&user), "its owner came with it");
    assert_eq!(copy.view().users().iter().count(), 1);
    assert_eq!(scans(), before, "nothing was read from where it is stored");
}

fn cli() -> ActorName {
    "cli:anna".parse().unwrap()
}

fn creation(name: &str) -> Transaction {
    let id = UserId::from_bytes(*format!("{name:=<16}").as_bytes().first_chunk().unwrap());
    let user = NewUser::local(name.parse().unwrap());
    Transaction::new().then(UserCommand::Create { id, user }).unwrap()
}

#[tokio::test]
async fn a_store_is_read_through_the_socket_as_from_its_files() {
    let world = World::new().await;
    for number in 0..3_000 {
        world.create(&format!("user-{number}")).await;
    }
    let client = world.client().await;
    let backend = std::sync::Arc::new(RemoteBackend::new(client.clone()).await.unwrap());
    assert_eq!(backend.head().await.unwrap(), world.backend.head().await.unwrap());
    assert_eq!(backend.info().name, "memory");
    let options = StoreOptions { read_only: true, ..StoreOptions::default() };
    let copy = store::open(backend, options).await.unwrap();
    let (there, here) = (world.store().view(), copy.view());
    assert_eq!(there.images().collect::<Vec<_>>(), here.images().collect::<Vec<_>>());
    assert_eq!(there.log_position(), here.log_position());
    let digests = world.store().digests().await.unwrap();
    assert_eq!(copy.digests().await.unwrap(), digests);
    assert_eq!(client.digests().await.unwrap(), digests);
    let refused = copy.users().create(NewUser::local("eve".parse().unwrap())).await.unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::ReadOnly);
}

#[tokio::test]
async fn edits_are_the_stores_own_and_the_trail_says_who_made_them() {
    let world = World::new().await;
    let client = world.client().await;
    let (serial, replies) = client.transact(cli(), creation("anna")).await.unwrap();
    assert_eq!(serial, world.store().view().serial());
    assert!(matches!(&replies[..], [Reply::User(user)] if user.name.as_str() == "anna"));
    let again = client.transact(cli(), creation("anna")).await.unwrap_err();
    let direct = world.store().transact(creation("anna")).await.unwrap_err();
    assert_eq!(again.to_string(), direct.to_string(), "errors say the same at both ends");
    assert_eq!(again.kind(), direct.kind());
    let trail = world.trail().await;
    let entry = &trail[0];
    assert_eq!(entry.actor.as_str(), "cli:anna");
    let user = rustix::process::geteuid().as_raw();
    let said = entry.user_agent.as_ref().unwrap().as_str();
    assert_eq!(said, format!("admin socket, user {user}"), "what the system says is said, too");
}

#[tokio::test]
async fn secrets_are_made_where_the_hash_key_is() {
    let world = World::new().await;
    world.create("anna").await;
    let user = world.store().view().users().iter().next().unwrap().id;
    let key = NewPreAuthKey { user: Some(user), ..NewPreAuthKey::default() };
    let issue = Issue::PreauthKey(key);
    let (record, secret) = world.client().await.issue(cli(), issue).await.unwrap();
    assert!(secret.expose().len() > 20);
    assert!(world.store().view().images().any(|image| image == record));
}

#[tokio::test]
async fn commits_are_watched_as_they_come_and_until_the_store_ends() {
    let world = World::new().await;
    world.create("before").await;
    let client = world.client().await;
    let mut all = client.watch(Some(Serial::ZERO)).await.unwrap();
    assert_eq!(all.next().await.unwrap().unwrap().serial, Serial::new(1));
    world.create("after").await;
    let commit = all.next().await.unwrap().unwrap();
    assert_eq!(commit.serial, Serial::new(2));
    assert_eq!(commit.changes[0].entity, "user");
    let view = world.store().view();
    let after = view.users().iter().find(|user| user.name.as_str() == "after").unwrap();
    assert!(commit.changes.iter().any(|change| change.id == after.id.to_string()));
    // The connection that was asked is free for other requests.
    client.status().await.unwrap();
    let beyond = client.watch(Some(Serial::new(99))).await.unwrap().next().await.unwrap();
    assert_eq!(*beyond.unwrap_err().kind(), ErrorKind::Conflict);
    world.store().close().await.unwrap();
    assert!(all.next().await.is_none(), "a watch ends as the store does, without an error");
}

#[tokio::test]
async fn what_the_store_does_is_done_through_the_socket() {
    let world = World::new().await;
    world.create("anna").await;
    let client = world.client().await;
    assert_eq!(client.checkpoint().await.unwrap(), Serial::new(1));
    client.verify(|_| ()).await.unwrap();
    client.probe().await.unwrap();
    let status = client.status().await.unwrap();
    assert_eq!(status["store"]["serial"], 1);
    assert_eq!(status["pid"], std::process::id());
    assert_eq!(status["socket"]["clients"], 1);
    assert_eq!(*client.attest().await.unwrap_err().kind(), ErrorKind::Unsupported);
    let absent = client.remove_consumer("backup".parse().unwrap()).await.unwrap_err();
    let here = world.store().consumers().remove(&"backup".parse().unwrap()).await;
    assert_eq!(absent.kind(), here.unwrap_err().kind());
}

#[tokio::test]
async fn a_commit_of_any_size_is_watched_whole() {
    // More than one message holds, and what one of the first release could send is sent as it did.
    const MANY: u32 = 250_000;
    let world = World::new().await;
    let client = world.client().await;
    let mut watching = client.watch(Some(Serial::ZERO)).await.unwrap();
    let users = (0..MANY).map(|number| {
        let mut id = [7; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let user = NewUser::local(format!("user-{number}").parse().unwrap());
        EntityRecord::from(std::sync::Arc::new(
            user.created(UserId::from_bytes(id), Timestamp::EPOCH),
        ))
    });
    let restore = Restore { images: users.collect(), skip_invalid: false };
    world.store().restore(restore).await.unwrap();
    let commit = watching.next().await.unwrap().unwrap();
    assert_eq!((commit.serial, commit.changes.len()), (Serial::new(1), MANY as usize));
    assert!(!commit.more);
    world.create("later").await;
    assert_eq!(watching.next().await.unwrap().unwrap().serial, Serial::new(2));
}

/// Counts what a page has at most, and verifies only once it may.
#[derive(Debug)]
struct Watched {
    inner: std::sync::Arc<dyn Backend>,
    longest: std::sync::atomic::AtomicUsize,
    begun: tokio::sync::Semaphore,
    may_verify: tokio::sync::Semaphore,
}

impl Watched {
    fn new(inner: std::sync::Arc<dyn Backend>) -> std::sync::Arc<Self> {
        let semaphore = || tokio::sync::Semaphore::new(0);
        let (begun, may_verify) = (semaphore(), semaphore());
        std::sync::Arc::new(Self { inner, longest: Default::default(), begun, may_verify })
    }
}

#[async_trait::async_trait]
impl Layer for Watched {
    fn inner(&self) -> &dyn Backend {
        self.inner.as_ref()
    }

    async fn scan(&self, scan: Scan) -> Result<ScanPage> {
        let page = self.inner.scan(scan).await?;
        let bytes = page.rows.iter().map(|row| row.body.len()).sum();
        self.longest.fetch_max(bytes, std::sync::atomic::Ordering::Relaxed);
        Ok(page)
    }

    async fn verify(&self) -> Result<()> {
        self.begun.add_permits(1);
        self.may_verify.acquire().await.unwrap().forget();
        self.inner.verify().await
    }
}

#[tokio::test]
async fn a_page_is_as_long_as_one_row_may_be_whatever_the_rows_before_were_like() {
    let memory = World::memory();
    let watched = Watched::new(memory);
    let world = World::on(watched.clone()).await;
    world.store().consumers().register("backup".parse().unwrap(), 1 << 30).await.unwrap();
    // Commits of a line each, and then some of a document of 3 MiB.
    for number in 0..300 {
        world.create(&format!("user-{number}")).await;
    }
    let document = format!("// {}\n{{}}", "x".repeat(3 << 20));
    let mut expected = None;
    for _ in 0..6 {
        let policies = world.store().policies();
        let put = policies.swap(expected, document.parse().unwrap()).await.unwrap();
        expected = Some(put.version);
    }
    world.store().checkpoint().await.unwrap();
    let backend = RemoteBackend::new(world.client().await).await.unwrap();
    for table in [Table::Feed, Table::Policies, Table::Users] {
        watched.longest.store(0, std::sync::atomic::Ordering::Relaxed);
        let all = Scan { range: KeyRange::all(table), reverse: false, limit: 4096 };
        assert_eq!(
            backend.scan(all.clone()).await.unwrap().rows,
            watched.inner.scan(all).await.unwrap().rows
        );
        let longest = watched.longest.load(std::sync::atomic::Ordering::Relaxed);
        assert!(longest <= 8 << 20, "{}: a page of {longest} bytes", table.name());
    }
}

#[tokio::test]
async fn one_verification_at_a_time_and_none_for_nobody() {
    let watched = Watched::new(World::memory());
    let world = World::on(watched.clone()).await;
    let asked = raw(&world, br#"{"method":"verify"}"#).await;
    watched.begun.acquire().await.unwrap().forget();
    let refused = world.client().await.verify(|_| ()).await.unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::Busy, "{refused}");
    assert!(refused.to_string().contains("wait until"), "{refused}");
    // Whoever asked goes: that is noticed when he is next told that it is at work.
    drop(asked);
    let third = world.client().await;
    let third = tokio::spawn(async move {
        loop {
            match third.verify(|_| ()).await {
                Err(error) if *error.kind() == ErrorKind::Busy => tokio::task::yield_now().await,
                verified => return verified,
            }
        }
    });
    watched.begun.acquire().await.unwrap().forget();
    watched.may_verify.add_permits(1);
    third.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_changed_beside_the_state_stands_in_the_trail() {
    let world = World::new().await;
    world.store().consumers().register("backup".parse().unwrap(), 1 << 20).await.unwrap();
    let client = world.client().await.acting_as(cli());
    client.remove_consumer("backup".parse().unwrap()).await.unwrap();
    client.accept_clock().await.unwrap();
    assert_eq!(client.repair_clock().await.unwrap().entities, 0);
    let trail = world.trail().await;
    let lines: Vec<_> = trail
        .iter()
        .map(|line| (line.actor.as_str(), line.action.as_str(), line.subject.as_str()))
        .collect();
    assert_eq!(lines[0], ("cli:anna", "consumer.remove", "backup"));
    assert!(lines[1].0 == "cli:anna" && lines[1].1.starts_with("clock."), "{lines:?}");
    let said = trail[0].user_agent.as_ref().unwrap().as_str();
    assert!(said.starts_with("admin socket, user "), "{said}");
}

#[tokio::test]
async fn a_selection_that_takes_too_long_is_refused_and_one_of_later_is_known_as_that() {
    let world = World::new().await;
    let mut excerpt = Excerpt::new(world.client().await, false).await.unwrap();
    let conditions = |count| vec![Condition::Online(true); count];
    let of = |count| Selection::Where(conditions(count), Timestamp::EPOCH);
    excerpt.take(Table::Nodes, &of(32), (None, 1)).await.unwrap();
    let refused = excerpt.take(Table::Nodes, &of(33), (None, 1)).await.unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::InvalidArgument, "{refused}");
    assert!(refused.to_string().contains("at_most=32"), "{refused}");
}

#[tokio::test]
async fn with_the_log_an_excerpt_is_as_new_as_what_it_reads() {
    let world = World::new().await;
    let with_log = Excerpt::new(world.client().await, true).await.unwrap();
    let without = Excerpt::new(world.client().await, false).await.unwrap();
    world.fill(3).await;
    assert_eq!(with_log.head().await.unwrap(), world.backend.head().await.unwrap());
    assert_eq!(without.head().await.unwrap().serial, Serial::ZERO);
}

#[derive(Debug)]
struct Program;

#[async_trait::async_trait]
impl Hooks for Program {
    async fn metrics(&self) -> Result<String> {
        Ok("up 1\n".to_owned())
    }

    async fn set_log_level(&self, level: &str, period: Option<Duration>) -> Result<()> {
        match (level, period) {
            ("debug", Some(_)) => Ok(()),
            _ => Err(Error::invalid("no such level").with("level", level)),
        }
    }
}

#[tokio::test]
async fn the_program_around_the_store_answers_what_it_knows() {
    let world = World::with_hooks(std::sync::Arc::new(Program)).await;
    let client = world.client().await;
    assert_eq!(client.metrics().await.unwrap(), "up 1\n");
    client.set_log_level("debug", Some(Duration::from_secs(60))).await.unwrap();
    let refused = client.set_log_level("loud", None).await.unwrap_err();
    assert_eq!(refused.to_string(), "no such level [level=loud]");
    for unknown in [client.health().await.unwrap_err(), client.reload().await.unwrap_err()] {
        assert_eq!(*unknown.kind(), ErrorKind::Unsupported);
    }
}

#[derive(Debug, Default)]
struct Follows(std::sync::Mutex<Vec<(&'static str, String)>>);

#[async_trait::async_trait]
impl Hooks for Follows {
    fn span(&self, method: &'static str, traceparent: &str) -> tracing::Span {
        self.0.lock().unwrap().push((method, traceparent.to_owned()));
        tracing::Span::none()
    }
}

#[tokio::test]
async fn the_program_around_the_store_makes_the_span_of_a_request_in_its_clients_trace() {
    let program = std::sync::Arc::new(Follows::default());
    let world = World::with_hooks(program.clone()).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let client = world.client().await;
    client.status().await.unwrap();
    client.in_trace(trace).status().await.unwrap();
    let asked = program.0.lock().unwrap().clone();
    assert_eq!(asked, [("status", String::new()), ("status", trace.to_owned())]);
}

/// Says hello, and sends a request as it is.
async fn raw(world: &World, payload: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(&world.socket).await.unwrap();
    stream.write_all(&MAGIC).await.unwrap();
    stream.write_all(&frame(Kind::Hello, br#"{"versions":[1,1],"program":"test"}"#)).await.unwrap();
    assert_eq!(next(&mut stream).await.unwrap().0, Kind::Welcome as u8);
    stream.write_all(&frame(Kind::Request, payload)).await.unwrap();
    stream
}

fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[..], &[kind as u8], payload].concat()
}

async fn next(stream: &mut UnixStream) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).await.ok()?;
    let [a, b, c, d, kind] = header;
    let mut payload = vec![0; u32::from_be_bytes([a, b, c, d]) as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some((kind, payload))
}

/// Why the server gives this client up.
async fn given_up(stream: &mut UnixStream) -> String {
    let (kind, payload) = next(stream).await.unwrap();
    assert_eq!(kind, Kind::Failed as u8);
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "and closes the connection");
    String::from_utf8(payload).unwrap()
}

#[tokio::test]
async fn what_is_not_the_protocol_is_refused_and_harms_nobody() {
    let world = World::new().await;
    let client = world.client().await;
    let hello = |versions: &str| {
        let payload = format!(r#"{{"versions":{versions},"program":"test"}}"#);
        [&MAGIC[..], &frame(Kind::Hello, payload.as_bytes())].concat()
    };
    let oversized = [&MAGIC[..], &[255, 255, 255, 255, Kind::Hello as u8]].concat();
    for (bytes, word) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "does not speak"),
        (oversized, "too long"),
        (hello("[7,9]"), "no version"),
        (hello("\"soon\""), "cannot be read"),
        ([&MAGIC[..], &frame(Kind::Request, b"{}")].concat(), "says first"),
        ([hello("[1,1]"), frame(Kind::Done, b"null")].concat(), "requests only"),
        ([&MAGIC[..], &[0, 0, 0, 1, 200]].concat(), "no known kind"),
    ] {
        let mut stream = UnixStream::connect(&world.socket).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut said = next(&mut stream).await.unwrap();
        if said.0 == Kind::Welcome as u8 {
            said = next(&mut stream).await.unwrap();
        }
        let text = String::from_utf8(said.1).unwrap();
        assert!(text.contains(word), "{word:?} is not in {text}");
        // Reset, if what it sent beyond was not read.
        assert!(stream.read(&mut [0]).await.map_or(true, |bytes| bytes == 0));
    }
    // A request that cannot be read is refused, and the next one served.
    let mut stream = raw(&world, br#"{"method":"teleport"}"#).await;
    let (kind, payload) = next(&mut stream).await.unwrap();
    assert_eq!(kind, Kind::Failed as u8);
    assert!(String::from_utf8(payload).unwrap().contains("unsupported"));
    stream.write_all(&frame(Kind::Request, br#"{"method":"head"}"#)).await.unwrap();
    assert_eq!(next(&mut stream).await.unwrap().0, Kind::Done as u8);
    // Truncated: it ends in the middle of a request.
    stream.write_all(&frame(Kind::Request, b"{}")[..6]).await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(given_up(&mut stream).await.contains("within a message"));
    for (method, says) in [
        (Method::Backup, "this release cannot"),
        (Method::Migrate(MigrateRequest::Status), "cannot move it"),
    ] {
        let request = Request { method, traceparent: None, actor: None }.encode().unwrap();
        let (kind, payload) = next(&mut raw(&world, &request).await).await.unwrap();
        assert_eq!(kind, Kind::Failed as u8);
        assert!(String::from_utf8(payload).unwrap().contains(says));
    }
    client.status().await.unwrap();
}

#[tokio::test]
async fn too_many_clients_are_told_so_and_make_room_when_they_go() {
    let world = World::with(|options| options.max_clients = 2).await;
    let (first, _second) = (world.client().await, world.client().await);
    for _ in 0..200 {
        let refused = Client::connect(&world.socket).await.unwrap_err();
        assert_eq!(*refused.kind(), ErrorKind::Busy, "{refused}");
        assert!(refused.to_string().contains("max_clients"), "{refused}");
    }
    drop(first);
    let client = world.until_clients(1).await;
    assert!(client.status().await.unwrap()["socket"]["refused"].as_u64().unwrap() >= 200);
}

#[tokio::test]
async fn a_client_that_says_nothing_is_given_up() {
    let world = World::with(|options| options.idle = Duration::from_millis(50)).await;
    let mut stream = raw(&world, br#"{"method":"head"}"#).await;
    assert_eq!(next(&mut stream).await.unwrap().0, Kind::Done as u8);
    assert!(given_up(&mut stream).await.contains("neither reads nor writes"));
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_nothing() {
    let world = World::with(|options| options.patience = Duration::from_millis(200)).await;
    world.fill(5_000).await;
    let table = Table::Users.number();
    let scan = format!(
        r#"{{"method":"scan","params":{{"table":{table},"from":"","reverse":false,"limit":100000}}}}"#
    );
    let mut stalled = raw(&world, scan.as_bytes()).await;
    // The store goes on meanwhile.
    world.create("meanwhile").await;
    let client = world.client().await;
    client.checkpoint().await.unwrap();
    client.verify(|_| ()).await.unwrap();
    world.until_clients(1).await;
    // What was written until then is there, and no end of it.
    let mut last = 0;
    while let Some((kind, _)) = next(&mut stalled).await {
        last = kind;
    }
    assert_eq!(last, Kind::Data as u8);
}

#[tokio::test]
async fn closing_waits_for_no_client() {
    let world = World::new().await;
    let client = world.client().await;
    let mut watching = client.watch(None).await.unwrap();
    let _silent = UnixStream::connect(&world.socket).await.unwrap();
    let _asking = raw(&world, br#"{"method":"watch","params":{"after":0}}"#).await;
    world.store().close().await.unwrap();
    assert!(!world.socket.exists(), "it is gone before the files are free");
    while let Some(Ok(_)) = watching.next().await {}
    let error = client.status().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    let absent = Client::connect(&world.socket).await.unwrap_err();
    assert_eq!(*absent.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_write_whose_answer_does_not_come_may_have_been_stored() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("dying.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    // It dies between request and answer.
    let dying = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; MAGIC.len()]).await.unwrap();
        next(&mut stream).await.unwrap();
        let welcome = br#"{"version":1,"program":"test","pid":1}"#;
        stream.write_all(&frame(Kind::Welcome, welcome)).await.unwrap();
        next(&mut stream).await.unwrap();
    });
    let client = Client::connect(&socket).await.unwrap();
    let error = client.transact(cli(), creation("anna")).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    dying.await.unwrap();
}

/// Says that it was not stored only if it was not. Closing meets the write wherever it is.
#[tokio::test]
async fn a_write_under_way_when_the_store_closes_is_never_denied() {
    for round in 0..200_u32 {
        let world = World::new().await;
        let client = world.client().await;
        let names = ["anna", "ben", "cleo", "dora", "emil"];
        let transaction = names.iter().fold(Transaction::new(), |all, name| {
            let id = UserId::from_bytes(*format!("{name:=<16}").as_bytes().first_chunk().unwrap());
            let user = NewUser::local(name.parse().unwrap());
            all.then(UserCommand::Create { id, user }).unwrap()
        });
        let closing = async {
            for _ in 0..round % 8 {
                tokio::task::yield_now().await;
            }
            // As soon as it is accepted, or stored.
            while round % 2 == 1 && world.store().view().serial() == Serial::ZERO {
                tokio::task::yield_now().await;
            }
            world.store().close().await.unwrap();
        };
        let (answer, ()) = tokio::join!(client.transact(cli(), transaction), closing);
        let is_stored = world.store().view().serial() == Serial::new(1);
        match answer {
            Ok((_, replies)) => assert!(is_stored && replies.len() == names.len()),
            Err(error) if *error.kind() == ErrorKind::OutcomeUnknown => {}
            Err(error) => {
                assert!(!is_stored, "round {round}: it is stored, and was denied: {error}")
            }
        }
    }
}

/// Answers like a server whose answers cannot be read, or not at all.
async fn answering(listener: &tokio::net::UnixListener, answer: Option<(Kind, &[u8])>) {
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.read_exact(&mut [0; MAGIC.len()]).await.unwrap();
    next(&mut stream).await.unwrap();
    let welcome = br#"{"version":1,"program":"test","pid":1}"#;
    stream.write_all(&frame(Kind::Welcome, welcome)).await.unwrap();
    if let Some((kind, payload)) = answer {
        next(&mut stream).await.unwrap();
        stream.write_all(&frame(kind, payload)).await.unwrap();
    }
}

#[tokio::test]
async fn a_write_whose_answer_cannot_be_read_may_have_been_stored() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("odd.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    for answer in
        [(Kind::Item, &b"{}"[..]), (Kind::Done, b"\"x\""), (Kind::Data, b""), (Kind::Failed, b"")]
    {
        let connecting = async { Client::connect(&socket).await.unwrap() };
        let writing = async {
            let client = connecting.await;
            client.transact(cli(), creation("anna")).await.unwrap_err()
        };
        let (error, ()) = tokio::join!(writing, answering(&listener, Some(answer)));
        assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown, "{answer:?}: {error}");
    }
}

#[tokio::test]
async fn a_connection_that_ended_is_made_anew_and_what_was_not_sent_is_not_in_doubt() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("short.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let (client, ()) = tokio::join!(Client::connect(&socket), answering(&listener, None));
    let client = client.unwrap();
    // The first connection is closed by now; the next one answers.
    let done = (Kind::Done, &b"7"[..]);
    let (written, ()) =
        tokio::join!(client.transact(cli(), creation("anna")), answering(&listener, Some(done)));
    assert_eq!(written.unwrap().0, Serial::new(7));
    drop(listener);
    let error = client.transact(cli(), creation("ben")).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("was not sent"), "{error}");
}

#[tokio::test]
async fn a_client_that_was_idle_for_long_goes_on() {
    let world = World::with(|options| options.idle = Duration::from_millis(50)).await;
    let client = world.client().await;
    // It is given up: the next one that asks finds it gone.
    drop(world.until_clients(0).await);
    client.transact(cli(), creation("anna")).await.unwrap();
}

#[tokio::test]
async fn a_store_that_is_dropped_is_not_kept_open_by_its_clients() {
    let mut world = World::new().await;
    let client = world.client().await;
    let mut watching = client.watch(None).await.unwrap();
    world.drop_store();
    while let Some(Ok(_)) = watching.next().await {}
    client.status().await.unwrap_err();
    // The store is gone before it has ended.
    while world.socket.exists() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_request_that_is_given_up_leaves_the_connection_in_order() {
    let world = World::new().await;
    world.fill(2_000).await;
    let client = world.client().await;
    let backend = RemoteBackend::new(client.clone()).await.unwrap();
    let all = || Scan { range: KeyRange::all(Table::Users), reverse: false, limit: 10_000 };
    for _ in 0..20 {
        let asked = backend.scan(all());
        tokio::select! {
            biased;
            () = tokio::task::yield_now() => {}
            _ = asked => {}
        }
    }
    assert_eq!(backend.scan(all()).await.unwrap().rows.len(), 2_000);
    assert!(client.transact(cli(), creation("anna")).await.is_ok());
}
