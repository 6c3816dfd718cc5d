//! `gwstore session`.

use clap::{Args, Subcommand};
use ghostwire_store::admin::protocol::Issue;
use ghostwire_store::admin::select::Condition;
use ghostwire_store::command::{EntityRecord, SessionCommand};
use ghostwire_store::domain::{NewSession, SessionOwner, Text};
use ghostwire_store_core::schema::Table;

use super::node::find_node;
use super::user::find_user;
use super::values::{Moment, given};
use super::{
    Act, Chosen, Delete, Edit, Issues, ListArgs, Plan, Plans, Scene, Selection, ShowArgs, Target,
    given_ones, nonempty, usage,
};
use crate::failure::Outcome;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List sessions, never their tokens.
    #[command(visible_alias = "ls")]
    List(ListArgs<SessionSelection>),
    /// Show all that is known of a session.
    #[command(visible_alias = "get")]
    Show(ShowArgs),
    /// Begin a session of a user or a node; its token is printed once, and stored nowhere.
    #[command(visible_alias = "begin")]
    Create(Edit<Create>),
    /// Let a session end at another time.
    #[command(aliases = ["update", "set"])]
    Edit(Edit<Change>),
    /// End sessions, and delete them.
    #[command(visible_alias = "delete", aliases = ["rm", "remove", "revoke", "expire"])]
    End(Delete<Removal>),
}

impl Verb {
    pub(super) fn act(&self) -> Act<'_> {
        match self {
            Self::List(list) => list.act(Table::Sessions),
            Self::Show(show) => Act::Show(Table::Sessions, show),
            Self::Create(edit) => edit.issue(),
            Self::Edit(edit) => edit.act(),
            Self::End(delete) => delete.act(),
        }
    }
}

/// The sessions that are meant by options.
#[derive(Debug, Args)]
pub(crate) struct SessionSelection {
    /// Of this user.
    #[arg(short, long, value_name = "USER", value_parser = nonempty())]
    user: Option<String>,
    /// Of this node, also those that users began from it.
    #[arg(long, value_name = "NODE", value_parser = nonempty())]
    node: Option<String>,
    /// Those that have expired, or with --expired=false the others.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    expired: Option<bool>,
    /// Not used for so long (30d), or since then.
    #[arg(long, value_name = "TIME")]
    not_seen_since: Option<Moment>,
}

impl Selection for SessionSelection {
    fn is_given(&self) -> bool {
        let Self { user, node, expired, not_seen_since } = self;
        user.is_some() || node.is_some() || expired.is_some() || not_seen_since.is_some()
    }

    fn refers(&self) -> Vec<(Table, &str)> {
        let user = self.user.as_deref().map(|user| (Table::Users, user));
        user.into_iter().chain(self.node.as_deref().map(|node| (Table::Nodes, node))).collect()
    }

    fn conditions(&self, scene: &Scene<'_>) -> Outcome<Vec<Condition>> {
        let user = self.user.as_deref().map(|user| find_user(user, scene)).transpose()?;
        let node = self.node.as_deref().map(|node| find_node(node, scene)).transpose()?;
        let since = self.not_seen_since.map(|moment| moment.back(scene.now)).transpose()?;
        Ok(given_ones([
            user.map(Condition::User),
            node.map(Condition::Node),
            self.expired.map(Condition::Expired),
            since.map(Condition::NotSeenSince),
        ]))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Of this user; with --node, begun from there.
    #[arg(short, long, value_name = "USER", value_parser = nonempty(),
        required_unless_present = "node")]
    user: Option<String>,
    /// Of this node.
    #[arg(long, value_name = "NODE", value_parser = nonempty())]
    node: Option<String>,
    /// What the client calls itself.
    #[arg(long, value_parser = given::<Text<255>>)]
    client: Option<Text<255>>,
    /// When it ends: 24h, or a date.
    #[arg(short, long, alias = "expires", value_name = "TIME", default_value = "24h")]
    expiration: Moment,
}

impl Issues for Create {
    fn issue(&self, scene: &Scene<'_>) -> Outcome<Issue> {
        let user = self.user.as_deref().map(|user| find_user(user, scene)).transpose()?;
        let node = self.node.as_deref().map(|node| find_node(node, scene)).transpose()?;
        let (owner, node) = match (user, node) {
            (Some(user), node) => (SessionOwner::User(user), node),
            (None, Some(node)) => (SessionOwner::Node(node), None),
            (None, None) => return Err(usage("say whose: --user or --node")),
        };
        let (client, expires_at) = (self.client.clone(), self.expiration.ahead(scene.now)?);
        Ok(Issue::Session(NewSession { owner, node, client, expires_at }))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Change {
    #[command(flatten)]
    of: Target,
    /// When it ends: so long from now (24h), or a date.
    #[arg(short, long, alias = "expires", value_name = "TIME")]
    expiration: Moment,
}

impl Plans for Change {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let record = self.of.find(Table::Sessions, scene)?;
        let EntityRecord::Session(session) = &record else { return Err(super::unlike(&record)) };
        let expires_at = Some(self.expiration.ahead(scene.now)?);
        Ok(Plan::on(&record, scene).then(SessionCommand::Touch { id: session.id, expires_at }))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Removal {
    #[command(flatten)]
    chosen: Chosen<SessionSelection>,
}

impl Plans for Removal {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let sessions = self.chosen.find(Table::Sessions, scene)?;
        Ok(Plan::each(&sessions, scene, |record| match record {
            EntityRecord::Session(session) => Some(SessionCommand::End { id: session.id }),
            _ => None,
        }))
    }
}
