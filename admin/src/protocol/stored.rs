//! Where a store stands and what its backend is, as it goes over the socket.

use data_encoding::HEXLOWER;
use ghostwire_store_core::backend::{
    Attestation, AttestedState, BackendCounters, BackendInfo, FileInfo, Filesystem, Head, LogInfo,
    PoolInfo, Resealed,
};
use ghostwire_store_core::block::{BlockHash, Serial};
use ghostwire_store_core::digest::Digest;
use ghostwire_store_core::domain::{
    BlockId, CommitId, LineageId, MigrationId, SideId, StoreId, Timestamp,
};
use ghostwire_store_core::migration::{Membership, Part, Role};
use ghostwire_store_core::position::{Epoch, Position};
use ghostwire_store_core::schema::SchemaVersion;
use ghostwire_store_core::secrets::KeyCheck;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::failure::known;

/// Bytes, as lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hex<const N: usize>([u8; N]);

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&HEXLOWER.encode(&self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(serde::de::Error::custom)?;
        let bytes = bytes.try_into().map_err(|_| serde::de::Error::custom("of another length"));
        bytes.map(Self)
    }
}

/// A [`Head`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireHead {
    store: Hex<16>,
    side: Hex<16>,
    lineage: Hex<16>,
    epoch: Epoch,
    position: Position,
    commit: Hex<16>,
    serial: Serial,
    block: Hex<16>,
    hash: Hex<32>,
    time: Timestamp,
    checkpoint: Serial,
    oldest_block: Serial,
    /// The version, and the oldest one that may read it.
    schema: [u32; 2],
    credential_key: Option<Hex<16>>,
    filling: bool,
    #[serde(default)]
    role: Option<u8>,
    #[serde(default)]
    membership: Option<WireMembership>,
}

/// A [`Membership`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct WireMembership {
    migration: Hex<16>,
    peer: Hex<16>,
    is_target: bool,
}

impl From<&Head> for WireHead {
    fn from(head: &Head) -> Self {
        Self {
            store: Hex(*head.store.as_bytes()),
            side: Hex(*head.side.as_bytes()),
            lineage: Hex(*head.lineage.as_bytes()),
            epoch: head.epoch,
            position: head.position,
            commit: Hex(*head.commit.as_bytes()),
            serial: head.serial,
            block: Hex(*head.block.as_bytes()),
            hash: Hex(*head.hash.as_bytes()),
            time: head.time,
            checkpoint: head.checkpoint,
            oldest_block: head.oldest_block,
            schema: [head.schema.version, head.schema.oldest_reader],
            credential_key: head.credential_key.map(|check| Hex(*check.as_bytes())),
            filling: head.filling,
            role: head.role.map(Role::number),
            membership: head.membership.map(|it| WireMembership {
                migration: Hex(*it.migration.as_bytes()),
                peer: Hex(*it.peer.as_bytes()),
                is_target: it.part == Part::Target,
            }),
        }
    }
}

impl From<WireHead> for Head {
    fn from(wire: WireHead) -> Self {
        let [version, oldest_reader] = wire.schema;
        Self {
            store: StoreId::from_bytes(wire.store.0),
            side: SideId::from_bytes(wire.side.0),
            lineage: LineageId::from_bytes(wire.lineage.0),
            epoch: wire.epoch,
            position: wire.position,
            commit: CommitId::from_bytes(wire.commit.0),
            serial: wire.serial,
            block: BlockId::from_bytes(wire.block.0),
            hash: BlockHash::from_bytes(wire.hash.0),
            time: wire.time,
            checkpoint: wire.checkpoint,
            oldest_block: wire.oldest_block,
            schema: SchemaVersion { version, oldest_reader },
            credential_key: wire.credential_key.map(|check| KeyCheck::from_bytes(check.0)),
            filling: wire.filling,
            role: wire.role.and_then(Role::of_number),
            membership: wire.membership.map(|it| Membership {
                migration: MigrationId::from_bytes(it.migration.0),
                peer: SideId::from_bytes(it.peer.0),
                part: if it.is_target { Part::Target } else { Part::Source },
            }),
        }
    }
}

