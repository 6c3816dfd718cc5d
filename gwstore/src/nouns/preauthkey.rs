//! `gwstore preauthkey`.

use clap::{Args, Subcommand};
use ghostwire_store::admin::protocol::Issue;
use ghostwire_store::admin::select::Condition;
use ghostwire_store::command::{EntityRecord, PreAuthKeyCommand};
use ghostwire_store::domain::{NewPreAuthKey, Tag, TagSet};
use ghostwire_store_core::schema::Table;

use super::apikey::KeySelection;
use super::user::find_user;
use super::values::Ends;
use super::{
    Act, Chosen, Delete, Edit, Issues, ListArgs, Named, Plan, Plans, Scene, Selection, ShowArgs,
    given_ones, nonempty,
};
use crate::failure::Outcome;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List pre-auth keys, never their secrets.
    #[command(visible_alias = "ls")]
    List(ListArgs<PreauthKeySelection>),
    /// Show all that is known of a key.
    #[command(visible_alias = "get")]
    Show(ShowArgs),
    /// Make a key; its secret is printed once, and stored nowhere.
    #[command(aliases = ["add", "new"])]
    Create(Edit<Create>),
    /// Withdraw keys: they admit nobody any longer, and stay listed.
    #[command(visible_alias = "revoke")]
    Expire(Edit<Revocation>),
    /// Delete keys. Nodes that they admitted stay.
    #[command(visible_alias = "destroy", aliases = ["rm", "remove"])]
    Delete(Delete<Removal>),
}

impl Verb {
    pub(super) fn act(&self) -> Act<'_> {
        match self {
            Self::List(list) => list.act(Table::PreAuthKeys),
            Self::Show(show) => Act::Show(Table::PreAuthKeys, show),
            Self::Create(edit) => edit.issue(),
            Self::Expire(edit) => edit.act(),
            Self::Delete(delete) => delete.act(),
        }
    }
}

/// The pre-auth keys that are meant by options.
#[derive(Debug, Args)]
pub(crate) struct PreauthKeySelection {
    #[command(flatten)]
    key: KeySelection,
    /// Whose nodes get this tag.
    #[arg(long)]
    tag: Option<Tag>,
    /// Those that admit any number of nodes, or with --reusable=false the others.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    reusable: Option<bool>,
    /// Those whose nodes are ephemeral, or with --ephemeral=false the others.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    ephemeral: Option<bool>,
    /// Those that have admitted a node, or with --used=false the others.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    used: Option<bool>,
}

impl Selection for PreauthKeySelection {
    fn is_given(&self) -> bool {
        let Self { key, tag, reusable, ephemeral, used } = self;
        key.is_given()
            || tag.is_some()
            || reusable.is_some()
            || ephemeral.is_some()
            || used.is_some()
    }

    fn names(&self) -> Option<Named<'_>> {
        self.key.names_key(|record| match record {
            EntityRecord::PreAuthKey(key) => key.prefix.clone(),
            _ => None,
        })
    }

    fn refers(&self) -> Vec<(Table, &str)> {
        self.key.refers()
    }

    fn conditions(&self, scene: &Scene<'_>) -> Outcome<Vec<Condition>> {
        let mut conditions = self.key.conditions(scene)?;
        conditions.extend(given_ones([
            self.tag.clone().map(Condition::Tag),
            self.reusable.map(Condition::Reusable),
            self.ephemeral.map(Condition::Ephemeral),
            self.used.map(Condition::Used),
        ]));
        Ok(conditions)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The owner of the nodes that it admits; may be left out with --tags.
    #[arg(short, long, value_name = "USER", value_parser = nonempty(),
        required_unless_present = "tags")]
    user: Option<String>,
    /// Tags of the nodes that it admits, such as tag:ci; may be repeated.
    #[arg(short, long, alias = "tag", value_name = "TAGS", value_delimiter = ',')]
    tags: Vec<Tag>,
    /// It admits any number of nodes; otherwise one.
    #[arg(long)]
    reusable: bool,
    /// Its nodes are deleted after they were offline for a while.
    #[arg(long)]
    ephemeral: bool,
    /// When it stops working: 24h, a date, or never.
    #[arg(short, long, alias = "expires", value_name = "TIME", default_value = "1h")]
    expiration: Ends,
}

impl Issues for Create {
    fn issue(&self, scene: &Scene<'_>) -> Outcome<Issue> {
        let user = self.user.as_deref().map(|user| find_user(user, scene)).transpose()?;
        Ok(Issue::PreauthKey(NewPreAuthKey {
            user,
            tags: TagSet::new(self.tags.iter().cloned())?,
            reusable: self.reusable,
            ephemeral: self.ephemeral,
            expires_at: self.expiration.at(scene.now)?,
        }))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Revocation {
    #[command(flatten)]
    chosen: Chosen<PreauthKeySelection>,
}

impl Plans for Revocation {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let keys = self.chosen.find(Table::PreAuthKeys, scene)?;
        Ok(Plan::each(&keys, scene, |record| match record {
            // Of those that are named, one that was withdrawn already has what is wanted.
            EntityRecord::PreAuthKey(key) if key.revoked_at.is_none() => {
                Some(PreAuthKeyCommand::Revoke { id: key.id })
            }
            _ => None,
        }))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Removal {
    #[command(flatten)]
    chosen: Chosen<PreauthKeySelection>,
}

impl Plans for Removal {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let keys = self.chosen.find(Table::PreAuthKeys, scene)?;
        Ok(Plan::each(&keys, scene, |record| match record {
            EntityRecord::PreAuthKey(key) => Some(PreAuthKeyCommand::Delete { id: key.id }),
            _ => None,
        }))
    }
}
