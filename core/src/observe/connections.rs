//! What a backend tells of its connections, as events.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{ConnectionStep, Event, Recorder};
use crate::backend::ConnectionObserver;

/// Tells a recorder.
pub(crate) struct ConnectionEvents(pub(crate) Arc<dyn Recorder>);

impl fmt::Debug for ConnectionEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionEvents")
    }
}

impl ConnectionEvents {
    fn tell(&self, step: ConnectionStep, took: Duration) {
        self.0.record(&Event::Connection { step, took });
    }
}

impl ConnectionObserver for ConnectionEvents {
    fn created(&self, took: Duration) {
        self.tell(ConnectionStep::Created, took);
    }

    fn waited(&self, took: Duration) {
        self.tell(ConnectionStep::Waited, took);
    }

    fn used(&self, took: Duration) {
        self.tell(ConnectionStep::Used, took);
    }
}
