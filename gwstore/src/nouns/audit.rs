//! `gwstore audit`, and which lines of the series are listed.

use clap::{Args, Subcommand};
use ghostwire_store::domain::{
    ActorName, AuditQuery, AuditResult, MetricName, MetricQuery, ResourceKind, Text, Timestamp,
};
use ghostwire_store_core::schema::Table;

use super::values::{Moment, given, word};
use super::{Act, ListArgs, Listing, Scene, Source, find, id_of, node::find_node, nonempty, usage};
use crate::failure::{Ending, Outcome};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the lines of the audit trail, the oldest first.
    #[command(visible_aliases = ["ls", "show"])]
    List(ListArgs<AuditSelection>),
}

impl Verb {
    pub(super) fn act(&self) -> Act<'_> {
        match self {
            Self::List(list) => Act::List(list.audit()),
        }
    }
}

impl ListArgs<AuditSelection> {
    pub(super) fn audit(&self) -> Listing<'_> {
        Listing { source: Source::Audit(&self.selection), page: &self.page }
    }
}

/// The lines of the audit trail that are meant by options.
#[derive(Debug, Args)]
pub(crate) struct AuditSelection {
    /// By this actor.
    #[arg(long)]
    actor: Option<ActorName>,
    /// About this one: an id, or what names a user or a node.
    #[arg(long, value_parser = given::<Text<255>>)]
    subject: Option<Text<255>>,
    /// About this kind of thing: user, node, policy.
    #[arg(long, visible_alias = "kind")]
    entity: Option<ResourceKind>,
    /// Of this action, such as node.delete.
    #[arg(long, value_parser = given::<Text<64>>)]
    action: Option<Text<64>>,
    /// What ended so: success, denied, failed.
    #[arg(long, value_parser = word::<AuditResult>)]
    result: Option<AuditResult>,
    /// Of the last while (24h), or since then.
    #[arg(long, visible_alias = "from", value_name = "TIME")]
    since: Option<Moment>,
    /// Before then, or so long ago at least.
    #[arg(long, visible_alias = "to", value_name = "TIME")]
    until: Option<Moment>,
    /// The newest first.
    #[arg(long, alias = "reverse")]
    newest_first: bool,
}

impl AuditSelection {
    /// Texts by which it names entities.
    pub(crate) fn refers(&self) -> Vec<(Table, &str)> {
        let subject = self.subject.iter().map(Text::as_str);
        subject.flat_map(|text| [(Table::Users, text), (Table::Nodes, text)]).collect()
    }

    pub(crate) fn query(&self, scene: &Scene<'_>) -> Outcome<AuditQuery> {
        let back = |moment: Option<Moment>| moment.map(|it| it.back(scene.now)).transpose();
        Ok(AuditQuery {
            from: back(self.since)?,
            to: back(self.until)?,
            actor: self.actor.clone(),
            entity: self.entity.clone(),
            subject: self.subject.as_ref().map(|subject| subject_of(subject, scene)).transpose()?,
            newest_first: self.newest_first,
            action: self.action.clone(),
            result: self.result,
        })
    }
}

/// The trail has ids; what is gone from the store can be named by nothing else.
fn subject_of(text: &Text<255>, scene: &Scene<'_>) -> Outcome<Text<255>> {
    let mut named = Vec::new();
    for table in [Table::Users, Table::Nodes] {
        match find(table, text.as_str(), scene) {
            Ok(record) => named.push(id_of(&record)),
            Err(failure) if failure.ending() == Ending::Missing => {}
            Err(failure) => return Err(failure),
        }
    }
    match named.as_slice() {
        [] => Ok(text.clone()),
        [id] => Ok(Text::new(id)?),
        _ => Err(usage("a user and a node are called so: give an id")),
    }
}

/// The points that are meant by options.
#[derive(Debug, Args)]
pub(crate) struct MetricSelection {
    /// Of this node.
    #[arg(short, long, value_name = "NODE", value_parser = nonempty())]
    node: Option<String>,
    /// Of the network as a whole.
    #[arg(long, conflicts_with = "node")]
    network: bool,
    /// This metric.
    #[arg(long)]
    metric: Option<MetricName>,
    /// Of the last while (24h), or since then.
    #[arg(long, visible_alias = "from", value_name = "TIME")]
    since: Option<Moment>,
    /// Before then, or so long ago at least.
    #[arg(long, visible_alias = "to", value_name = "TIME")]
    until: Option<Moment>,
}

impl MetricSelection {
    /// Texts by which it names entities; `None` if labels of any node may be shown.
    pub(crate) fn refers(&self) -> Option<Vec<(Table, &str)>> {
        match self.node.as_deref() {
            Some(node) => Some(vec![(Table::Nodes, node)]),
            None => self.network.then(Vec::new),
        }
    }

    pub(crate) fn query(&self, scene: &Scene<'_>) -> Outcome<MetricQuery> {
        let node = self.node.as_deref().map(|node| find_node(node, scene)).transpose()?;
        let back = |moment: Option<Moment>| moment.map(|it| it.back(scene.now)).transpose();
        Ok(MetricQuery {
            node: if self.network { Some(None) } else { node.map(Some) },
            metric: self.metric.clone(),
            from: back(self.since)?.unwrap_or(Timestamp::EPOCH),
            to: back(self.until)?.unwrap_or(Timestamp::MAX),
        })
    }
}