/// A [`BackendInfo`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireInfo {
    name: String,
    engine: String,
    location: Option<String>,
    durable: bool,
    shared: bool,
    sealed: bool,
    pinned: bool,
    signer: Option<String>,
    resealed: Option<Resealed>,
    bytes: Option<u64>,
    #[serde(default)]
    file: Option<FileInfo>,
    #[serde(default)]
    filesystem: Option<Filesystem>,
    #[serde(default)]
    clock_ahead_ms: Option<i64>,
    #[serde(default)]
    pool: Option<PoolInfo>,
    log: Option<LogInfo>,
    counters: BackendCounters,
}

impl From<BackendInfo> for WireInfo {
    fn from(info: BackendInfo) -> Self {
        Self {
            name: info.name.to_owned(),
            engine: info.engine,
            location: info.location,
            durable: info.durable,
            shared: info.shared,
            sealed: info.sealed,
            pinned: info.pinned,
            signer: info.signer,
            resealed: info.resealed,
            bytes: info.bytes,
            file: info.file,
            filesystem: info.filesystem,
            clock_ahead_ms: info.clock_ahead_ms,
            pool: info.pool,
            log: info.log,
            counters: info.counters,
        }
    }
}

impl From<WireInfo> for BackendInfo {
    fn from(wire: WireInfo) -> Self {
        Self {
            name: known(&wire.name),
            engine: wire.engine,
            location: wire.location,
            durable: wire.durable,
            shared: wire.shared,
            sealed: wire.sealed,
            pinned: wire.pinned,
            signer: wire.signer,
            resealed: wire.resealed,
            bytes: wire.bytes,
            file: wire.file,
            filesystem: wire.filesystem,
            clock_ahead_ms: wire.clock_ahead_ms,
            pool: wire.pool,
            log: wire.log,
            counters: wire.counters,
        }
    }
}

/// An [`Attestation`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireAttestation {
    epoch: Epoch,
    position: Position,
    serial: Serial,
    hash: Hex<32>,
    time: Timestamp,
    digest: Hex<32>,
    signer: String,
    text: String,
}

impl From<Attestation> for WireAttestation {
    fn from(attestation: Attestation) -> Self {
        let Attestation { state, signer, text } = attestation;
        Self {
            epoch: state.epoch,
            position: state.position,
            serial: state.serial,
            hash: Hex(*state.hash.as_bytes()),
            time: state.time,
            digest: Hex(*state.digest.as_bytes()),
            signer,
            text,
        }
    }
}

impl From<WireAttestation> for Attestation {
    fn from(wire: WireAttestation) -> Self {
        let state = AttestedState {
            epoch: wire.epoch,
            position: wire.position,
            serial: wire.serial,
            hash: BlockHash::from_bytes(wire.hash.0),
            time: wire.time,
            digest: Digest::from_bytes(wire.digest.0),
        };
        Self { state, signer: wire.signer, text: wire.text }
    }
}

/// The digests of everything stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireDigests {
    state: Hex<32>,
    metrics: Hex<32>,
    audit: Hex<32>,
}

impl From<ghostwire_store_core::digest::Digests> for WireDigests {
    fn from(digests: ghostwire_store_core::digest::Digests) -> Self {
        let hex = |digest: Digest| Hex(*digest.as_bytes());
        Self { state: hex(digests.state), metrics: hex(digests.metrics), audit: hex(digests.audit) }
    }
}

impl From<WireDigests> for ghostwire_store_core::digest::Digests {
    fn from(wire: WireDigests) -> Self {
        let digest = |hex: Hex<32>| Digest::from_bytes(hex.0);
        Self { state: digest(wire.state), metrics: digest(wire.metrics), audit: digest(wire.audit) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ghostwire_store_core::schema::Schema;

    use super::*;

    #[test]
    fn a_head_comes_as_it_went() {
        let mut head = Head::genesis(StoreId::from_bytes([7; 16]), Schema::current());
        head.credential_key = Some(KeyCheck::from_bytes([3; 16]));
        head.hash = BlockHash::from_bytes([200; 32]);
        let text = serde_json::to_string(&WireHead::from(&head)).unwrap();
        let came: WireHead = serde_json::from_str(&text).unwrap();
        assert_eq!(Head::from(came), head);
        serde_json::from_str::<WireHead>(&text.replace("c8c8", "c8")).unwrap_err();
    }
}
