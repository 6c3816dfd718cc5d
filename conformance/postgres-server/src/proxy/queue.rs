//! When what passes in one direction is due: no sockets and no clock in here.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// What happens to what passes in one direction. Nothing, as it is made.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shape {
    pub(super) cut: bool,
    pub(super) delay: Duration,
    pub(super) bytes_per_second: Option<u64>,
}

impl Shape {
    /// How much to read at once, so that little passes at a time where little may.
    pub(super) fn piece(&self) -> usize {
        const WHOLE: usize = 64 * 1024;
        match self.bytes_per_second {
            None => WHOLE,
            Some(rate) => usize::try_from(rate / 20).unwrap_or(WHOLE).clamp(1, WHOLE),
        }
    }
}

/// Pieces on their way, in order.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// When the last one went, and how long it was.
    last: Option<(Instant, usize)>,
}

#[derive(Debug)]
struct Piece {
    arrived: Instant,
    /// None is the end.
    bytes: Option<Vec<u8>>,
}

impl Queue {
    /// As much as a connection holds on its way.
    pub(super) const LIMIT: usize = 256 * 1024;

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= Self::LIMIT
    }

    pub(super) fn push(&mut self, arrived: Instant, bytes: Option<Vec<u8>>) {
        self.bytes += bytes.as_ref().map_or(0, Vec::len);
        self.pieces.push_back(Piece { arrived, bytes });
    }

    /// When the first one may pass. It does not while the direction is cut.
    pub(super) fn due(&self, shape: Shape) -> Option<Instant> {
        let first = self.pieces.front()?;
        if shape.cut {
            return None;
        }
        let delayed = first.arrived + shape.delay;
        match (shape.bytes_per_second, self.last) {
            (Some(rate), Some((at, length))) => {
                let seconds = length as f64 / rate.max(1) as f64;
                Some(delayed.max(at + Duration::from_secs_f64(seconds)))
            }
            _ => Some(delayed),
        }
    }

    /// The first one, which passes now. None within is the end.
    pub(super) fn take(&mut self, now: Instant) -> Option<Option<Vec<u8>>> {
        let piece = self.pieces.pop_front()?;
        let length = piece.bytes.as_ref().map_or(0, Vec::len);
        self.bytes -= length;
        self.last = Some((now, length));
        Some(piece.bytes)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn queue(now: Instant, pieces: &[usize]) -> Queue {
        let mut queue = Queue::default();
        for length in pieces {
            queue.push(now, Some(vec![0; *length]));
        }
        queue
    }

    #[test]
    fn by_itself_everything_is_due_when_it_arrives() {
        let now = Instant::now();
        assert_eq!(queue(now, &[]).due(Shape::default()), None);
        assert_eq!(queue(now, &[1]).due(Shape::default()), Some(now));
    }

    #[test]
    fn a_delay_counts_from_arrival_so_pieces_do_not_wait_for_each_other() {
        let now = Instant::now();
        let shape = Shape { delay: 3 * SECOND, ..Shape::default() };
        let mut queue = queue(now, &[10, 10]);
        assert_eq!(queue.due(shape), Some(now + 3 * SECOND));
        queue.take(now + 3 * SECOND);
        assert_eq!(queue.due(shape), Some(now + 3 * SECOND));
        assert_eq!(queue.due(Shape::default()), Some(now), "taken back, it holds nothing up");
    }

    #[test]
    fn a_rate_keeps_each_piece_back_for_the_length_of_the_one_before() {
        let now = Instant::now();
        let shape = Shape { bytes_per_second: Some(10), ..Shape::default() };
        let mut queue = queue(now, &[20, 10, 5]);
        assert_eq!(queue.due(shape), Some(now));
        queue.take(now);
        assert_eq!(queue.due(shape), Some(now + 2 * SECOND));
        queue.take(now + 2 * SECOND);
        assert_eq!(queue.due(shape), Some(now + 3 * SECOND));
        let stopped = Shape { bytes_per_second: Some(0), ..Shape::default() };
        assert!(
            queue.due(stopped) > Some(now + 3 * SECOND),
            "a rate of nothing divides by nothing"
        );
        assert_eq!((shape.piece(), stopped.piece()), (1, 1));
    }

    #[test]
    fn what_is_cut_is_never_due_and_the_order_stays() {
        let now = Instant::now();
        let mut queue = queue(now, &[Queue::LIMIT, 1]);
        queue.push(now, None);
        assert!(queue.is_full());
        assert_eq!(queue.due(Shape { cut: true, ..Shape::default() }), None);
        assert_eq!(queue.take(now).unwrap().unwrap().len(), Queue::LIMIT);
        assert!(!queue.is_full());
        assert_eq!(queue.take(now).unwrap().unwrap().len(), 1);
        assert_eq!(queue.take(now), Some(None), "the end is last");
        assert_eq!(queue.take(now), None);
    }
}
