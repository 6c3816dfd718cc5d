//! The admin socket of a store that is opened by its configuration.
#![cfg(all(feature = "admin", feature = "libsql", unix))]
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;

use ghostwire_store::admin::Client;
use ghostwire_store::config::{AdminOptions, BackendChoice, Config, LibsqlOptions};
use ghostwire_store::{ErrorKind, Opener};

fn config(directory: &Path) -> Config {
    let options = LibsqlOptions { path: directory.join("s.db"), ..LibsqlOptions::default() };
    Config { backend: BackendChoice::Libsql(options), ..Config::default() }
}

#[tokio::test]
async fn an_open_store_has_a_socket_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let socket = directory.path().canonicalize().unwrap().join("s.db.sock");
    assert_eq!(config.admin_socket_path(), Some(socket.clone()));
    let store = Opener::new(&config).open().await.unwrap();
    let client = Client::connect(&socket).await.unwrap();
    assert_eq!(client.welcome().pid, std::process::id());
    assert_eq!(client.info().await.unwrap().name, "libsql");
    store.close().await.unwrap();
    assert!(!socket.exists());
    // Whoever only reads serves none.
    let reader = Opener::new(&config).read_only(true).open().await.unwrap();
    assert!(!socket.exists());
    reader.close().await.unwrap();
    let store = Opener::new(&config).admin_socket_served(false).open().await.unwrap();
    assert!(!socket.exists());
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_store_whose_path_is_a_link_has_the_socket_of_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    Opener::new(&config).open().await.unwrap().close().await.unwrap();
    let mut linked = config.clone();
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(directory.path().join("s.db"), &link).unwrap();
    linked.backend =
        BackendChoice::Libsql(LibsqlOptions { path: link, ..LibsqlOptions::default() });
    assert_eq!(linked.admin_socket_path(), config.admin_socket_path());
}

#[tokio::test]
async fn a_socket_that_was_asked_for_has_to_be_there() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let with = |admin| Config { admin, ..config.clone() };
    let group = Some("no-such-group-here".to_owned());
    let refused = with(AdminOptions { group, ..AdminOptions::default() });
    let error = Opener::new(&refused).open().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::InvalidArgument, "{error}");
    let path = Some(directory.path().join("absent/s.sock"));
    let refused = with(AdminOptions { path, ..AdminOptions::default() });
    let error = Opener::new(&refused).open().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
    // Something else lies where it would be: the store opens without one, and leaves it.
    let in_the_way = config.admin_socket_path().unwrap();
    std::fs::write(&in_the_way, "mine").unwrap();
    Opener::new(&config).open().await.unwrap().close().await.unwrap();
    assert_eq!(std::fs::read(&in_the_way).unwrap(), b"mine");
}

#[tokio::test]
async fn a_store_that_is_dropped_leaves_no_socket() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let store = Opener::new(&config).open().await.unwrap();
    let client = Client::connect(&config.admin_socket_path().unwrap()).await.unwrap();
    drop(store);
    // Waits for the one that is on its way out.
    let store = Opener::new(&config).open().await.unwrap();
    // A client goes on with whoever serves the store now.
    client.status().await.unwrap();
    Client::connect(&config.admin_socket_path().unwrap()).await.unwrap();
    store.close().await.unwrap();
}
