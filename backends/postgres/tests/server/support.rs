//! What the tests have in common.

use ghostwire_postgres_server::{Database, Server};
use ghostwire_store_core::backend::{Backend, Commit, Head};
use ghostwire_store_core::block::{BlockBuilder, ChangeKind, EncodedBlock, RowChange};
use ghostwire_store_core::domain::{
    BlockId, CommitId, NewUser, StoreId, Timestamp, User, UserId, UserName,
};
use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_core::schema::{Record, RowKey, Table};
use ghostwire_store_postgres::{Password, PostgresBackend, PostgresOptions};

pub(crate) const STORE: StoreId = StoreId::from_bytes([0x5a; 16]);

/// A server that this test may stop, and a database on it.
pub(crate) async fn own_server() -> (Server, Database) {
    let server = ghostwire_postgres_server::Options::new().own().start().await.unwrap();
    let database = server.database().await.unwrap();
    (server, database)
}

/// A database on the server that the tests share.
pub(crate) async fn shared_server() -> (&'static Server, Database) {
    let server = Server::shared().await.unwrap();
    (server, server.database().await.unwrap())
}

pub(crate) fn options(server: &Server, database: &str) -> PostgresOptions {
    through(server, database, server.host(), server.port())
}

/// By way of a proxy.
pub(crate) fn through(server: &Server, database: &str, host: &str, port: u16) -> PostgresOptions {
    PostgresOptions::new(host, database, server.user(), STORE)
        .port(port)
        .password(Some(Password::new(server.password()).unwrap()))
        .create(true)
}

pub(crate) async fn open(options: PostgresOptions) -> PostgresBackend {
    PostgresBackend::open(options).await.unwrap()
}

pub(crate) async fn refused(options: PostgresOptions) -> Error {
    PostgresBackend::open(options).await.map(drop).unwrap_err()
}

pub(crate) fn user(number: u8) -> User {
    let new = NewUser::local(UserName::new(format!("user{number}")).unwrap());
    new.created(UserId::from_bytes([number; 16]), Timestamp::from_secs(1_700_000_000).unwrap())
}

/// The block that follows a head, with this number as its id.
pub(crate) fn block(head: &Head, number: u8) -> EncodedBlock {
    let (serial, id) = (head.serial.next(), BlockId::from_bytes([number; 16]));
    let time = Timestamp::from_secs(1_700_000_000).unwrap();
    BlockBuilder::default().finish(serial, id, head.hash, time).unwrap().block
}

/// A commit of a block and one row.
pub(crate) fn commit(head: &Head, number: u8) -> Commit {
    let user = user(number);
    let body = Some(user.encode());
    let (table, kind) = (Table::Users, ChangeKind::Created);
    let rows = vec![RowChange { table, kind, key: user.key(), body }];
    Commit { block: Some(block(head, number)), rows, ..Commit::on(head) }
}

/// One without a block.
pub(crate) fn entry(head: &Head, number: u8) -> Commit {
    Commit { entry: Some(CommitId::from_bytes([number; 16])), ..Commit::on(head) }
}

/// Stores a commit that follows what is stored.
pub(crate) async fn store_next(backend: &PostgresBackend, number: u8) -> Result<Head> {
    let head = backend.head().await?;
    backend.commit(&commit(&head, number)).await?;
    backend.head().await
}

/// The key of a user.
pub(crate) fn key_of(number: u8) -> RowKey {
    user(number).key()
}
