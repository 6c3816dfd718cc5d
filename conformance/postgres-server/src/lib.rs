//! PostgreSQL servers for tests, and a network that fails on demand.
//!
//! [`Server::start`] takes the first of these that is there, and says on standard error which it
//! was:
//!
//! 1. the server that `GHOSTWIRE_TEST_POSTGRES_URL` names. It must allow its user to create
//!    databases, and is never stopped; whoever asks for a server of its own ([`Options::own`], or
//!    any setting) gets another;
//! 2. a container of the image that `deploy/images/build postgres` makes. Nothing is pulled;
//! 3. `initdb` and `postgres` of the installed package, by the user `postgres` or `nobody` where the
//!    test runs as root.
//!
//! Without any of them it fails, and names the command that mends it.
//!
//! Every test has a database of its own ([`Server::database`]), so one server is enough for a test
//! program ([`Server::shared`]). [`Proxy`] stands between a client and the server, and delays, cuts,
//! throttles or ends connections.
//!
//! ```no_run
//! # async fn example() -> Result<(), ghostwire_postgres_server::Error> {
//! use ghostwire_postgres_server::{Options, Proxy};
//!
//! let server = Options::new().tls().max_connections(8).start().await?;
//! let database = server.database().await?;
//! let proxy = Proxy::to(server.host(), server.port())?;
//! // A client connects to `proxy.address()` and `database.name()` here.
//! server.kill().await?;
//! server.start_again().await?;
//! # drop((database, proxy));
//! # Ok(())
//! # }
//! ```
//!
//! Servers, their directories and containers are removed by a process of their own, which notices
//! when the test has ended, however it ended. A database on a server that was there stays if the
//! test is killed.

#![cfg(unix)]

mod certificate;
mod client;
mod database;
mod error;
mod guard;
mod options;
mod proxy;
mod server;
mod way;

pub use certificate::{Authority, Certificate};
pub use database::Database;
pub use error::Error;
pub use options::Options;
pub use proxy::{Counts, Direction, End, Proxy};
pub use server::Server;
pub use way::Way;

/// What this crate returns.
pub type Result<T> = std::result::Result<T, Error>;
