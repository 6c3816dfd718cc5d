//! Control plane processes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{InstanceId, InstanceName, Timestamp};

/// A process of the control plane, which holds connections of nodes. It tells from time to time that it
/// is there, so that another one notices when it is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Drawn when it began; another one after a restart.
    pub id: InstanceId,
    /// Unique; the same after a restart.
    pub name: InstanceName,
    /// When it began.
    pub started_at: Timestamp,
    /// When it last said that it is there, to [`Instance::BEAT_SECONDS`].
    pub last_seen: Timestamp,
}

impl Instance {
    /// A sign of life is recorded at most once in so many seconds.
    pub const BEAT_SECONDS: u64 = 5;
    /// For less than two signs of life nobody is lost.
    pub const LEAST_UNSEEN: Duration = Duration::from_secs(2 * Self::BEAT_SECONDS);
    /// One that was not seen for longer, in the store's time, is taken for lost, unless whoever asks has
    /// reasons for another time.
    pub const LOST_AFTER: Duration = Duration::from_secs(30);
}
