//! Settings: documents with a default each.

use std::sync::LazyLock;
use std::time::Duration;

use super::State;
use super::collection::Collection;
use super::decision::{Context, Decision, Reply, check_revision};
use crate::command::SettingCommand;
use crate::domain::{
    DerpMap, DnsSettings, NetworkSettings, Revision, Setting, SettingDocument, SettingKind,
};
use crate::entity::{Rules, dates};
use crate::error::{EntityKind, Error, ErrorKind, Result};

/// All settings that differ from their defaults.
pub type Settings = Collection<Setting, ()>;

impl Settings {
    /// Address ranges and lifetimes in force.
    #[must_use]
    pub fn network(&self) -> &NetworkSettings {
        static DEFAULT: LazyLock<NetworkSettings> = LazyLock::new(NetworkSettings::default);
        match self.get(SettingKind::Network).map(|setting| &setting.document) {
            Some(SettingDocument::Network(network)) => network,
            _ => &DEFAULT,
        }
    }

    /// How long a heartbeat that says nothing new goes unrecorded after the last one that was recorded.
    pub(super) fn heartbeat_interval(&self) -> Duration {
        Duration::from_secs(self.network().heartbeat_interval_seconds.into())
    }

    /// Relay servers in force.
    #[must_use]
    pub fn derp_map(&self) -> &DerpMap {
        static DEFAULT: LazyLock<DerpMap> = LazyLock::new(DerpMap::default);
        match self.get(SettingKind::DerpMap).map(|setting| &setting.document) {
            Some(SettingDocument::DerpMap(map)) => map,
            _ => &DEFAULT,
        }
    }

    /// Resolvers and search domains in force.
    #[must_use]
    pub fn dns(&self) -> &DnsSettings {
        static DEFAULT: LazyLock<DnsSettings> = LazyLock::new(DnsSettings::default);
        match self.get(SettingKind::Dns).map(|setting| &setting.document) {
            Some(SettingDocument::Dns(dns)) => dns,
            _ => &DEFAULT,
        }
    }
}

impl Rules for Setting {
    dates! { events: updated_at; ends: }

    fn check_beside(&self, _: &State) -> Result<()> {
        self.document.check()
    }
}

pub(crate) fn decide(
    state: &State,
    command: &SettingCommand,
    context: &Context<'_>,
) -> Result<Decision> {
    match command {
        SettingCommand::Put { document, expected } => put(state, document, *expected, context),
        SettingCommand::Reset { kind } => reset(state, *kind, context),
    }
}

/// The default becomes the next revision. Were the document removed, the next one would count from 1 again,
/// and what somebody read before would seem to be in force still.
fn reset(state: &State, kind: SettingKind, context: &Context<'_>) -> Result<Decision> {
    let old = state.settings().require(kind)?;
    if old.document.is_default() {
        let error = Error::not_found(EntityKind::Setting, kind);
        return Err(error.with("help", "it is at its default"));
    }
    let mut decision = Decision::put(Setting {
        document: SettingDocument::default_of(kind),
        revision: old.revision.next(),
        updated_at: context.now,
    });
    decision.reply = Reply::Done;
    Ok(decision.noting(SettingCommand::RESET, EntityKind::Setting, kind))
}

fn put(
    state: &State,
    document: &SettingDocument,
    expected: Option<Revision>,
    context: &Context<'_>,
) -> Result<Decision> {
    document.check()?;
    let kind = document.kind();
    let old = state.settings().get(kind);
    match (old, expected) {
        (Some(old), expected) => check_revision(EntityKind::Setting, kind, old.revision, expected)?,
        (None, Some(expected)) => {
            let message = "is at its default; it has no revision yet";
            return Err(Error::new(ErrorKind::Conflict, message)
                .about(EntityKind::Setting)
                .with("kind", kind)
                .with("expected_revision", expected));
        }
        (None, None) => {}
    }
    if let Some(old) = old
        && old.document == *document
    {
        return Ok(Decision::unchanged(Reply::Setting(old.clone())));
    }
    let revision = old.map_or(Revision::FIRST, |old| old.revision.next());
    let document = document.clone();
    let decision = Decision::put(Setting { document, revision, updated_at: context.now });
    Ok(decision.noting(SettingCommand::PUT, EntityKind::Setting, kind))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::state::testing::*;

    #[test]
    fn a_smaller_network_gives_addresses_until_it_is_full() {
        let mut world = World::new();
        let alice = world.user("alice");
        let network = NetworkSettings {
            ipv4: Some("10.9.0.0/30".parse().unwrap()),
            ipv6: None,
            reserved: vec![],
            ephemeral_cutoff_seconds: 60,
            ..NetworkSettings::default()
        };
        let document = SettingDocument::Network(network);
        world.run(SettingCommand::Put { document, expected: None }).unwrap();
        let first = world.register(alice.id, 1).unwrap();
        assert_eq!((first.ipv4, first.ipv6), ("10.9.0.1".parse().ok(), None));
        world.register(alice.id, 2).unwrap();
        let error = world.register(alice.id, 3).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Exhausted);
        assert_eq!(world.state.nodes().len(), 2);
    }

    #[test]
    fn a_stale_revision_is_a_conflict() {
        let mut world = World::new();
        let put = |expected, magic_dns| SettingCommand::Put {
            document: SettingDocument::Dns(DnsSettings { magic_dns, ..DnsSettings::default() }),
            expected,
        };
        let error = world.run(put(Some(Revision::FIRST), true)).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Conflict);
        world.run(put(None, true)).unwrap();
        world.run(put(Some(Revision::FIRST), false)).unwrap();
        let error = world.run(put(Some(Revision::FIRST), true)).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Conflict);
    }

    #[test]
    fn a_reset_makes_no_old_revision_valid_again() {
        let mut world = World::new();
        let document =
            SettingDocument::Dns(DnsSettings { magic_dns: true, ..DnsSettings::default() });
        let put = |expected| SettingCommand::Put { document: document.clone(), expected };
        let reset = SettingCommand::Reset { kind: SettingKind::Dns };
        world.run(put(None)).unwrap();
        assert_eq!(world.run(reset.clone()).unwrap(), Reply::Done);
        assert_eq!(*world.state.settings().dns(), DnsSettings::default());
        assert_eq!(*world.run(reset).unwrap_err().kind(), ErrorKind::NotFound);
        let stale = world.run(put(Some(Revision::FIRST))).unwrap_err();
        assert_eq!(*stale.kind(), ErrorKind::Conflict);
        let Reply::Setting(third) = world.run(put(None)).unwrap() else { panic!() };
        assert_eq!(third.revision.get(), 3);
    }
}
