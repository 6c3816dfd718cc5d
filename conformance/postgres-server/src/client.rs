//! Statements for a server under test, by a client other than the one that is tested.

use std::time::Duration;

use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

use crate::{Error, Result};

const CONNECT: Duration = Duration::from_secs(5);

/// How a server is reached.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: String,
}

impl Access {
    /// The rows of the last statement, as text.
    pub(crate) async fn run(&self, database: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let at = format!("{}:{}, database {database}", self.host, self.port);
        let mut config = Config::new();
        config
            .host(&self.host)
            .port(self.port)
            .user(&self.user)
            .password(&self.password)
            .dbname(database)
            .connect_timeout(CONNECT)
            .application_name("ghostwire-postgres-server");
        let (client, connection) =
            config.connect(NoTls).await.map_err(|error| Error::of(&at, describe(&error)))?;
        // The connection moves the answer, and ends when the client is gone.
        let ask = async move { client.simple_query(sql).await };
        let (answer, _) = tokio::join!(ask, connection);
        let messages = answer.map_err(|error| Error::of(&at, describe(&error)))?;
        let mut rows = Vec::new();
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(_) => rows.clear(),
                SimpleQueryMessage::Row(row) => {
                    rows.push((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect());
                }
                _ => {}
            }
        }
        Ok(rows)
    }
}

// Without the password.
impl std::fmt::Debug for Access {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}@{}:{}", self.user, self.host, self.port)
    }
}

/// The error, with what the server or the system says about it.
fn describe(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(said), _) => format!("{} ({})", said.message(), said.code().code()),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}
