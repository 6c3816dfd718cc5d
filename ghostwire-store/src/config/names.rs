//! The closed vocabularies of the configuration: every value that is one of a few names.

use ghostwire_store_core::options::Materialize;

/// Writes an enum whose values have one spelling each, so that parsing, printing, hints and the
/// documentation cannot disagree about it.
macro_rules! named_enum {
    (
        $(#[$about:meta])*
        $name:ident { $( $(#[$variant_about:meta])* $variant:ident = $text:literal ),+ $(,)? }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum $name {
            $( $(#[$variant_about])* $variant, )+
        }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$( Self::$variant ),+];

            /// The spelling of every value, in the same order.
            pub const NAMES: &'static [&'static str] = &[$( $text ),+];

            /// The spelling in files, variables and messages.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$variant => $text, )+
                }
            }

            /// The value with exactly this spelling.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $( $text => Some(Self::$variant), )+
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

named_enum! {
    /// Which backend remembers the state.
    BackendKind {
        /// Blobs in one local file; not encrypted in this release.
        Zqlite = "zqlite",
        /// Real tables in one local file, which any SQLite tool reads.
        Libsql = "libsql",
        /// A PostgreSQL database, which several control planes may share.
        Postgres = "postgres",
        /// Nothing is kept; for tests.
        Memory = "memory",
    }
}

impl BackendKind {
    /// The Cargo feature of `ghostwire-store` that compiles this backend in.
    #[must_use]
    pub const fn cargo_feature(self) -> &'static str {
        self.name()
    }
}

named_enum! {
    /// What a zqlite store runs on.
    ZqliteEngine {
        /// The SQLite core that is linked in.
        Embedded = "embedded",
        /// The ZQLite library, in a process of its own.
        Native = "native",
    }
}

named_enum! {
    /// Who may read and write the admin socket, beside root.
    SocketMode {
        /// Its owner.
        Owner = "0600",
        /// Its owner and its group.
        Group = "0660",
    }
}

named_enum! {
    /// When the pin of a zqlite store is moved.
    PinMode {
        /// It has none.
        Off = "off",
        /// After each commit, before anybody is answered.
        Commit = "commit",
    }
}

named_enum! {
    /// How the connection to a database server is protected.
    PostgresTls {
        /// By a certificate of a known authority for the server's name.
        VerifyFull = "verify-full",
        /// By a certificate of a known authority, whatever its name.
        VerifyCa = "verify-ca",
        /// Not at all; over a Unix socket and to this machine only.
        Off = "off",
    }
}

named_enum! {
    /// What to do about a server that may forget what it confirmed.
    PostgresDurability {
        /// Refuse it.
        Required = "required",
        /// Use it all the same.
        Unsafe = "unsafe",
    }
}

/// The spellings of [`Materialize`].
pub(super) const MATERIALIZE: &[&str] = &["commit", "checkpoint"];

pub(super) const fn name_of(materialize: Materialize) -> &'static str {
    match materialize {
        Materialize::Commit => "commit",
        Materialize::Checkpoint => "checkpoint",
    }
}

pub(super) fn materialize_named(name: &str) -> Option<Materialize> {
    [Materialize::Commit, Materialize::Checkpoint].into_iter().find(|it| name_of(*it) == name)
}

named_enum! {
    /// The parts of the data that may one day live in different stores.
    Role {
        /// Users, nodes, routes, policies, DNS.
        Core = "core",
        /// API keys, pre-auth keys, sessions.
        Secrets = "secrets",
        /// Metrics and audit.
        Telemetry = "telemetry",
    }
}

named_enum! {
    /// How far a move between two stores may go.
    MigrationStage {
        /// None may begin.
        None = "none",
        /// The target follows the source, which is served.
        Mirror = "mirror",
        /// The target is served, and the source follows: there is a way back.
        TargetReads = "target-reads",
        /// The source may be left for good.
        TargetOnly = "target-only",
    }
}

named_enum! {
    /// How a line of the log is written.
    LogFormat {
        /// For people.
        Text = "text",
        /// An object a line.
        Json = "json",
    }
}

named_enum! {
    /// The least level of a line of the log.
    LogLevelName {
        /// Nothing is logged.
        Off = "off",
        /// What failed.
        Error = "error",
        /// What should be looked at.
        Warn = "warn",
        /// Every change of state.
        Info = "info",
        /// What the store does in detail.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

named_enum! {
    /// Whether a switch takes part, in flagd's spelling.
    SwitchState {
        /// The default variant decides.
        Enabled = "ENABLED",
        /// As if the switch were not declared.
        Disabled = "DISABLED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_correspond() {
        assert_eq!(BackendKind::ALL.len(), BackendKind::NAMES.len());
        for kind in BackendKind::ALL {
            assert_eq!(BackendKind::from_name(kind.name()), Some(*kind));
            assert_eq!(kind.to_string(), kind.cargo_feature());
        }
        assert_eq!(BackendKind::from_name("Libsql"), None);
        let there_and_back = |name: &&str| materialize_named(name).map(name_of) == Some(*name);
        assert!(MATERIALIZE.iter().all(there_and_back));
    }
}
