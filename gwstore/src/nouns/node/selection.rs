//! Which nodes are meant.

use clap::Args;
use ghostwire_store::admin::select::Condition;
use ghostwire_store::domain::Tag;
use ghostwire_store_core::schema::Table;

use crate::failure::Outcome;
use crate::nouns::user::find_user;
use crate::nouns::values::Moment;
use crate::nouns::{Scene, Selection, given_ones, nonempty};

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

    fn refers(&self) -> Vec<(Table, &str)> {
        self.user.as_deref().map(|user| (Table::Users, user)).into_iter().collect()
    }

    fn conditions(&self, scene: &Scene<'_>) -> Outcome<Vec<Condition>> {
        let user = self.user.as_deref().map(|user| find_user(user, scene)).transpose()?;
        let since = self.not_seen_since.map(|moment| moment.back(scene.now)).transpose()?;
        Ok(given_ones([
            user.map(Condition::User),
            self.tag.clone().map(Condition::Tag),
            self.online.map(Condition::Online),
            self.ephemeral.map(Condition::Ephemeral),
            self.expired.map(Condition::Expired),
            since.map(Condition::NotSeenSince),
        ]))
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

    fn refers(&self) -> Vec<(Table, &str)> {
        self.selection.refers()
    }

    fn conditions(&self, scene: &Scene<'_>) -> Outcome<Vec<Condition>> {
        self.selection.conditions(scene)
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

    fn conditions(&self, _: &Scene<'_>) -> Outcome<Vec<Condition>> {
        Ok(given_ones([self.online.map(Condition::Online)]))
    }
}
