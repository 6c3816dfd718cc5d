//! Lines that wait for a thread of their own to write them: who logs waits for nobody who reads.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use crate::lock;

/// Bytes of lines that may wait. What comes on top is dropped, and counted.
const MOST_BYTES: usize = 1024 * 1024;

/// Where lines wait. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    /// Of those that wait and of the one that is being written.
    bytes: usize,
}

impl Queue {
    /// Begins to write to `to`. The thread lives as long as the process.
    pub(super) fn start(mut to: impl Write + Send + 'static) -> io::Result<Self> {
        let queue = Self(Arc::default());
        let shared = queue.0.clone();
        let write = move || {
            loop {
                let line = shared.next();
                if to.write_all(&line).and_then(|()| to.flush()).is_err() {
                    super::drop_line();
                }
                shared.wrote(line.len());
            }
        };
        std::thread::Builder::new().name("log".to_owned()).spawn(write)?;
        Ok(queue)
    }

    /// Waits until all that was logged is written, but no longer than this. Whether it was.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let waits = |state: &mut State| state.bytes > 0;
        let waited = self.0.written.wait_timeout_while(lock(&self.0.state), patience, waits);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Shared {
    fn push(&self, line: &[u8]) -> io::Result<()> {
        let mut state = lock(&self.state);
        if state.bytes + line.len() > MOST_BYTES {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.bytes += line.len();
        state.lines.push_back(line.to_owned());
        self.arrived.notify_one();
        Ok(())
    }

    fn next(&self) -> Vec<u8> {
        let mut state = lock(&self.state);
        loop {
            if let Some(line) = state.lines.pop_front() {
                return line;
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn wrote(&self, bytes: usize) {
        lock(&self.state).bytes -= bytes;
        self.written.notify_all();
    }
}

/// A line comes in one piece.
impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Queue {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Takes a line whenever it is allowed to.
    struct Reader {
        allowed: Receiver<()>,
        read: Sender<Vec<u8>>,
    }

    impl Write for Reader {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.allowed.recv().map_err(io::Error::other)?;
            self.read.send(line.to_owned()).map_err(io::Error::other)?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_a_reader_that_does_not_read() {
        let (allow, allowed) = channel();
        let (read, lines) = channel();
        let mut queue = Queue::start(Reader { allowed, read }).unwrap();
        let line = vec![b'x'; 1024];
        for _ in 0..MOST_BYTES / line.len() {
            queue.write_all(&line).unwrap();
        }
        let full = queue.write_all(&line).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert!(!queue.0.state.lock().unwrap().lines.is_empty());
        assert!(!Queue::flush(&queue, Duration::ZERO));
        for _ in 0..MOST_BYTES / line.len() {
            allow.send(()).unwrap();
        }
        assert!(Queue::flush(&queue, Duration::from_secs(60)));
        assert_eq!(lines.try_iter().count(), MOST_BYTES / line.len());
        queue.write_all(&line).unwrap();
    }
}
