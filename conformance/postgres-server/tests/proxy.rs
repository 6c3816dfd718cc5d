//! The proxy between a client and a server that says everything again. Nothing here waits for time
//! to pass: it waits for bytes to be counted, and for ends of connections.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use ghostwire_postgres_server::{Direction, End, Proxy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use Direction::{ToClient, ToServer};

/// Longer than any test.
const AN_HOUR: Duration = Duration::from_secs(3600);

/// A server that says everything again, and how each of its connections has ended.
struct Echo {
    address: SocketAddr,
    ended: mpsc::UnboundedReceiver<Option<ErrorKind>>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ended) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let end = end.clone();
                tokio::spawn(async move {
                    let (mut from, mut to) = client.split();
                    let copied = tokio::io::copy(&mut from, &mut to).await;
                    let _ = to.shutdown().await;
                    let _ = end.send(copied.err().map(|error| error.kind()));
                });
            }
        });
        Self { address, ended }
    }

    fn proxy(&self) -> Proxy {
        Proxy::to("127.0.0.1", self.address.port()).unwrap()
    }
}

async fn client(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

async fn echo(client: &mut TcpStream, text: &str) -> String {
    client.write_all(text.as_bytes()).await.unwrap();
    hear(client, text.len()).await
}

async fn hear(client: &mut TcpStream, length: usize) -> String {
    let mut heard = vec![0; length];
    client.read_exact(&mut heard).await.unwrap();
    String::from_utf8(heard).unwrap()
}

#[tokio::test]
async fn by_itself_it_is_not_there() {
    let mut echo_server = Echo::start().await;
    let proxy = echo_server.proxy();
    let mut client = client(&proxy).await;
    assert_eq!(echo(&mut client, "hello").await, "hello");
    let large = "x".repeat(1 << 20);
    let (mut from, mut to) = client.split();
    let mut heard = vec![0; large.len()];
    let (sent, read) = tokio::join!(to.write_all(large.as_bytes()), from.read_exact(&mut heard));
    sent.unwrap();
    read.unwrap();
    assert_eq!(heard, large.as_bytes());
    // The end of one direction passes, and the other goes on until its own.
    to.shutdown().await.unwrap();
    assert_eq!(echo_server.ended.recv().await, Some(None));
    assert_eq!(from.read(&mut [0]).await.unwrap(), 0);
    let counts = proxy.until(|counts| counts.open == 0).await.unwrap();
    assert_eq!(counts.accepted, 1);
    for direction in Direction::BOTH {
        assert_eq!(counts.received(direction), 5 + (1 << 20));
        assert_eq!(counts.passed(direction), 5 + (1 << 20));
    }
}

#[tokio::test]
async fn what_is_cut_waits_and_the_other_direction_passes() {
    let proxy = Echo::start().await.proxy();
    let mut client = client(&proxy).await;
    echo(&mut client, "connected").await;

    proxy.cut(ToServer).unwrap();
    client.write_all(b"ask").await.unwrap();
    let counts = proxy.until(|counts| counts.received(ToServer) == 12).await.unwrap();
    assert_eq!((counts.passed(ToServer), counts.received(ToClient)), (9, 9));
    proxy.cut(ToClient).unwrap();
    proxy.mend(ToServer).unwrap();
    // The server has heard and answered; the client does not know.
    let counts = proxy.until(|counts| counts.received(ToClient) == 12).await.unwrap();
    assert_eq!((counts.passed(ToServer), counts.passed(ToClient)), (12, 9));
    assert_eq!(client.try_read(&mut [0; 3]).unwrap_err().kind(), ErrorKind::WouldBlock);
    proxy.mend(ToClient).unwrap();
    assert_eq!(hear(&mut client, 3).await, "ask");
}

#[tokio::test]
async fn a_client_does_not_hear_of_the_end_of_a_server_that_is_cut_off() {
    let mut echo_server = Echo::start().await;
    let proxy = echo_server.proxy();
    let mut client = client(&proxy).await;
    echo(&mut client, "connected").await;
    proxy.cut(ToClient).unwrap();
    // The server ends the connection in answer to this end.
    client.shutdown().await.unwrap();
    assert_eq!(echo_server.ended.recv().await, Some(None));
    assert_eq!(client.try_read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(proxy.counts().open, 1);
    proxy.mend(ToClient).unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_delay_holds_back_and_can_be_taken_back() {
    let proxy = Echo::start().await.proxy();
    let mut client = client(&proxy).await;
    proxy.delay(ToClient, AN_HOUR).unwrap();
    client.write_all(b"slow").await.unwrap();
    let counts = proxy.until(|counts| counts.received(ToClient) == 4).await.unwrap();
    assert_eq!(counts.passed(ToClient), 0);
    proxy.delay(ToClient, Duration::ZERO).unwrap();
    assert_eq!(hear(&mut client, 4).await, "slow");
    proxy.delay(ToClient, Duration::from_millis(1)).unwrap();
    assert_eq!(echo(&mut client, "later").await, "later");
}

#[tokio::test]
async fn a_throttle_keeps_the_next_bytes_back() {
    let proxy = Echo::start().await.proxy();
    let mut client = client(&proxy).await;
    echo(&mut client, &"x".repeat(10_000)).await;
    // What has just gone takes ten thousand seconds now.
    proxy.throttle(ToServer, Some(1)).unwrap();
    client.write_all(b"yz").await.unwrap();
    let counts = proxy.until(|counts| counts.received(ToServer) == 10_002).await.unwrap();
    assert!(counts.passed(ToServer) <= 10_001, "a piece at most: {counts:?}");
    proxy.throttle(ToServer, None).unwrap();
    assert_eq!(hear(&mut client, 2).await, "yz");
}

#[tokio::test]
async fn close_ends_open_connections_and_accepts_new_ones() {
    let mut echo_server = Echo::start().await;
    let proxy = echo_server.proxy();
    let mut first = client(&proxy).await;
    echo(&mut first, "first").await;
    proxy.close().unwrap();
    assert_eq!(proxy.counts().open, 0, "before it returns");
    assert_eq!(first.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(echo_server.ended.recv().await, Some(None));
    let mut second = client(&proxy).await;
    assert_eq!(echo(&mut second, "second").await, "second");
}

#[tokio::test]
async fn reset_is_an_error_at_both_ends() {
    let mut echo_server = Echo::start().await;
    let proxy = echo_server.proxy();
    let mut client = client(&proxy).await;
    echo(&mut client, "connected").await;
    proxy.reset().unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(echo_server.ended.recv().await, Some(Some(ErrorKind::ConnectionReset)));
}

#[tokio::test]
async fn half_open_tells_one_end_only() {
    let mut echo_server = Echo::start().await;
    let proxy = echo_server.proxy();
    let mut first = client(&proxy).await;
    echo(&mut first, "connected").await;

    proxy.half_open(End::Server).unwrap();
    assert_eq!(echo_server.ended.recv().await, Some(None), "the server sees the end");
    first.write_all(b"anybody there?").await.unwrap();
    assert_eq!(first.try_read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let mut second = client(&proxy).await;
    assert_eq!(echo(&mut second, "second").await, "second", "new connections are whole");

    proxy.half_open(End::Client).unwrap();
    assert_eq!(second.read(&mut [0]).await.unwrap(), 0, "the client sees the end");
    assert!(echo_server.ended.try_recv().is_err(), "the server does not");
    assert_eq!(
        proxy.counts().open,
        1,
        "the first has no client's end to keep, the second a server's"
    );

    proxy.close().unwrap();
    assert_eq!(echo_server.ended.recv().await, Some(None));
    assert_eq!(proxy.counts().open, 0);
}

#[tokio::test]
async fn refuses_and_accepts_again_at_the_same_address() {
    let echo_server = Echo::start().await;
    let proxy = echo_server.proxy();
    let mut open = client(&proxy).await;
    echo(&mut open, "open").await;
    proxy.refuse().unwrap();
    let refused = TcpStream::connect(proxy.address()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(echo(&mut open, "still").await, "still", "open connections stay");
    proxy.accept().unwrap();
    proxy.accept().unwrap();
    let mut second = client(&proxy).await;
    assert_eq!(echo(&mut second, "again").await, "again");
}

#[tokio::test]
async fn a_server_that_is_not_there_ends_the_connection() {
    let address = Echo::start().await.address;
    let nobody = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    assert_ne!(nobody, address);
    let proxy = Proxy::to("127.0.0.1", nobody.port()).unwrap();
    let mut client = client(&proxy).await;
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(proxy.until(|counts| counts.open == 0).await.unwrap().accepted, 1);
}

#[tokio::test]
async fn dropping_it_ends_everything() {
    let mut echo_server = Echo::start().await;
    let proxy = echo_server.proxy();
    let mut client = client(&proxy).await;
    echo(&mut client, "connected").await;
    let address = proxy.address();
    drop(proxy);
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(echo_server.ended.recv().await, Some(None));
    assert!(TcpStream::connect(address).await.is_err());
}
