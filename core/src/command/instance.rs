//! Writes to instances, the processes of a control plane.

use super::Part;
use crate::domain::{InstanceId, InstanceName};

commands! {
    /// A write to instances.
    InstanceCommand {
        /// A process begins. Its former self of the same name is over: what that held is disconnected.
        BEGIN = "instance.begin" Begin {
            id: InstanceId,
            name: InstanceName,
            #[serde(default)]
            part: Part,
        },
        /// It is there. Recorded at most once in [`Instance::BEAT_SECONDS`](crate::domain::Instance).
        BEAT = "instance.beat" Beat { id: InstanceId },
        /// It ends in good order: what it held is disconnected.
        END = "instance.end" End { id: InstanceId, #[serde(default)] part: Part },
    }
}
