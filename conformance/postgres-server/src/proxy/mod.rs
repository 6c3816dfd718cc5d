//! A network between client and server that fails on demand.

mod connection;
mod queue;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

use crate::way::listen;
use crate::{Error, Result};
use connection::{Link, Order, connection};
use queue::Shape;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    ToServer,
    /// From the server.
    ToClient,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::ToServer, Self::ToClient];
}

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Who connected.
    Client,
    /// Whom it is connected to.
    Server,
}

/// What has gone through so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Connections that were accepted.
    pub accepted: u64,
    /// Those of them that are open, at either end.
    pub open: u64,
    to_server: Passage,
    to_client: Passage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Passage {
    received: u64,
    passed: u64,
}

impl Counts {
    /// Bytes that came in, to go in this direction.
    #[must_use]
    pub fn received(&self, direction: Direction) -> u64 {
        self.passage(direction).received
    }

    /// Bytes that went on in this direction.
    #[must_use]
    pub fn passed(&self, direction: Direction) -> u64 {
        self.passage(direction).passed
    }

    fn passage(&self, direction: Direction) -> Passage {
        match direction {
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }

    fn passage_mut(&mut self, direction: Direction) -> &mut Passage {
        match direction {
            Direction::ToServer => &mut self.to_server,
            Direction::ToClient => &mut self.to_client,
        }
    }
}

/// What happens to each direction.
#[derive(Debug, Clone, Copy, Default)]
struct Shapes {
    to_server: Shape,
    to_client: Shape,
}

impl Shapes {
    fn of(&self, direction: Direction) -> Shape {
        match direction {
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }

    fn of_mut(&mut self, direction: Direction) -> &mut Shape {
        match direction {
            Direction::ToServer => &mut self.to_server,
            Direction::ToClient => &mut self.to_client,
        }
    }
}

/// What is asked of the proxy's thread, and where it says that it is done.
struct Call {
    command: Command,
    done: std::sync::mpsc::Sender<Result<()>>,
}

enum Command {
    Shapes(Box<dyn FnOnce(&mut Shapes) + Send>),
    Order(Order),
    Refuse,
    Accept,
}

/// Passes connections on to a server. What is asked of it holds when the call returns, for the
/// connections that are open, too. It has a thread of its own, so nothing that a test does on its
/// runtime holds it up.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    calls: Option<mpsc::UnboundedSender<Call>>,
    counts: watch::Receiver<Counts>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Passes on to this server, for now as if it were not there.
    ///
    /// # Errors
    /// If there is no port or no thread for it.
    pub fn to(host: &str, port: u16) -> Result<Self> {
        let failed = |error| Error::of("cannot start a proxy", error);
        let listener = listen()?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failed)?;
        let (calls, incoming) = mpsc::unbounded_channel();
        let (counts, counted) = watch::channel(Counts::default());
        let target = (host.to_owned(), port);
        let run = move || {
            let service = Service::new(address, target, counts);
            runtime.block_on(service.run(listener, incoming));
        };
        let thread = thread::Builder::new().name("proxy".to_owned()).spawn(run).map_err(failed)?;
        Ok(Self { address, calls: Some(calls), counts: counted, thread: Some(thread) })
    }

    /// Where clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets nothing pass in this direction, the end of a connection neither. It waits, as what a
    /// network has lost is sent again.
    ///
    /// # Errors
    /// If the proxy has ended.
    pub fn cut(&self, direction: Direction) -> Result<()> {
        self.shape(direction, |shape| shape.cut = true)
    }

    /// Lets it pass again.
    ///
    /// # Errors
    /// If the proxy has ended.
    pub fn mend(&self, direction: Direction) -> Result<()> {
        self.shape(direction, |shape| shape.cut = false)
    }

    /// Delays everything in this direction by this much.
    ///
    /// # Errors
    /// If the proxy has ended.
    pub fn delay(&self, direction: Direction, delay: Duration) -> Result<()> {
        self.shape(direction, move |shape| shape.delay = delay)
    }

    /// Lets so much pass in this direction on each connection; none is no limit.
    ///
    /// # Errors
    /// If the proxy has ended.
    pub fn throttle(&self, direction: Direction, bytes_per_second: Option<u64>) -> Result<()> {
        self.shape(direction, move |shape| shape.bytes_per_second = bytes_per_second)
    }

    /// Ends all connections, as a server does that ends.
    ///
    /// # Errors
    /// If the proxy has ended.
    pub fn close(&self) -> Result<()> {
        self.call(Command::Order(Order::Close))
    }

