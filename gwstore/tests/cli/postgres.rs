//! `gwstore` on stores in PostgreSQL.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use ghostwire_postgres_server::{Database, Direction, Options, Proxy, Server};
use rustix::process::Signal;

use crate::serve::{HTTP, Server as Served};
use crate::support::{Place, Ran, command_in};

/// Each control plane has an admin socket in its own directory.
const SOCKET: &str = "--set admin.path=control.sock";

/// An instance counts as lost after 30 seconds; whoever waits for longer than this fails.
const PATIENCE: Duration = Duration::from_secs(90);

/// A directory, and how the program is told of a database.
struct On {
    place: Place,
    options: Vec<String>,
}

impl On {
    fn new(server: &Server, database: &Database) -> Self {
        Self::by(server, database, (server.host(), server.port()))
    }

    /// By another way than the server's own.
    fn by(server: &Server, database: &Database, (host, port): (&str, u16)) -> Self {
        let place = Place::new();
        let password = place.write("password", server.password());
        std::fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        let set = [
            format!("postgres.host={host}"),
            format!("postgres.port={port}"),
            format!("postgres.database={}", database.name()),
            format!("postgres.user={}", server.user()),
            "postgres.password_file=password".to_owned(),
            "secret_key_file=hash.key".to_owned(),
        ];
        let mut options = vec!["--backend".to_owned(), "postgres".to_owned()];
        options.extend(set.into_iter().flat_map(|set| ["--set".to_owned(), set]));
        Self { place, options }
    }

    fn command(&self, arguments: &str) -> Command {
        let options = self.options.iter().map(String::as_str);
        let all: Vec<&str> = options.chain(arguments.split_whitespace()).collect();
        command_in(&self.place.file(""), &all)
    }

    /// Serves it as the instance of this name, which has something to do every second.
    fn serve(&self, instance: &str) -> Served<'_> {
        let options = self.options.join(" ");
        let jobs = format!("--set jobs.instance={instance} --set jobs.reap_seconds=1");
        let served = Served::of(&self.place, &format!("{options} {SOCKET} {HTTP} {jobs}"));
        served.hear("READY=1");
        served
    }

    /// Asks the control plane that is served here.
    fn ask(&self, arguments: &str) -> Ran {
        self.run(&format!("{SOCKET} {arguments}")).warns(&["has the store open; asking it by"])
    }

    fn start(&self, arguments: &str) -> Child {
        self.command(arguments).spawn().unwrap()
    }

    fn run(&self, arguments: &str) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }
}

/// Two machines with one store, which is made.
fn two_machines(server: &Server, database: &Database) -> [On; 2] {
    let both = [On::new(server, database), On::new(server, database)];
    both[0].run("init").ok();
    let key = both[1].place.write("hash.key", both[0].place.read("hash.key"));
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    both
}

#[track_caller]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "in vain waited until {what}");
    }
}

fn has_reaped(served: &Served<'_>) -> bool {
    served.status()["jobs"][0]["last_success"].is_string()
}

/// Starts both, and gives them once the first does the jobs and the second leaves them to it.
fn first_and_second(both: &[On; 2]) -> [Served<'_>; 2] {
    let first = both[0].serve("control-1");
    until("the first does a job", || has_reaped(&first));
    let second = both[1].serve("control-2");
    until("the second leaves one to it", || {
        second.status()["jobs"][0]["skipped"].as_u64() > Some(0)
    });
    until("the second knows who does them", || {
        second.log().contains("another instance, which began before, does the jobs")
    });
    assert!(!has_reaped(&second), "{}", second.log());
    [first, second]
}

fn ended(child: Child) -> Ran {
    Ran::of(child.wait_with_output().unwrap())
}

