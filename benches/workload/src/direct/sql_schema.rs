//! The tables that a schema by hand would have, for SQLite in all its wrappings.

/// One statement each. The columns of this store, and an index for each uniqueness.
pub const TABLES: [&str; 9] = [
    "CREATE TABLE IF NOT EXISTS users (
        id BLOB NOT NULL PRIMARY KEY, name TEXT NOT NULL UNIQUE, created_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS nodes (
        id BLOB NOT NULL PRIMARY KEY,
        user BLOB, tags TEXT NOT NULL, hostname TEXT NOT NULL,
        label TEXT NOT NULL UNIQUE,
        machine_key BLOB NOT NULL UNIQUE,
        node_key BLOB NOT NULL UNIQUE,
        disco_key BLOB,
        ipv4 TEXT UNIQUE,
        ipv6 TEXT UNIQUE,
        host_info TEXT NOT NULL, register_method TEXT NOT NULL, preauth_key BLOB,
        ephemeral INTEGER NOT NULL, expires_at INTEGER, created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL, revision INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS presence (
        node BLOB NOT NULL PRIMARY KEY, session INTEGER NOT NULL, online INTEGER NOT NULL,
        last_seen INTEGER NOT NULL, endpoints TEXT NOT NULL
    ) STRICT, WITHOUT ROWID",
    // The prefix as its network's four bytes and its length, so that candidates are looked up.
    "CREATE TABLE IF NOT EXISTS routes (
        id BLOB NOT NULL PRIMARY KEY, node BLOB NOT NULL, prefix BLOB NOT NULL,
        advertised INTEGER NOT NULL, approved INTEGER NOT NULL, is_primary INTEGER NOT NULL,
        created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, revision INTEGER NOT NULL,
        UNIQUE (prefix, node)
    ) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS preauth_keys (
        id BLOB NOT NULL PRIMARY KEY, prefix TEXT NOT NULL UNIQUE, hash BLOB NOT NULL,
        user BLOB NOT NULL, used_at INTEGER, created_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS api_keys (
        id BLOB NOT NULL PRIMARY KEY, prefix TEXT NOT NULL UNIQUE, hash BLOB NOT NULL,
        user BLOB NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS policies (
        version INTEGER NOT NULL PRIMARY KEY, document TEXT NOT NULL, created_at INTEGER NOT NULL
    ) STRICT",
    "CREATE TABLE IF NOT EXISTS audit (
        at INTEGER NOT NULL, id BLOB NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
        entity TEXT NOT NULL, subject TEXT NOT NULL, PRIMARY KEY (at, id)
    ) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS metrics (
        node BLOB NOT NULL, metric TEXT NOT NULL, at INTEGER NOT NULL, value REAL NOT NULL,
        PRIMARY KEY (node, metric, at)
    ) STRICT, WITHOUT ROWID",
];

pub(super) const INSERT_USER: &str = "INSERT INTO users VALUES (?, ?, ?)";
pub(super) const INSERT_NODE: &str =
    "INSERT INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
pub(super) const INSERT_PRESENCE: &str = "INSERT INTO presence VALUES (?, ?, ?, ?, ?)";
pub(super) const INSERT_ROUTE: &str = "INSERT INTO routes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
pub(super) const INSERT_PREAUTH_KEY: &str = "INSERT INTO preauth_keys VALUES (?, ?, ?, ?, ?, ?, ?)";
pub(super) const INSERT_API_KEY: &str = "INSERT INTO api_keys VALUES (?, ?, ?, ?, ?, ?)";
pub(super) const INSERT_POLICY: &str = "INSERT INTO policies VALUES (?, ?, ?)";
pub(super) const INSERT_AUDIT: &str = "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)";
pub(super) const INSERT_POINT: &str = "INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, ?)";

pub(super) const FIND_PREAUTH_KEY: &str =
    "SELECT id, hash, user, used_at, expires_at FROM preauth_keys WHERE prefix = ?";
pub(super) const USE_PREAUTH_KEY: &str =
    "UPDATE preauth_keys SET used_at = ? WHERE id = ? AND used_at IS NULL";
pub const BEAT: &str =
    "UPDATE presence SET last_seen = ? WHERE node = ? AND session = 1 AND online = 1";
pub const MOVE: &str = "UPDATE presence SET last_seen = ?, endpoints = ? \
     WHERE node = ? AND session = 1 AND online = 1";

pub const COUNT_NODES: &str = "SELECT count(*) FROM nodes";
pub(super) const NODE_BY_ID: &str = "SELECT * FROM nodes WHERE id = ?";
pub(super) const NODE_BY_KEY: &str = "SELECT * FROM nodes WHERE node_key = ?";
pub(super) const NODE_BY_LABEL: &str = "SELECT * FROM nodes WHERE label = ?";
pub(super) const ONLINE_NODES: &str = "SELECT n.* FROM nodes n JOIN presence p ON p.node = n.id \
     WHERE p.online = 1 AND n.id > ? ORDER BY n.id LIMIT 1000";
pub(super) const NODES_WITH_PRESENCE: &str = "SELECT n.*, p.session, p.online, p.last_seen, \
     p.endpoints FROM nodes n LEFT JOIN presence p ON p.node = n.id WHERE n.id <> ? ORDER BY n.id";
pub(super) const ROUTES_IN_USE: &str =
    "SELECT * FROM routes WHERE advertised = 1 AND approved = 1 ORDER BY id";
pub(super) const USERS: &str = "SELECT * FROM users ORDER BY id";
pub(super) const POLICY: &str = "SELECT document FROM policies ORDER BY version DESC LIMIT 1";
pub(super) const PRINCIPALS: &str = "SELECT id, user, tags, ipv4, ipv6 FROM nodes ORDER BY id";
/// One lookup in the index for each length that a prefix can have.
pub(super) const ROUTE: &str = "SELECT * FROM routes WHERE prefix IN \
     (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
     AND is_primary = 1 ORDER BY substr(prefix, 5) DESC LIMIT 1";
pub(super) const API_KEY: &str = "SELECT hash, expires_at FROM api_keys WHERE prefix = ?";
pub(super) const POINTS: &str = "SELECT * FROM metrics WHERE node = ? AND metric = ? AND at >= ? \
     AND at < ? ORDER BY at LIMIT 1000";
pub(super) const AUDIT_PAGE: &str =
    "SELECT * FROM audit WHERE at >= ? AND at < ? ORDER BY at DESC, id DESC LIMIT 100";
