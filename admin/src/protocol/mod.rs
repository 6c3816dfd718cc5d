//! What goes over the socket. `docs/admin-protocol.md` has the bytes.

mod failure;
mod frame;
mod message;
mod rows;
mod stored;

pub use failure::WireError;
pub use frame::{Frame, HEADER, Kind, MAGIC, MAX_PAYLOAD, header};
pub(crate) use frame::{Pace, read_frame, read_magic, write_frame, write_magic};
pub use message::*;
pub use rows::{Decoder, SelectedRow, Wire};
pub(crate) use stored::WireDigests;
pub use stored::{WireAttestation, WireHead, WireInfo};

/// The versions of the protocol that this build speaks, lowest first.
pub const VERSIONS: [u16; 2] = [1, 1];
