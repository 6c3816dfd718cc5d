//! What clients over HTTP get, and what they may not take.
#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use ghostwire_store::health::{Health, LoadProgress};
use ghostwire_store::http::{Answered, Limits, Server, Source};
use serde_json::json;
use tokio::sync::oneshot;

#[derive(Default)]
struct Loading {
    progress: LoadProgress,
    answered: Mutex<Vec<(&'static str, &'static str, u16)>>,
}

#[async_trait]
impl Source for Loading {
    fn health(&self) -> Health {
        Health::loading(&self.progress)
    }

    async fn check_health(&self) -> Health {
        self.health()
    }

    async fn metrics(&self) -> Option<String> {
        Some("a 1\n".repeat(200_000))
    }

    fn status(&self) -> serde_json::Value {
        json!({ "health": self.health(), "planted": "<script>" })
    }

    fn answered(&self, answered: &Answered) {
        self.answered.lock().unwrap().push((answered.method, answered.route, answered.status));
    }
}

const TIGHT: Limits = Limits {
    connections: 2,
    head_bytes: 8 * 1024,
    headers: 16,
    head_timeout: Duration::from_millis(200),
    timeout: Duration::from_secs(1),
};

struct Running {
    address: SocketAddr,
    source: Arc<Loading>,
    stop: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<()>,
}

async fn running() -> Running {
    running_within(TIGHT).await
}

async fn running_within(limits: Limits) -> Running {
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), limits).await.unwrap();
    let (address, source) = (server.address(), Arc::new(Loading::default()));
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async move {
        let _ = stopped.await;
    };
    let serving = tokio::spawn(server.serve(source.clone(), stopped));
    Running { address, source, stop, serving }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// The whole answer; empty if there is none.
fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A connection that is reset has no answer.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

async fn get(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    tokio::task::spawn_blocking(move || ask(address, &request)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_opened_nobody_is_sent_here() {
    let Running { address, source, stop, serving } = running().await;
    assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200 "));
    let ready = get(address, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503 ") && ready.contains("0 rows read"), "{ready}");
    assert!(get(address, "/readyz?exclude=loaded").await.starts_with("HTTP/1.1 200 "));
    assert!(get(address, "/readyz?exclude=disc").await.starts_with("HTTP/1.1 400 "));
    assert!(get(address, "/readyz/not_draining").await.starts_with("HTTP/1.1 200 "));
    let status = get(address, "/status").await;
    assert!(status.contains("application/json") && status.contains("\"loading\""), "{status}");
    assert!(status.contains("no-store") && status.contains("nosniff"), "{status}");
    let metrics = get(address, "/metrics").await;
    assert!(metrics.contains("text/plain; version=0.0.4"));
    assert_eq!(metrics.matches("a 1\n").count(), 200_000);
    let answered = source.answered.lock().unwrap().clone();
    assert_eq!(answered[0], ("GET", "/livez", 200));
    assert!(answered.contains(&("GET", "/readyz/{check}", 200)));
    let _ = stop.send(());
    serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_too_much_is_refused_and_the_next_one_is_served() {
    let Running { address, source, stop, serving } = running().await;
    let refused = tokio::task::spawn_blocking(move || {
        let long =
            format!("GET /livez HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
        let many: String = (0..100).map(|number| format!("X-{number}: x\r\n")).collect();
        let many = format!("GET /livez HTTP/1.1\r\nHost: x\r\n{many}\r\n");
        let path = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(64 * 1024));
        let bad = "NONSENSE\r\n\r\n".to_owned();
        [long, many, path, bad].map(|request| ask(address, &request))
    });
    for answer in refused.await.unwrap() {
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    }
    assert!(source.answered.lock().unwrap().iter().all(|(_, _, status)| *status >= 400));
    assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200 "));
    let _ = stop.send(());
    serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_that_says_nothing_makes_room() {
    let long = Duration::from_secs(600);
    let limits = Limits { head_timeout: long, timeout: long, ..TIGHT };
    let Running { address, stop, serving, .. } = running_within(limits).await;
    let (mut oldest, mut second) = (connect(address), connect(address));
    assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200 "));
    let answers = tokio::task::spawn_blocking(move || {
        second.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        [&mut oldest, &mut second].map(|stream| {
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            answer
        })
    });
    let [oldest, second] = answers.await.unwrap();
    assert!(oldest.is_empty() && second.starts_with("HTTP/1.1 200 "), "{oldest}{second}");
    let _ = stop.send(());
    serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_or_does_not_read_holds_up_nobody_for_long() {
    let Running { address, stop, serving, .. } = running().await;
    // As many as there may be: one says nothing, one half, and one does not read a long answer.
    let silent = connect(address);
    let mut half = connect(address);
    half.write_all(b"GET /livez HTTP/1.1\r\nHo").unwrap();
    let mut deaf = connect(address);
    deaf.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200 "));
    drop((silent, half, deaf));
    let _ = stop.send(());
    serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_keeps_it_from_ending() {
    let Running { address, stop, serving, .. } = running().await;
    let mut deaf = connect(address);
    deaf.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let _ = stop.send(());
    serving.await.unwrap();
    // The address is free.
    Server::bind(address, TIGHT).await.unwrap();
}

#[tokio::test]
async fn an_address_that_is_taken_is_told() {
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), TIGHT).await.unwrap();
    let error = Server::bind(server.address(), TIGHT).await.unwrap_err();
    assert!(error.to_string().contains("another process has it"), "{error}");
    let error = Server::bind("192.0.2.1:80".parse().unwrap(), TIGHT).await.unwrap_err();
    assert!(error.to_string().contains("http.listen"), "{error}");
}
