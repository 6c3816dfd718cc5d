//! Who asks for a password over a connection without TLS.
//!
//! The client library answers whoever asks for the password in clear text, or for an MD5 hash that is as good.
//! Over TLS the server has proven who it is, and a Unix socket is in a directory of its owner's. But a port of
//! this machine has whoever bound it first, as anybody may while the server is down. So before a connection
//! without TLS is made with a password, another one finds out how it would be asked for. Only SCRAM will do, by
//! which nothing is told that the password could be found by.

use std::io;
use std::time::Duration;

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Version 3.0 of the protocol.
const PROTOCOL: u32 = 3 << 16;
/// The message by which a server asks for something, and its codes: nothing, and a mechanism of SASL.
const AUTHENTICATION: u8 = b'R';
const OK: u32 = 0;
const SASL: u32 = 10;
/// An error, such as that the server is full: it is said again where the password would be sent.
const ERROR: u8 = b'E';

/// Looks who is there before a password is sent.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    host: String,
    port: u16,
    user: String,
    database: String,
}

impl Guard {
    pub(crate) fn new(host: &str, port: u16, user: &str, database: &str) -> Self {
        let [host, user, database] = [host, user, database].map(str::to_owned);
        Self { host, port, user, database }
    }

    /// Refuses a server that would ask for the password itself.
    ///
    /// # Errors
    /// `PermissionDenied`. What else goes wrong is found again by the connection that follows.
    pub(crate) async fn check(&self, deadline: Duration) -> Result<()> {
        let asked = tokio::time::timeout(deadline, self.ask()).await;
        match asked {
            Ok(Ok(Asked::Nothing | Asked::Scram)) => Ok(()),
            Ok(Ok(Asked::Other)) => Err(Error::new(
                ErrorKind::PermissionDenied,
                "the server does not ask for the password by SCRAM, and was not told it: without TLS whoever \
                 has the port could read it. Set `password_encryption` and pg_hba.conf to scram-sha-256, or \
                 use TLS or a Unix socket",
            )),
            Ok(Err(error)) => {
                Err(Error::new(ErrorKind::Unavailable, "the database cannot be reached")
                    .because(error.kind().to_string()))
            }
            Err(_) => Err(Error::new(ErrorKind::Unavailable, "the database does not answer")
                .with("deadline_ms", deadline.as_millis())),
        }
    }

    async fn ask(&self) -> io::Result<Asked> {
        let mut stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.write_all(&self.startup()).await?;
        let (kind, length) = (stream.read_u8().await?, stream.read_u32().await?);
        Ok(match kind {
            AUTHENTICATION if length >= 8 => match stream.read_u32().await? {
                OK => Asked::Nothing,
                SASL => Asked::Scram,
                _ => Asked::Other,
            },
            ERROR => Asked::Nothing,
            _ => Asked::Other,
        })
    }

    fn startup(&self) -> Vec<u8> {
        let mut body = PROTOCOL.to_be_bytes().to_vec();
        for text in ["user", &self.user, "database", &self.database, ""] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
        [length.to_be_bytes().as_slice(), &body].concat()
    }
}

/// What a server asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Nothing,
    Scram,
    Other,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn the_first_message_has_its_length_and_ends() {
        let message = Guard::new("localhost", 5432, "control", "net").startup();
        assert_eq!(
            message.len(),
            usize::try_from(u32::from_be_bytes(message[..4].try_into().unwrap())).unwrap()
        );
        assert!(message.ends_with(b"database\0net\0\0"));
    }

    #[tokio::test]
    async fn only_scram_and_nothing_will_do() {
        for (answer, will_do) in [
            (&b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"[..], true),
            (b"R\0\0\0\x08\0\0\0\0", true),
            (b"E\0\0\0\x05\0", true),
            (b"R\0\0\0\x08\0\0\0\x03", false),
            (b"R\0\0\0\x0c\0\0\0\x05salt", false),
            (b"R\0\0\0\x08\0\0\0\x07", false),
            (b"Z\0\0\0\x05I", false),
        ] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(answer).await.unwrap();
                let mut heard = Vec::new();
                // However it ends.
                let _ = stream.read_to_end(&mut heard).await;
            };
            let guard = Guard::new("127.0.0.1", port, "control", "net");
            let (checked, ()) = tokio::join!(guard.check(Duration::from_secs(60)), serve);
            assert_eq!(checked.is_ok(), will_do, "{answer:?}: {checked:?}");
        }
    }
}
