//! Settings: documents with a default each.

use std::borrow::Cow;
use std::sync::Arc;

use super::decision::{Changes, Context, Decision, Handle, Reply, check_revision};
use super::{Change, Map, State};
use crate::command::{Image, SettingCommand};
use crate::domain::{
    DerpMap, DnsSettings, NetworkSettings, Revision, Setting, SettingDocument, SettingKind,
};
use crate::error::{Entity, Error, ErrorKind, Result};

/// All settings that differ from their defaults.
#[derive(Clone, Default, Debug)]
pub struct Settings {
    by_kind: Map<SettingKind, Arc<Setting>>,
}

impl Settings {
    /// A document that was set; `None` means that its default is in force.
    #[must_use]
    pub fn get(&self, kind: SettingKind) -> Option<&Arc<Setting>> {
        self.by_kind.get(&kind)
    }

    /// Address ranges and lifetimes in force.
    #[must_use]
    pub fn network(&self) -> Cow<'_, NetworkSettings> {
        match self.get(SettingKind::Network).map(|setting| &setting.document) {
            Some(SettingDocument::Network(network)) => Cow::Borrowed(network),
            _ => Cow::Owned(NetworkSettings::default()),
        }
    }

    /// Relay servers in force.
    #[must_use]
    pub fn derp_map(&self) -> Cow<'_, DerpMap> {
        match self.get(SettingKind::DerpMap).map(|setting| &setting.document) {
            Some(SettingDocument::DerpMap(map)) => Cow::Borrowed(map),
            _ => Cow::Owned(DerpMap::default()),
        }
    }

    /// Resolvers and search domains in force.
    #[must_use]
    pub fn dns(&self) -> Cow<'_, DnsSettings> {
        match self.get(SettingKind::Dns).map(|setting| &setting.document) {
            Some(SettingDocument::Dns(dns)) => Cow::Borrowed(dns),
            _ => Cow::Owned(DnsSettings::default()),
        }
    }

    /// All that were set, by kind's name, which is the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Setting>> {
        [SettingKind::DerpMap, SettingKind::Dns, SettingKind::Network]
            .into_iter()
            .filter_map(|kind| self.by_kind.get(&kind))
    }

    pub(super) fn put(&mut self, setting: Arc<Setting>) -> bool {
        self.by_kind.insert(setting.document.kind(), setting).is_some()
    }

    pub(super) fn remove(&mut self, kind: SettingKind) {
        self.by_kind.remove(&kind);
    }
}

impl State {
    pub(super) fn decide_setting(
        &self,
        command: &SettingCommand,
        context: &Context<'_>,
    ) -> Result<Decision> {
        match command {
            SettingCommand::Put { document, expected } => {
                document.check()?;
                let kind = document.kind();
                let old = self.settings.get(kind);
                match (old, expected) {
                    (Some(old), expected) => {
                        check_revision(Entity::Setting, kind.name(), old.revision, *expected)?;
                    }
                    (None, Some(expected)) => {
                        return Err(Error::new(
                            ErrorKind::Conflict,
                            "is at its default; it has no revision yet",
                        )
                        .about(Entity::Setting)
                        .with("kind", kind.name())
                        .with("expected_revision", expected));
                    }
                    (None, None) => {}
                }
                if let Some(old) = old
                    && old.document == *document
                {
                    return Ok(Decision::unchanged(Reply::Setting(old.clone())));
                }
                let setting = Arc::new(Setting {
                    document: document.clone(),
                    revision: old.map_or(Revision::FIRST, |old| old.revision.next()),
                    updated_at: context.now,
                });
                let mut changes = Changes::new();
                changes.push(Change::Put(Image::Setting(setting.clone())));
                Ok(Decision::changed(changes, Reply::Setting(setting)).noting(
                    SettingCommand::PUT,
                    Entity::Setting,
                    kind.name(),
                ))
            }
            SettingCommand::Reset { kind } => {
                if self.settings.get(*kind).is_none() {
                    return Err(Error::not_found(Entity::Setting, kind.name()));
                }
                let mut changes = Changes::new();
                changes.push(Change::Delete(Handle::Setting(*kind)));
                Ok(Decision::changed(changes, Reply::Done).noting(
                    SettingCommand::RESET,
                    Entity::Setting,
                    kind.name(),
                ))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
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
}
