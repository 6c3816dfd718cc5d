//! Which nodes are meant.

use clap::Args;
use ghostwire_store::command::EntityRecord;
use ghostwire_store::domain::{Tag, expired};

use crate::failure::Outcome;
use crate::nouns::user::find_user;
use crate::nouns::values::Moment;
use crate::nouns::{Admits, Scene, Selection, agrees, nonempty};

/// The nodes that are meant by options.
#[derive(Debug, Args)]
pub(crate) struct NodeSelection {
    /// Owned by this user.
    #[arg(short, long, value_name = "USER", value_parser = nonempty())]
    user: Option<String>,
    /// With this tag.
    #[arg(long)]
    tag: Option<Tag>,
    /// Online ones, or with --online=false offline ones.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    online: Option<bool>,
    /// Ephemeral ones, or with --ephemeral=false the others.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    ephemeral: Option<bool>,
    /// Those whose key has expired, or with --expired=false the others.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    expired: Option<bool>,
    /// Offline and not heard of for so long (90d), or since then; of those that were never heard of, made
    /// before then.
    #[arg(long, value_name = "TIME")]
    not_seen_since: Option<Moment>,
}

impl Selection for NodeSelection {
    fn is_given(&self) -> bool {
        let Self { user, tag, online, ephemeral, expired, not_seen_since } = self;
        user.is_some()
            || tag.is_some()
            || online.is_some()
            || ephemeral.is_some()
            || expired.is_some()
            || not_seen_since.is_some()
    }

    fn admits<'a>(&'a self, scene: &Scene<'a>) -> Outcome<Admits<'a>> {
        let (state, now) = (scene.state, scene.now);
        let user = self.user.as_deref().map(|user| find_user(user, scene)).transpose()?;
        let since = self.not_seen_since.map(|moment| moment.back(now)).transpose()?;
        Ok(Box::new(move |record| {
            let EntityRecord::Node(node) = record else { return false };
            let presence = state.presence().get(node.id);
            let is_online = presence.is_some_and(|presence| presence.online);
            let last_seen = presence.and_then(|it| it.last_seen).unwrap_or(node.created_at);
            user.is_none_or(|user| node.user == Some(user))
                && self.tag.as_ref().is_none_or(|tag| node.tags.contains(tag))
                && agrees(self.online, is_online)
                && agrees(self.ephemeral, node.ephemeral)
                && agrees(self.expired, expired(node.expires_at, now))
                && since.is_none_or(|since| !is_online && last_seen < since)
        }))
    }
}

/// The nodes that are listed.
#[derive(Debug, Args)]
pub(crate) struct ListedNodes {
    #[command(flatten)]
    selection: NodeSelection,
    /// Other tools show tags only if they are asked to.
    #[arg(short = 't', long = "tags", hide = true)]
    _with_tags: bool,
}

impl Selection for ListedNodes {
    fn is_given(&self) -> bool {
        self.selection.is_given()
    }

    fn admits<'a>(&'a self, scene: &Scene<'a>) -> Outcome<Admits<'a>> {
        self.selection.admits(scene)
    }
}

/// The presences that are meant by options.
#[derive(Debug, Args)]
pub(crate) struct PresenceSelection {
    /// Online ones, or with --online=false offline ones.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    online: Option<bool>,
}

impl Selection for PresenceSelection {
    fn is_given(&self) -> bool {
        self.online.is_some()
    }

    fn admits<'a>(&'a self, _: &Scene<'a>) -> Outcome<Admits<'a>> {
        Ok(Box::new(|record| match record {
            EntityRecord::Presence(presence) => agrees(self.online, presence.online),
            _ => false,
        }))
    }
}
