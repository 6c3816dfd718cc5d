//! `gwstore apikey`.

use clap::{Args, Subcommand};
use ghostwire_store::admin::protocol::Issue;
use ghostwire_store::admin::select::{Condition, public_part};
use ghostwire_store::command::{ApiKeyCommand, EntityRecord};
use ghostwire_store::domain::{KeyPrefix, NewApiKey, Permission, PermissionSet, Text};
use ghostwire_store_core::schema::Table;

use super::user::find_user;
use super::values::{Ends, given};
use super::{
    Act, Chosen, Delete, Edit, Issues, ListArgs, Named, Plan, Plans, Scene, Selection, ShowArgs,
    given_ones, nonempty,
};
use crate::failure::Outcome;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List API keys, never their secrets.
    #[command(visible_alias = "ls")]
    List(ListArgs<KeySelection>),
    /// Show all that is known of a key.
    #[command(visible_alias = "get")]
    Show(ShowArgs),
    /// Make a key; its secret is printed once, and stored nowhere.
    #[command(aliases = ["add", "new"])]
    Create(Edit<Create>),
    /// Withdraw keys: they work no longer, and stay listed.
    #[command(visible_alias = "revoke")]
    Expire(Edit<Revocation>),
    /// Delete keys.
    #[command(visible_alias = "destroy", aliases = ["rm", "remove"])]
    Delete(Delete<Removal>),
}

impl Verb {
    pub(super) fn act(&self) -> Act<'_> {
        match self {
            Self::List(list) => list.act(Table::ApiKeys),
            Self::Show(show) => Act::Show(Table::ApiKeys, show),
            Self::Create(edit) => edit.issue(),
            Self::Expire(edit) => edit.act(),
            Self::Delete(delete) => delete.act(),
        }
    }
}

/// The keys that are meant by options.
#[derive(Debug, Args)]
pub(crate) struct KeySelection {
    /// Of this user.
    #[arg(short, long, value_name = "USER", value_parser = nonempty())]
    user: Option<String>,
    /// With this public part.
    #[arg(short, long, value_parser = nonempty())]
    prefix: Option<String>,
    /// Those that work, or with --active=false those that do not.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    active: Option<bool>,
    /// Those that have expired, or with --expired=false the others.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    expired: Option<bool>,
    /// Those that were withdrawn, or with --revoked=false the others.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    revoked: Option<bool>,
}

impl KeySelection {
    fn has_prefix(&self, prefix: Option<&KeyPrefix>) -> bool {
        let wanted = self.prefix.as_deref().map(public_part);
        wanted.is_some() && wanted == prefix.map(KeyPrefix::as_str)
    }

    pub(super) fn names_key<'a>(
        &'a self,
        prefix_of: impl Fn(&EntityRecord) -> Option<KeyPrefix> + 'a,
    ) -> Option<Named<'a>> {
        let name = self.prefix.as_ref()?;
        Some(Named::new("--prefix", name, move |it| self.has_prefix(prefix_of(it).as_ref())))
    }
}

impl Selection for KeySelection {
    fn is_given(&self) -> bool {
        let Self { user, prefix, active, expired, revoked } = self;
        user.is_some()
            || prefix.is_some()
            || active.is_some()
            || expired.is_some()
            || revoked.is_some()
    }

    fn names(&self) -> Option<Named<'_>> {
        self.names_key(|record| match record {
            EntityRecord::ApiKey(key) => Some(key.prefix.clone()),
            _ => None,
        })
    }

    fn refers(&self) -> Vec<(Table, &str)> {
        self.user.as_deref().map(|user| (Table::Users, user)).into_iter().collect()
    }

    fn conditions(&self, scene: &Scene<'_>) -> Outcome<Vec<Condition>> {
        let user = self.user.as_deref().map(|user| find_user(user, scene)).transpose()?;
        let prefix = self.prefix.as_deref().map(|prefix| public_part(prefix).to_owned());
        Ok(given_ones([
            user.map(Condition::User),
            prefix.map(Condition::KeyPrefix),
            self.active.map(Condition::Active),
            self.expired.map(Condition::Expired),
            self.revoked.map(Condition::Revoked),
        ]))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// On whose behalf it works.
    #[arg(short, long, value_name = "USER", value_parser = nonempty())]
    user: Option<String>,
    /// What it is for.
    #[arg(short, long, value_parser = given::<Text<255>>)]
    description: Option<Text<255>>,
    /// What it may be used for, in the control plane's words; may be repeated.
    #[arg(long = "permission", alias = "permissions", value_delimiter = ',')]
    permissions: Vec<Permission>,
    /// When it stops working: 24h, a date, or never.
    #[arg(short, long, alias = "expires", value_name = "TIME", default_value = "90d")]
    expiration: Ends,
}

impl Issues for Create {
    fn issue(&self, scene: &Scene<'_>) -> Outcome<Issue> {
        let user = self.user.as_deref().map(|user| find_user(user, scene)).transpose()?;
        Ok(Issue::ApiKey(NewApiKey {
            user,
            description: self.description.clone(),
            permissions: PermissionSet::new(self.permissions.iter().cloned())?,
            expires_at: self.expiration.at(scene.now)?,
        }))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Revocation {
    #[command(flatten)]
    chosen: Chosen<KeySelection>,
}

impl Plans for Revocation {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let keys = self.chosen.find(Table::ApiKeys, scene)?;
        Ok(Plan::each(&keys, scene, |record| match record {
            // Of those that are named, one that was withdrawn already has what is wanted.
            EntityRecord::ApiKey(key) if key.revoked_at.is_none() => {
                Some(ApiKeyCommand::Revoke { id: key.id })
            }
            _ => None,
        }))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Removal {
    #[command(flatten)]
    chosen: Chosen<KeySelection>,
}

impl Plans for Removal {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let keys = self.chosen.find(Table::ApiKeys, scene)?;
        Ok(Plan::each(&keys, scene, |record| match record {
            EntityRecord::ApiKey(key) => Some(ApiKeyCommand::Delete { id: key.id }),
            _ => None,
        }))
    }
}
