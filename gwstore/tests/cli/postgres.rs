//! `gwstore` on stores in PostgreSQL.

use std::process::{Child, Command};

use ghostwire_postgres_server::{Database, Direction, Options, Proxy, Server};
use rustix::process::Signal;

use crate::serve::{HTTP, Server as Served};
use crate::support::{Place, Ran, command_in};

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

    fn start(&self, arguments: &str) -> Child {
        self.command(arguments).spawn().unwrap()
    }

    fn run(&self, arguments: &str) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }
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
    on.run("status").ok().says(&["postgres", name]).hides(&[server.password()]);
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
