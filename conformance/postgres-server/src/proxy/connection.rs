//! One connection through the proxy.

use std::future::pending;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::queue::Queue;
use super::{Counts, Direction, End, Shapes};

/// What becomes of connections that are open.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Close,
    Reset,
    HalfOpen(End),
}

type Orders = mpsc::UnboundedReceiver<(Order, oneshot::Sender<()>)>;

/// What a connection has from its proxy.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) shapes: watch::Receiver<Shapes>,
    pub(super) counts: Arc<watch::Sender<Counts>>,
}

/// Counts it as open for as long as it lives.
struct Open(Arc<watch::Sender<Counts>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|counts| counts.open -= 1);
    }
}

/// Passes on until both directions have ended, or an order says otherwise.
pub(super) async fn connection(
    mut client: TcpStream,
    target: (String, u16),
    link: Link,
    mut orders: Orders,
) {
    let _open = Open(link.counts.clone());
    let (mut order, mut server) = tokio::select! {
        order = orders.recv() => (order, None),
        server = TcpStream::connect(target) => (None, server.ok()),
    };
    if order.is_none()
        && let Some(server) = &mut server
    {
        // Small messages are not to wait for each other, beyond what was asked for.
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let both = async {
            tokio::join!(
                pass(Direction::ToServer, from_client, to_server, link.clone()),
                pass(Direction::ToClient, from_server, to_client, link.clone()),
            )
        };
        tokio::select! {
            next = orders.recv() => order = next,
            _ = both => {}
        }
    }
    let Some((order, done)) = order else { return };
    match order {
        Order::Close => {}
        Order::Reset => {
            for end in [Some(&client), server.as_ref()].into_iter().flatten() {
                let _ = end.set_zero_linger();
            }
        }
        Order::HalfOpen(gone) => {
            let left = match gone {
                End::Client => {
                    drop(client);
                    server.map(|server| (End::Server, server))
                }
                End::Server => {
                    drop(server);
                    Some((End::Client, client))
                }
            };
            let _ = done.send(());
            if let Some((end, left)) = left {
                swallow(end, left, orders).await;
            }
            return;
        }
    }
    drop((client, server));
    let _ = done.send(());
}

/// Takes what comes and never answers, until the end that is left goes or has to.
async fn swallow(end: End, mut left: TcpStream, mut orders: Orders) {
    loop {
        let swallowed = async {
            let mut nowhere = tokio::io::sink();
            tokio::io::copy(&mut left, &mut nowhere).await
        };
        let next = tokio::select! {
            _ = swallowed => return,
            next = orders.recv() => next,
        };
        let Some((order, done)) = next else { return };
        match order {
            Order::HalfOpen(gone) if gone != end => {
                let _ = done.send(());
                continue;
            }
            Order::Reset => {
                let _ = left.set_zero_linger();
            }
            Order::Close | Order::HalfOpen(_) => {}
        }
        drop(left);
        let _ = done.send(());
        return;
    }
}

/// Passes bytes on in one direction, and its end after them.
async fn pass(direction: Direction, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut link: Link) {
    let mut queue = Queue::default();
    let mut piece = Vec::new();
    let mut reading = true;
    loop {
        let shape = link.shapes.borrow_and_update().of(direction);
        let due = queue.due(shape);
        let first_is_due = async {
            match due {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        piece.clear();
        piece.reserve(shape.piece());
        let mut limited = (&mut from).take(shape.piece() as u64);
        tokio::select! {
            biased;
            changed = link.shapes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = first_is_due => {
                let passed = match queue.take(Instant::now()) {
                    Some(Some(bytes)) => to.write_all(&bytes).await.map(|()| bytes.len()),
                    // How it ended does not matter: by its end or by an error, nothing more comes.
                    Some(None) => to.shutdown().await.and(Err(io::ErrorKind::UnexpectedEof.into())),
                    None => Ok(0),
                };
                // Nobody takes it any more. Who sends it hears of that in the other direction.
                let Ok(passed) = passed else { return };
                link.counts.send_modify(|counts| {
                    counts.passage_mut(direction).passed += passed as u64;
                });
            }
            read = limited.read_buf(&mut piece), if reading && !queue.is_full() => {
                let length = read.unwrap_or(0);
                reading = length > 0;
                queue.push(Instant::now(), reading.then(|| piece.clone()));
                link.counts.send_modify(|counts| {
                    counts.passage_mut(direction).received += length as u64;
                });
            }
        }
    }
}