    /// Resets all connections, as a machine does that knows nothing of them.
    ///
    /// # Errors
    /// If the proxy has ended.
    pub fn reset(&self) -> Result<()> {
        self.call(Command::Order(Order::Reset))
    }

    /// Ends all connections at this end, and does not tell the other, which waits for answers in
    /// vain.
    ///
    /// # Errors
    /// If the proxy has ended.
    pub fn half_open(&self, gone: End) -> Result<()> {
        self.call(Command::Order(Order::HalfOpen(gone)))
    }

    /// Refuses new connections.
    ///
    /// # Errors
    /// If the proxy has ended.
    pub fn refuse(&self) -> Result<()> {
        self.call(Command::Refuse)
    }

    /// Accepts new connections again, at the same address.
    ///
    /// # Errors
    /// If the proxy has ended, or somebody else has the port by now.
    pub fn accept(&self) -> Result<()> {
        self.call(Command::Accept)
    }

    /// What has gone through.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.counts.borrow()
    }

    /// Waits until what has gone through is as `done` wants it.
    ///
    /// # Errors
    /// If it is not after a minute.
    pub async fn until(&self, done: impl FnMut(&Counts) -> bool) -> Result<Counts> {
        let mut counts = self.counts.clone();
        let waited = tokio::time::timeout(Duration::from_secs(60), counts.wait_for(done)).await;
        match waited {
            Ok(Ok(counts)) => Ok(*counts),
            Ok(Err(_)) => Err(gone()),
            Err(_) => Err(Error::new(format!("not after a minute; {:?}", self.counts()))),
        }
    }

    fn shape(
        &self,
        direction: Direction,
        change: impl FnOnce(&mut Shape) + Send + 'static,
    ) -> Result<()> {
        let change = move |shapes: &mut Shapes| change(shapes.of_mut(direction));
        self.call(Command::Shapes(Box::new(change)))
    }

    fn call(&self, command: Command) -> Result<()> {
        let (done, answer) = std::sync::mpsc::channel();
        let calls = self.calls.as_ref().ok_or_else(gone)?;
        calls.send(Call { command, done }).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.calls = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn gone() -> Error {
    Error::new("the proxy has ended")
}

/// What runs on the proxy's thread.
struct Service {
    address: SocketAddr,
    target: (String, u16),
    shapes: watch::Sender<Shapes>,
    counts: Arc<watch::Sender<Counts>>,
    connections: Vec<mpsc::UnboundedSender<(Order, oneshot::Sender<()>)>>,
}

impl Service {
    fn new(address: SocketAddr, target: (String, u16), counts: watch::Sender<Counts>) -> Self {
        let (shapes, _) = watch::channel(Shapes::default());
        Self { address, target, shapes, counts: Arc::new(counts), connections: Vec::new() }
    }

    async fn run(
        mut self,
        listener: std::net::TcpListener,
        mut calls: mpsc::UnboundedReceiver<Call>,
    ) {
        let mut listener = TcpListener::from_std(listener).ok();
        loop {
            let accepted = async {
                match &listener {
                    Some(listener) => listener.accept().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                call = calls.recv() => {
                    let Some(Call { command, done }) = call else { return };
                    let answer = self.carry_out(command, &mut listener).await;
                    let _ = done.send(answer);
                }
                accepted = accepted => {
                    if let Ok((client, _)) = accepted {
                        self.connect(client);
                    }
                }
            }
        }
    }

    fn connect(&mut self, client: tokio::net::TcpStream) {
        let (orders, ordered) = mpsc::unbounded_channel();
        self.connections.retain(|connection| !connection.is_closed());
        self.connections.push(orders);
        self.counts.send_modify(|counts| {
            counts.accepted += 1;
            counts.open += 1;
        });
        let link = Link { shapes: self.shapes.subscribe(), counts: self.counts.clone() };
        let target = self.target.clone();
        tokio::spawn(connection(client, target, link, ordered));
    }

    async fn carry_out(
        &mut self,
        command: Command,
        listener: &mut Option<TcpListener>,
    ) -> Result<()> {
        match command {
            Command::Shapes(change) => self.shapes.send_modify(change),
            Command::Order(order) => {
                for connection in &self.connections {
                    let (done, obeyed) = oneshot::channel();
                    if connection.send((order, done)).is_ok() {
                        // One that has ended meanwhile has obeyed as well.
                        let _ = obeyed.await;
                    }
                }
            }
            Command::Refuse => *listener = None,
            Command::Accept => {
                if listener.is_none() {
                    let bound = TcpListener::bind(self.address).await;
                    *listener = Some(bound.map_err(|error| Error::of(self.address, error))?);
                }
            }
        }
        Ok(())
    }
}
