//! A collector: a server for OTLP over HTTP that remembers what it is sent.
#![allow(clippy::unwrap_used, missing_docs, dead_code, unreachable_pub)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

#[derive(Debug, Default)]
pub struct Received {
    pub spans: Vec<Span>,
    pub metrics: Vec<Metric>,
    pub resources: Vec<Resource>,
    pub schema_urls: Vec<String>,
    /// Every body, as bytes that may hold text.
    pub raw: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct Collector {
    pub endpoint: String,
    received: Arc<(Mutex<Received>, Condvar)>,
}

impl Collector {
    /// Listens until the process ends.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let received = Arc::new((Mutex::new(Received::default()), Condvar::new()));
        let of = received.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let of = of.clone();
                std::thread::spawn(move || serve(connection, &of));
            }
        });
        Self { endpoint, received }
    }

    /// Reads what has come so far.
    pub fn with<T>(&self, read: impl FnOnce(&Received) -> T) -> T {
        read(&self.received.0.lock().unwrap())
    }

    /// Waits until what has come is enough.
    pub fn until(&self, enough: impl Fn(&Received) -> bool) {
        let (received, changed) = &*self.received;
        let _all = changed.wait_while(received.lock().unwrap(), |so_far| !enough(so_far)).unwrap();
    }
}

/// Requests of one connection, in turn.
fn serve(connection: TcpStream, received: &(Mutex<Received>, Condvar)) {
    let mut from = BufReader::new(connection.try_clone().unwrap());
    let mut to = connection;
    while let Some((path, body)) = request(&mut from) {
        let mut all = received.0.lock().unwrap();
        all.raw.extend(&body);
        if path == "/v1/traces" {
            for of in ExportTraceServiceRequest::decode(&body[..]).unwrap().resource_spans {
                all.resources.extend(of.resource);
                for scope in of.scope_spans {
                    all.schema_urls.push(scope.schema_url);
                    all.spans.extend(scope.spans);
                }
            }
        } else {
            for of in ExportMetricsServiceRequest::decode(&body[..]).unwrap().resource_metrics {
                all.resources.extend(of.resource);
                for scope in of.scope_metrics {
                    all.schema_urls.push(scope.schema_url);
                    all.metrics.extend(scope.metrics);
                }
            }
        }
        drop(all);
        received.1.notify_all();
        let answer =
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        if to.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// A path, and what was sent there; `None` at the end of the connection.
fn request(from: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut line = String::new();
    from.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    assert!(line.starts_with("POST "), "{line}");
    let mut length = 0;
    loop {
        let mut header = String::new();
        from.read_line(&mut header).ok()?;
        let header = header.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    Some((path, body))
}