async fn database() -> (&'static Server, Database) {
    let server = Server::shared().await.unwrap();
    (server, server.database().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_made_filled_listed_and_agrees_with_one_in_a_file() {
    let (server, database) = database().await;
    let on = On::new(server, &database);
    let name = database.name();
    on.run("list nodes").refused(&["no store in this schema", "gwstore init"]);
    on.run("init").ok().says(&["Made a postgres store", name, "hash.key"]);
    on.run("doctor").ok();
    on.run("init").refused(&["a store in this schema already", name]).hides(&[server.password()]);
    assert!(on.run("list nodes --json").ok().items().is_empty());
    on.place.filled("zqlite");
    on.run("import portable sample.jsonl").ok();
    let nodes = on.run("list nodes --json").ok().items();
    assert!(!nodes.is_empty());
    assert_eq!(nodes, on.place.on("zqlite", "list nodes --json").ok().items());
    // Made in the same way, down to the audit trail.
    let other = "--set postgres.schema=other";
    on.run(&format!("{other} import portable sample.jsonl --create")).ok();
    assert_eq!(on.run(&format!("{other} digest --json")).ok().json(), on.place.digest("zqlite"));
    on.run("status").ok().says(&["postgres", name, "server's clock"]).hides(&[server.password()]);
}

/// On two machines: each makes a key of its own, and one of them is not the store's.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_make_a_store_at_once_one_does_and_the_other_is_told() {
    let (server, database) = database().await;
    let both = [On::new(server, &database), On::new(server, &database)];
    let running = both.each_ref().map(|on| on.start("init"));
    let [first, second] = running.map(ended);
    let (made, refused) = match (first.code, second.code) {
        (0, 1..) => (&both[0], second),
        (1.., 0) => (&both[1], first),
        _ => panic!("{first:#?} {second:#?}"),
    };
    refused.refused(&[database.name()]).hides(&[server.password()]);
    made.run("doctor").ok();
    assert!(made.run("list nodes --json").ok().items().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_of_something_else_is_left_alone() {
    let (server, database) = database().await;
    let on = On::new(server, &database);
    let others = "CREATE SCHEMA ghostwire; CREATE TABLE ghostwire.orders (id int)";
    server.sql(database.name(), others).await.unwrap();
    on.run("init").refused(&["something else", "schema: ghostwire", database.name()]);
    assert!(!on.place.file("hash.key").exists(), "nothing is left of it");
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'ghostwire'";
    assert_eq!(server.sql(database.name(), tables).await.unwrap(), [[Some("1".to_owned())]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_served_and_tells_of_its_connections() {
    let (server, database) = database().await;
    let on = On::new(server, &database);
    on.run("init").ok();
    let options = on.options.join(" ");
    let served = Served::of(&on.place, &format!("{options} {HTTP}"));
    served.hear("READY=1");
    assert_eq!(served.get("/readyz").0, 200);
    let (status, metrics) = served.get("/metrics");
    assert_eq!(status, 200);
    for name in [
        "db_client_connection_count",
        "db_client_connection_max",
        "db_client_connection_idle_min",
        "db_client_connection_pending_requests",
        "db_client_connection_create_time_seconds",
        "db_client_connection_use_time_seconds",
    ] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
    assert!(!metrics.contains(server.password()) && !served.log().contains(server.password()));
    // Another control plane writes, and this one serves on.
    on.run("user create alice").ok();
    assert_eq!(served.get("/readyz").0, 200);
    served.signal(Signal::TERM);
    let (code, log) = served.ended();
    assert_eq!(code, 0, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_control_planes_each_sees_what_the_other_writes_and_one_does_the_jobs() {
    let (server, database) = database().await;
    let both = two_machines(server, &database);
    let [first, second] = first_and_second(&both);
    for (writer, reader, user) in [(0, 1, "alice"), (1, 0, "bob")] {
        both[writer].ask(&format!("user create {user}")).ok();
        until("the other one has the user", || {
            both[reader].ask(&format!("user show {user}")).code == 0
        });
    }
    // One that ends in order is not waited for.
    first.end();
    until("the second does the jobs", || has_reaped(&second));
    second.end();
    both[0].run("doctor").ok();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "waits half a minute, until an instance counts as lost; cargo test -p gwstore --test cli -- --ignored \
            who_is_killed_leaves_the_jobs"]
async fn who_is_killed_leaves_the_jobs_to_the_other_one() {
    let (server, database) = database().await;
    let both = two_machines(server, &database);
    let [first, second] = first_and_second(&both);
    both[0].ask("user create alice").ok();
    first.signal(Signal::KILL);
    first.ended();
    until("the second does the jobs", || has_reaped(&second));
    until("the first is taken out", || {
        let listed = both[1].ask("list instances").ok().out;
        listed.contains("control-2") && !listed.contains("control-1")
    });
    both[1].ask("user show alice").ok();
    let log = second.end();
    assert!(log.contains("this instance does the jobs"), "{log}");
}

/// What was committed is there, nothing of it in part, and the import can be repeated.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_whose_server_goes_away_is_whole_or_absent() {
    let server = Options::new().own().start().await.unwrap();
    let database = server.database().await.unwrap();
    let proxy = Proxy::to(server.host(), server.port()).unwrap();
    let address = proxy.address();
    let on = On::by(&server, &database, (&address.ip().to_string(), address.port()));
    on.place.filled("zqlite");
    let sent = || proxy.counts().received(Direction::ToServer);
    // How much goes over the line, as a whole.
    on.run("--set postgres.schema=whole import portable sample.jsonl --create").ok();
    let whole = sent();
    for part in 1..4 {
        let schema = format!("--set postgres.schema=part{part}");
        on.run(&format!("{schema} init")).ok();
        let wanted = sent() + whole * part / 5;
        let importing = on.start(&format!("{schema} import portable sample.jsonl"));
        proxy.until(|counts| counts.received(Direction::ToServer) >= wanted).await.unwrap();
        server.kill().await.unwrap();
        let imported = ended(importing);
        server.start_again().await.unwrap();
        let state = |ran: Ran| ran.ok().json()["state"].clone();
        if imported.code == 0 {
            let all = state(on.place.on("zqlite", "digest --json"));
            assert_eq!(state(on.run(&format!("{schema} digest --json"))), all);
            continue;
        }
        let names = ["sample.jsonl", "the database", &address.to_string(), database.name()];
        imported.refused(&names).hides(&[server.password()]);
        // Of one commit, all or nothing.
        let nodes = on.run(&format!("{schema} list nodes --json")).ok().items();
        let all = on.place.on("zqlite", "list nodes --json").ok().items();
        assert!(nodes.is_empty() || nodes == all, "{nodes:#?}");
    }
}

/// Started on one machine, the network outgrows it; and goes back while no other control plane writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_served_network_moves_from_a_file_to_a_server_and_back() {
    let (server, database) = database().await;
    let [on, other] = [On::new(server, &database), On::new(server, &database)];
    let place = &on.place;
    place.init("libsql");
    std::fs::rename(place.file("libsql.db.key"), place.file("hash.key")).unwrap();
    let server_store = format!(
        "backend = 'postgres'\nhost = '{}'\nport = {}\ndatabase = '{}'\nuser = '{}'\n\
         password_file = 'password'\nsecret_key_file = 'hash.key'\n",
        server.host(),
        server.port(),
        database.name(),
        server.user()
    );
    let flags = |store: &str, target: &str| {
        place.write(
            "feature-flags.toml",
            format!(
                "[development]\nstore = '{store}'\n[development.admin]\npath = 'control.sock'\n\
                 [development.stores.main]\nbackend = 'libsql'\npath = 'libsql.db'\n\
                 secret_key_file = 'hash.key'\n[development.stores.server]\n{server_store}{target}"
            ),
        );
    };
    flags("main", "[development.migration]\ntarget = 'server'\nmax_stall_ms = 60000\n");
    place.run("user create anna").ok();
    let serve = || {
        let served = Served::of(place, "--set jobs.instance=control-1 --set jobs.reap_seconds=1");
        served.hear("READY=1");
        served
    };
    let served = serve();
    place.run("migrate plan").ok().says(&["main (libsql)", "server (postgres)", "It can begin"]);
    place.run("migrate start --wait").ok().says(&["mirror"]);
    place.run("migrate plan").refused(&["a migration of this store is under way"]);
    place.run("user create berta").ok();
    place.run("migrate advance").ok().says(&["target-reads"]);
    place.run("user create carla").ok();
    // Killed, the records say which one is served.
    served.signal(Signal::KILL);
    drop(served);
    let served = serve();
    place.run("migrate status").ok().says(&["target-reads"]);
    // Another control plane joins, on the database alone.
    let key = other.place.write("hash.key", place.read("hash.key"));
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let joined = other.serve("control-2");
    other.ask("user create doris").ok();
    until("the first one hears of both", || {
        let instances = place.run("list instances").out;
        place.run("list users").out.contains("doris") && instances.contains("control-2")
    });
    place.run("migrate back").refused(&["other control planes", "instances: control-2"]);
    joined.end();
    place.run("migrate back").ok().says(&["mirror"]);
    place.run("user create emil").ok();
    let users = place.run("list users --json").ok().items();
    place.run("migrate advance").ok();
    assert_eq!(place.run("list users --json").ok().items(), users);
    place.run("verify").ok();
    place.run("migrate finish --yes").ok().says(&["target alone", "store = \"server\""]);
    served.end();
    flags("server", "");
    place.run("list users").ok().says(&["anna", "berta", "carla", "doris", "emil"]);
    place.run("--store main list users").refused(&["retired"]);
    place.run("user create frida").ok();
    place.run("verify").ok();
    // Nobody serves it, and it moves to another file.
    let file = "[development.stores.file]\nbackend = 'libsql'\npath = 'file.db'\nsecret_key_file = 'hash.key'\n\
                [development.migration]\ntarget = 'file'\nmax_stall_ms = 60000\n";
    flags("server", file);
    place.run("migrate plan").ok().says(&["server (postgres)", "file (libsql)", "It can begin"]);
    place.run("migrate start").ok().says(&["mirror"]);
    place.run("user create gerda").ok();
    place.run("migrate advance").ok().says(&["target-reads"]);
    place.run("migrate finish --yes --shred-source").refused(&["drop the schema"]);
    place.run("migrate finish --yes").ok().says(&["The schema of the source can be dropped"]);
    flags(
        "server",
        "[development.stores.file]\nbackend = 'libsql'\npath = 'file.db'\nsecret_key_file = 'hash.key'\n",
    );
    place.run("--store file list users").ok().says(&["anna", "frida", "gerda"]);
    place.run("--store file verify").ok();
    place.run("--store server list users").refused(&["retired"]);
}

/// The witness that docs/migration.md names.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_on_a_server_grants_an_epoch_to_one_side() {
    let (server, database) = database().await;
    let ask = |port: u16, [network, epoch, side]: [&str; 3]| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/witness/postgres");
        let mut witness = Command::new(script);
        witness.args([network, epoch, side]).env("PGPASSWORD", server.password());
        let port = port.to_string();
        let named = [("PGHOST", server.host()), ("PGPORT", &port), ("PGUSER", server.user())];
        let output = witness.envs(named).env("PGDATABASE", database.name()).output().unwrap();
        assert!(output.stdout.is_empty(), "{output:?}");
        output.status.code()
    };
    let asked = |question| ask(server.port(), question);
    assert_eq!(asked(["n", "7", "a"]), Some(0));
    assert_eq!(asked(["n", "7", "b"]), Some(1));
    // Asked again, it says the same.
    assert_eq!(asked(["n", "7", "a"]), Some(0));
    assert_eq!(asked(["n", "8", "b"]), Some(0));
    assert_eq!(asked(["other's", "7", "b"]), Some(0));
    assert_eq!(asked(["n", "not a number", "b"]), Some(2));
    // Nobody is there.
    assert_eq!(ask(1, ["n", "9", "a"]), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_not_kept_in_step_with_a_file() {
    let (server, database) = database().await;
    let on = On::new(server, &database);
    on.place.write(
        "feature-flags.toml",
        "[development]\nstore = 'main'\n[development.stores.main]\nbackend = 'libsql'\npath = 'libsql.db'\n\
         [development.stores.server]\nbackend = 'postgres'\nsecret_key_file = 'hash.key'\n\
         [development.migration]\ntarget = 'server'\nsynchronous = true\n",
    );
    on.place.run("list users").refused(&["migration.synchronous", "not kept in step"]);
}
