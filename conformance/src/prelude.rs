//! The names that most of the suite uses: entities, commands, what a backend takes, and the fixtures.

pub(crate) use std::collections::{BTreeMap, BTreeSet};
pub(crate) use std::fmt::{Debug, Display};
pub(crate) use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, Mutex};
pub(crate) use std::time::Duration;

pub(crate) use async_trait::async_trait;
pub(crate) use futures_util::future::join_all;
pub(crate) use futures_util::{FutureExt, StreamExt};
pub(crate) use ghostwire_store_core::backend::{
    Backend, Budget, Commit, Head, HeadChange, KeyChange, KeyRange, Row, Scan, ScanPage,
};
pub(crate) use ghostwire_store_core::block::{
    BlockBuilder, BlockHash, ChangeKind, EncodedBlock, RowChange, Serial,
};
pub(crate) use ghostwire_store_core::command::*;
pub(crate) use ghostwire_store_core::digest::{Digests, state_digest};
pub(crate) use ghostwire_store_core::domain::*;
pub(crate) use ghostwire_store_core::error::ErrorKind::*;
pub(crate) use ghostwire_store_core::feed::{Consumer, LogEntry};
pub(crate) use ghostwire_store_core::layer::{FaultKind, Layer};
pub(crate) use ghostwire_store_core::options::{
    ClockOptions, Materialize, StoreOptions, WriterOptions,
};
pub(crate) use ghostwire_store_core::position::{Epoch, Position};
pub(crate) use ghostwire_store_core::schema::{RowKey, Schema, Table};
pub(crate) use ghostwire_store_core::state::EntityId;
pub(crate) use ghostwire_store_core::{EntityKind, Error, ErrorKind, Result, Store};

pub(crate) use crate::case::{Check, Verdict, cases, check};
pub(crate) use crate::disk::{Disk, Frozen};
pub(crate) use crate::factory::{Factory, Opening, Place};
pub(crate) use crate::fixtures::*;
pub(crate) use crate::moving::KEEPS_BLOCKS;
pub(crate) use crate::rng::Rng;
pub(crate) use crate::stack::Stack;
pub(crate) use crate::suite::Effort;
pub(crate) use crate::test_env::{BEGINNING, Mode, TestEnv};
