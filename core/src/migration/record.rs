//! What a database says of its part in a network.

use std::fmt;

use crate::domain::{MigrationId, SideId};
use crate::position::Epoch;

/// What a database is to its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Nothing: it is empty, or has what an aborted migration left.
    None,
    /// Is filled as a copy, and not complete.
    Filling,
    /// Follows; what is answered it may not have yet.
    PassiveAsync,
    /// Follows; has everything that is answered.
    PassiveSync,
    /// Is written, and nobody follows.
    ActiveAlone,
    /// Is written, and somebody follows later.
    ActiveAsync,
    /// Is written together with the one that follows.
    ActiveSync,
    /// Was written, and is not any more: the other side takes over from exactly here.
    Fenced,
    /// Was left for the other side, for good.
    Retired,
}

impl Role {
    const ALL: [Self; 9] = [
        Self::None,
        Self::Filling,
        Self::PassiveAsync,
        Self::PassiveSync,
        Self::ActiveAlone,
        Self::ActiveAsync,
        Self::ActiveSync,
        Self::Fenced,
        Self::Retired,
    ];

    /// The number by which it is stored; never 0.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::None => 1,
            Self::Filling => 2,
            Self::PassiveAsync => 3,
            Self::PassiveSync => 4,
            Self::ActiveAlone => 5,
            Self::ActiveAsync => 6,
            Self::ActiveSync => 7,
            Self::Fenced => 8,
            Self::Retired => 9,
        }
    }

    /// The one with this number.
    #[must_use]
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.number() == number)
    }

    /// Its name, as it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Filling => "filling",
            Self::PassiveAsync => "passive(async)",
            Self::PassiveSync => "passive(sync)",
            Self::ActiveAlone => "active(alone)",
            Self::ActiveAsync => "active(async)",
            Self::ActiveSync => "active(sync)",
            Self::Fenced => "fenced",
            Self::Retired => "retired",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Whether commits that change content may be stored at all, by a writer or by what copies to it.
    #[must_use]
    pub fn admits_content(self) -> bool {
        !matches!(self, Self::None | Self::Fenced | Self::Retired)
    }

    /// Whether it is the one that is written.
    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(self, Self::ActiveAlone | Self::ActiveAsync | Self::ActiveSync)
    }

    /// Whether whoever sees this side alone may write to it.
    #[must_use]
    pub fn serves_alone(self) -> bool {
        matches!(self, Self::ActiveAlone | Self::ActiveAsync)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where a migration leads from and to. It stays what it is, whichever side is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Where the network was.
    Source,
    /// Where it is to be.
    Target,
}

impl Part {
    /// As it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Target => "target",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Source, Self::Target].into_iter().find(|part| part.name() == name)
    }

    /// That of the other side.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Source => Self::Target,
            Self::Target => Self::Source,
        }
    }
}

/// The migration that a database is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Membership {
    /// Which migration.
    pub migration: MigrationId,
    /// The other database.
    pub peer: SideId,
    /// Which end of it this one is.
    pub part: Part,
}

/// What a database says of itself: one value, which is changed as a whole, by whoever has seen it as it
/// was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Record {
    /// Who may write: the higher one holds.
    pub epoch: Epoch,
    /// What the database is.
    pub role: Role,
    /// Of which migration; `None` where there is none, or no longer.
    pub membership: Option<Membership>,
}

impl Record {
    /// As it is with this role.
    #[must_use]
    pub fn with(self, role: Role) -> Self {
        Self { role, ..self }
    }

    /// As it is with this role in a later epoch.
    #[must_use]
    pub fn from_epoch(self, epoch: Epoch, role: Role) -> Self {
        Self { epoch, role, ..self }
    }

    /// Written alone, and part of no migration.
    #[must_use]
    pub fn released(self) -> Self {
        Self { role: Role::ActiveAlone, membership: None, ..self }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in epoch {}", self.role, self.epoch)?;
        match self.membership {
            Some(Membership { migration, peer, part }) => {
                write!(f, ", {} of migration {migration} with side {peer}", part.name())
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_a_number_and_a_name_of_its_own() {
        for role in Role::ALL {
            assert_eq!(Role::of_number(role.number()), Some(role));
            assert_eq!(Role::named(role.name()), Some(role));
        }
        assert_eq!((Role::of_number(0), Role::of_number(10)), (None, None));
        for part in [Part::Source, Part::Target] {
            assert_eq!(Part::named(part.name()), Some(part));
        }
        assert_eq!((Role::named("active"), Part::named("")), (None, None));
    }
}
