#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod dumps;
mod odd;
mod sources;

use std::path::Path;
use std::sync::Arc;

use ghostwire_store_core::block::BlockBuilder;
use ghostwire_store_core::command::{Command, EntityRecord, Restore};
use ghostwire_store_core::domain::SecretHash;
use ghostwire_store_core::domain::{
    Actor, ApiKey, Node, Policy, PreAuthKey, Presence, Route, Timestamp, User,
};
use ghostwire_store_core::state::{Context, State};
use rusqlite::Connection;

use super::*;

/// Not a hash worth the name, but one by which tests can tell keys apart.
fn hasher(key: &str) -> SecretHash {
    let mut mac = [0; 32];
    for (at, byte) in key.bytes().enumerate() {
        mac[at % 32] ^= byte;
    }
    SecretHash::hmac([1; 4], mac)
}

fn read_file(path: &Path) -> Result<Import> {
    let now = "2026-06-01T00:00:00Z".parse().unwrap();
    read(path, now, &[], &hasher)
}

fn read_text(text: &str) -> Result<Import> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dump.sql");
    std::fs::write(&path, text).unwrap();
    read_file(&path)
}

/// A dump in the schema of 0.26, with these statements in it.
fn dump(statements: &str) -> String {
    const SCHEMA: &str = "
        CREATE TABLE migrations(id text, PRIMARY KEY(id));
        INSERT INTO migrations VALUES('202502131714');
        INSERT INTO migrations VALUES('202505141324');
        CREATE TABLE users(id integer PRIMARY KEY AUTOINCREMENT, name text, display_name text, email text,
          provider_identifier text, provider text, profile_pic_url text, created_at datetime,
          updated_at datetime, deleted_at datetime);
        CREATE TABLE pre_auth_keys(id integer PRIMARY KEY AUTOINCREMENT, key text, user_id integer,
          reusable numeric, ephemeral numeric DEFAULT false, used numeric DEFAULT false, tags text,
          expiration datetime, created_at datetime, prefix text, hash blob);
        CREATE TABLE api_keys(id integer PRIMARY KEY AUTOINCREMENT, prefix text, hash blob,
          expiration datetime, last_seen datetime, created_at datetime, user_id integer);
        CREATE TABLE nodes(id integer PRIMARY KEY AUTOINCREMENT, machine_key text, node_key text,
          disco_key text, endpoints text, host_info text, ipv4 text, ipv6 text, hostname text,
          given_name varchar(63), user_id integer, register_method text, forced_tags text,
          auth_key_id integer, last_seen datetime, expiry datetime, approved_routes text,
          created_at datetime, updated_at datetime, deleted_at datetime, ip_addresses text);
        CREATE TABLE policies(id integer PRIMARY KEY AUTOINCREMENT, data text, created_at datetime,
          updated_at datetime, deleted_at datetime);
        INSERT INTO users(id, name, created_at) VALUES(1, 'ann', '2024-01-01 00:00:00+00:00');";
    format!("PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n{SCHEMA}\n{statements}\nCOMMIT;\n")
}

fn import(statements: &str) -> Import {
    read_text(&dump(statements)).unwrap()
}

/// A node as it should be, with these columns set otherwise; `id` is a digit.
fn node_row(id: i64, changes: &[(&str, &str)]) -> String {
    let key = |prefix: &str| format!("'{prefix}:{}'", format!("{id:02x}").repeat(32));
    let mut columns = vec![
        ("id", id.to_string()),
        ("machine_key", key("mkey")),
        ("node_key", key("nodekey")),
        ("disco_key", key("discokey")),
        ("endpoints", "'[]'".into()),
        ("host_info", "'{}'".into()),
        ("ipv4", format!("'100.64.0.{id}'")),
        ("hostname", format!("'host{id}'")),
        ("given_name", format!("'host{id}'")),
        ("user_id", "1".into()),
        ("register_method", "'cli'".into()),
        ("created_at", "'2024-01-02 00:00:00+00:00'".into()),
    ];
    for (name, value) in changes {
        columns.retain(|(column, _)| column != name);
        columns.push((name, (*value).to_owned()));
    }
    let (names, values): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    format!("INSERT INTO nodes({}) VALUES({});\n", names.join(","), values.join(","))
}

macro_rules! entities {
    ($($function:ident, $variant:ident, $type:ty;)+) => {
        impl Import {$(
            fn $function(&self) -> Vec<Arc<$type>> {
                let of_kind = |image: &EntityRecord| match image {
                    EntityRecord::$variant(entity) => Some(entity.clone()),
                    _ => None,
                };
                self.images.iter().filter_map(of_kind).collect()
            }
        )+}
    };
}
entities! {
    users, User, User;
    preauth_keys, PreAuthKey, PreAuthKey;
    nodes, Node, Node;
    presences, Presence, Presence;
    routes, Route, Route;
    api_keys, ApiKey, ApiKey;
    policies, Policy, Policy;
}

impl Import {
    /// The reason why a row was left out; fails unless it is the only one.
    fn only_problem(&self) -> (&'static str, i64, &str) {
        let problems = &self.findings.problems;
        assert_eq!(problems.len(), 1, "{problems:?}");
        (problems[0].table, problems[0].id, &problems[0].reason)
    }

    /// All that is said beside problems.
    fn said(&self) -> Vec<String> {
        let Findings { repaired, left_over, notes, .. } = &self.findings;
        [grouped(repaired), grouped(left_over), notes.clone()].concat()
    }

    fn has_note(&self, part: &str) -> bool {
        self.said().iter().any(|note| note.contains(part))
    }

    /// The rows of these findings, with part of what is said of each.
    fn is_left_over(&self, table: &str, id: i64, part: &str) -> bool {
        let left_over = &self.findings.left_over;
        left_over
            .iter()
            .any(|found| (found.table, found.id) == (table, id) && found.reason.contains(part))
    }

    /// Fails unless a store takes everything as it is.
    fn assert_restorable(&self) {
        let restore = Restore { images: self.images.clone(), skip_invalid: false };
        let actor = Actor::system();
        let context = Context { now: Timestamp::EPOCH, actor: &actor, seed: [0; 10] };
        let block = &mut BlockBuilder::default();
        State::default().execute(&Command::Restore(restore), &context, block).unwrap();
    }
}

#[track_caller]
fn assert_refused(result: Result<Import>, parts: &[&str]) {
    let error = result.map(|import| import.images.len()).unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}
