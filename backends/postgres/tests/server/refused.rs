//! What is not opened, and how it is said.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};

use ghostwire_postgres_server::Server;
use ghostwire_store_core::backend::Backend;
use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::error::ErrorKind;
use ghostwire_store_postgres::{Durability, Password, PostgresBackend, PostgresOptions};

use crate::support::{
    STORE, commit, open, options, own_server, refused, shared_server, store_next,
};
use crate::vanished::Held;

#[tokio::test]
async fn two_that_make_a_store_at_once_find_the_same_one() {
    let (server, database) = shared_server().await;
    let make = |number: u8| {
        let id = StoreId::from_bytes([number; 16]);
        open(options(server, database.name()).store(id))
    };
    let (one, two, three) = tokio::join!(make(1), make(2), make(3));
    let heads = [one.head().await.unwrap(), two.head().await.unwrap(), three.head().await.unwrap()];
    assert_eq!(heads[0], heads[1]);
    assert_eq!(heads[0], heads[2]);
    store_next(&one, 1).await.unwrap();
    assert_eq!(two.head().await.unwrap().serial.get(), 1);
    for backend in [one, two, three] {
        backend.verify().await.unwrap();
        backend.close().await.unwrap();
        assert_eq!(*backend.head().await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}

#[tokio::test]
async fn of_two_that_make_only_a_new_store_one_is_told_that_it_is_there() {
    let (server, database) = shared_server().await;
    let make = || PostgresBackend::open(options(server, database.name()).only_new(true));
    let (one, two) = tokio::join!(make(), make());
    let refused = match (one, two) {
        (Ok(made), Err(error)) | (Err(error), Ok(made)) => {
            store_next(&made, 1).await.unwrap();
            error
        }
        both => panic!("{both:?}"),
    };
    assert_eq!(*refused.kind(), ErrorKind::AlreadyExists { constraint: "schema" }, "{refused}");
    let late = make().await.unwrap_err();
    assert_eq!(*late.kind(), ErrorKind::AlreadyExists { constraint: "schema" }, "{late}");
}

#[tokio::test]
async fn each_refusal_has_its_kind_names_the_database_and_no_password() {
    let (server, database) = shared_server().await;
    let name = database.name();
    let right = || options(server, name);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let planted = "planted-hunter2";
    let wrong = Some(Password::new(planted).unwrap());
    for (options, kind) in [
        (right().password(wrong.clone()), ErrorKind::PermissionDenied),
        (right().port(free).password(wrong.clone()), ErrorKind::Unavailable),
        (options(server, "no_such_database"), ErrorKind::NotFound),
        (right().create(false), ErrorKind::NotFound),
        (right().read_only(true), ErrorKind::NotFound),
        (right().schema_name("pg_catalog"), ErrorKind::InvalidArgument),
    ] {
        let error = refused(options).await;
        let text = format!("{error} {error:?}");
        assert_eq!(*error.kind(), kind, "{text}");
        // What cannot be meant is not shown, nor is what is beside it.
        let names_host = text.contains("127.0.0.1") || text.contains(server.host());
        assert_eq!(names_host, kind != ErrorKind::InvalidArgument, "{text}");
        assert!(!text.contains(planted) && !text.contains(server.password()), "{text}");
    }
    let sql = "SELECT count(*) FROM pg_namespace WHERE nspname = 'ghostwire'";
    let left = server.sql(name, sql).await.unwrap();
    assert_eq!(left, [[Some("0".to_owned())]], "nothing is made on the way");
}

#[tokio::test]
async fn a_schema_of_something_else_is_left_alone() {
    let (server, database) = shared_server().await;
    let name = database.name();
    server.sql(name, "CREATE SCHEMA ghostwire").await.unwrap();
    server.sql(name, "CREATE TABLE ghostwire.orders (id int)").await.unwrap();
    let error = refused(options(server, name)).await;
    assert_eq!(*error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(error.to_string().contains("schema=ghostwire"), "{error}");
    // An empty one is taken.
    server.sql(name, "DROP TABLE ghostwire.orders").await.unwrap();
    open(options(server, name)).await.close().await.unwrap();
    // Beside it others may be, in schemas of their own.
    let other = options(server, name).schema_name("second");
    open(other).await.close().await.unwrap();
}

#[tokio::test]
async fn a_database_that_only_lets_read_is_read() {
    let (server, database) = shared_server().await;
    let name = database.name();
    let backend = open(options(server, name)).await;
    let head = store_next(&backend, 1).await.unwrap();
    backend.close().await.unwrap();
    let sql = format!("ALTER DATABASE {name} SET default_transaction_read_only TO on");
    server.sql("postgres", &sql).await.unwrap();
    let error = refused(options(server, name)).await;
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("default_transaction_read_only"), "{error}");
    let reader = open(options(server, name).read_only(true)).await;
    assert_eq!(reader.head().await.unwrap(), head);
    assert_eq!(*store_next(&reader, 2).await.unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(reader.reopen().await.unwrap(), head);
    reader.close().await.unwrap();
}

#[tokio::test]
async fn a_server_that_forgets_is_refused_unless_that_is_asked_for() {
    let (server, database) = shared_server().await;
    let name = database.name();
    let sql = format!("ALTER DATABASE {name} SET synchronous_commit TO off");
    server.sql("postgres", &sql).await.unwrap();
    let error = refused(options(server, name)).await;
    assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("synchronous_commit"), "{error}");
    let backend = open(options(server, name).durability(Durability::Unsafe)).await;
    assert!(!backend.info().durable);
    store_next(&backend, 1).await.unwrap();
    assert_eq!(backend.head().await.unwrap().store, STORE);
    backend.close().await.unwrap();
}

/// Whoever is connected keeps what was found; the next connection is asked anew.
#[tokio::test]
async fn a_server_that_is_told_to_forget_is_written_to_no_more() {
    let (server, database) = shared_server().await;
    let name = database.name();
    let backend = open(options(server, name)).await;
    let head = store_next(&backend, 1).await.unwrap();
    let sql = format!("ALTER DATABASE {name} SET synchronous_commit TO off");
    server.sql("postgres", &sql).await.unwrap();
    store_next(&backend, 2).await.unwrap();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE application_name = 'ghostwire-store' AND datname = current_database()";
    server.sql(name, end).await.unwrap();
    // That the connection is gone is learnt by a commit, whose outcome cannot be asked for by writing.
    let after = backend.head().await.unwrap_or(head);
    let error = backend.commit(&commit(&after, 3)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    for error in [
        store_next(&backend, 3).await.unwrap_err(),
        backend.probe(head.epoch).await.unwrap_err(),
        backend.reopen().await.unwrap_err(),
        backend.take_turn().await.unwrap_err(),
    ] {
        assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("synchronous_commit"), "{error}");
    }
    let sql = format!("ALTER DATABASE {name} RESET synchronous_commit");
    server.sql("postgres", &sql).await.unwrap();
    store_next(&backend, 3).await.unwrap();
}

#[tokio::test]
async fn a_running_server_that_is_told_to_forget_is_written_to_no_more() {
    let (server, database) = own_server().await;
    let backend = open(options(&server, database.name())).await;
    store_next(&backend, 1).await.unwrap();
    server.sql("postgres", "ALTER SYSTEM SET full_page_writes TO off").await.unwrap();
    server.sql("postgres", "SELECT pg_reload_conf()").await.unwrap();
    // A session takes notice between two statements.
    let error = loop {
        if let Err(error) = store_next(&backend, 2).await {
            break error;
        }
    };
    assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("full_page_writes"), "{error}");
    server.sql("postgres", "ALTER SYSTEM RESET full_page_writes").await.unwrap();
    server.sql("postgres", "SELECT pg_reload_conf()").await.unwrap();
    while store_next(&backend, 3).await.is_err() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_tables_somebody_has_locked_is_not_waited_for_for_ever() {
    let (server, database) = shared_server().await;
    open(options(server, database.name())).await.close().await.unwrap();
    let held = Held::by(server, &database, "LOCK TABLE ghostwire.ghostwire_meta").await;
    let error = refused(options(server, database.name())).await;
    assert_eq!(*error.kind(), ErrorKind::Busy, "{error}");
    assert!(error.to_string().contains("holds a lock"), "{error}");
    held.let_go().await;
    open(options(server, database.name())).await.close().await.unwrap();
}

#[tokio::test]
async fn a_url_in_the_place_of_a_host_is_not_repeated() {
    let url = "postgres://control:planted@db.example/net";
    for options in [
        PostgresOptions::new(url, "net", "control", STORE),
        PostgresOptions::new("db.example", url, "control", STORE),
        PostgresOptions::new("db.example", "net", url, STORE),
    ] {
        let error = refused(options).await;
        let text = format!("{error} {error:?}");
        assert_eq!(*error.kind(), ErrorKind::InvalidArgument, "{text}");
        assert!(!text.contains("planted") && !text.contains("db.example"), "{text}");
    }
}

/// Passes one connection after the other on, and has the server say that it is another version.
fn say(server: &Server, version: [i64; 2]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let target = (server.host().to_owned(), server.port());
    let [found, said] = version.map(i64::to_be_bytes);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut server) =
                (client.unwrap(), TcpStream::connect((target.0.as_str(), target.1)).unwrap());
            let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut up, &mut down);
                let _ = down.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || {
                let mut bytes = [0; 65536];
                while let Ok(count @ 1..) = server.read(&mut bytes) {
                    let part = &mut bytes[..count];
                    if let Some(at) = part.windows(8).position(|window| window == found) {
                        part[at..at + 8].copy_from_slice(&said);
                    }
                    if client.write_all(part).is_err() {
                        break;
                    }
                }
                let _ = client.shutdown(Shutdown::Both);
            });
        }
    });
    port
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused() {
    let (server, database) = shared_server().await;
    let number = server.sql("postgres", "SHOW server_version_num").await.unwrap();
    let number: i64 = number[0][0].as_ref().unwrap().parse().unwrap();
    let says = |version| options(server, database.name()).port(say(server, [number, version]));
    let error = refused(says(140_023)).await;
    assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("too old"), "{error}");
    open(says(150_000)).await.close().await.unwrap();
}

#[tokio::test]
async fn a_role_with_settings_of_its_own_changes_nothing() {
    let (server, database) = shared_server().await;
    let name = database.name();
    for setting in [
        "search_path TO nowhere, pg_catalog",
        "default_transaction_isolation TO 'serializable'",
        "datestyle TO 'German'",
        "bytea_output TO 'escape'",
        "intervalstyle TO 'sql_standard'",
        "timezone TO 'Asia/Kathmandu'",
        "extra_float_digits TO -10",
    ] {
        let sql = format!("ALTER DATABASE {name} SET {setting}");
        server.sql("postgres", &sql).await.unwrap();
    }
    let (one, two) = (open(options(server, name)).await, open(options(server, name)).await);
    for number in 1..4 {
        store_next(&one, number).await.unwrap();
        store_next(&two, number + 10).await.unwrap();
    }
    one.verify().await.unwrap();
    assert_eq!(one.head().await.unwrap(), two.head().await.unwrap());
}
