//! `gwstore route`.

use clap::{Args, Subcommand, ValueEnum};
use ghostwire_store::admin::select::Condition;
use ghostwire_store::command::{EntityRecord, RouteCommand};
use ghostwire_store::domain::{Prefix, RouteMetric, RoutePatch, Text, Update};
use ghostwire_store_core::schema::Table;

use super::node::find_node;
use super::values::given;
use super::{
    Act, Chosen, Delete, Edit, ListArgs, Named, Plan, Plans, Scene, Selection, ShowArgs, Target,
    given_ones, nonempty, patch,
};
use crate::failure::Outcome;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List routes.
    #[command(visible_alias = "ls")]
    List(ListArgs<ListedRoutes>),
    /// Show all that is known of a route.
    #[command(visible_alias = "get")]
    Show(ShowArgs),
    /// Adds to what is approved: these routes, whatever else is; `node approve-routes` replaces.
    #[command(visible_alias = "enable")]
    Approve(Edit<Approval<true>>),
    /// Takes from what is approved: these routes, and no other.
    #[command(visible_alias = "disable", aliases = ["disapprove", "revoke"])]
    Unapprove(Edit<Approval<false>>),
    /// Change what an administrator says about a route.
    #[command(aliases = ["update", "set"])]
    Edit(Edit<Change>),
    /// Delete routes, both advertised and approved; their nodes may advertise them again.
    #[command(aliases = ["rm", "remove"])]
    Delete(Delete<Removal>),
}

impl Verb {
    pub(super) fn act(&self) -> Act<'_> {
        match self {
            Self::List(list) => list.act(Table::Routes),
            Self::Show(show) => Act::Show(Table::Routes, show),
            Self::Approve(edit) => edit.act(),
            Self::Unapprove(edit) => edit.act(),
            Self::Edit(edit) => edit.act(),
            Self::Delete(delete) => delete.act(),
        }
    }
}

/// The routes that are meant by options.
#[derive(Debug, Args)]
pub(crate) struct RouteSelection {
    /// Of this node.
    #[arg(short, long, value_name = "NODE", value_parser = nonempty())]
    node: Option<String>,
    /// For exactly this prefix.
    #[arg(long)]
    prefix: Option<Prefix>,
    /// Approved ones, or with --approved=false those that wait for it.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    approved: Option<bool>,
    /// Those that their nodes offer at present, or with --advertised=false the others.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    advertised: Option<bool>,
    /// Those that traffic takes, or with --primary=false the others.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    primary: Option<bool>,
}

impl Selection for RouteSelection {
    fn is_given(&self) -> bool {
        let Self { node, prefix, approved, advertised, primary } = self;
        node.is_some()
            || prefix.is_some()
            || approved.is_some()
            || advertised.is_some()
            || primary.is_some()
    }

    fn names(&self) -> Option<Named<'_>> {
        let prefix = self.prefix?;
        Some(Named::new("--prefix", prefix, move |record| match record {
            EntityRecord::Route(route) => route.prefix == prefix,
            _ => false,
        }))
    }

    fn refers(&self) -> Vec<(Table, &str)> {
        self.node.as_deref().map(|node| (Table::Nodes, node)).into_iter().collect()
    }

    fn conditions(&self, scene: &Scene<'_>) -> Outcome<Vec<Condition>> {
        let node = self.node.as_deref().map(|node| find_node(node, scene)).transpose()?;
        Ok(given_ones([
            node.map(Condition::Node),
            self.prefix.map(Condition::Prefix),
            self.approved.map(Condition::Approved),
            self.advertised.map(Condition::Advertised),
            self.primary.map(Condition::Primary),
        ]))
    }
}

/// The routes that are listed.
#[derive(Debug, Args)]
pub(crate) struct ListedRoutes {
    #[command(flatten)]
    selection: RouteSelection,
    /// Of this node, as in other tools.
    #[arg(short, long, value_name = "NODE", value_parser = nonempty(), hide = true,
        conflicts_with = "node")]
    identifier: Option<String>,
}

impl Selection for ListedRoutes {
    fn is_given(&self) -> bool {
        self.selection.is_given() || self.identifier.is_some()
    }

    fn refers(&self) -> Vec<(Table, &str)> {
        let node = self.identifier.as_deref().map(|node| (Table::Nodes, node));
        self.selection.refers().into_iter().chain(node).collect()
    }

    fn conditions(&self, scene: &Scene<'_>) -> Outcome<Vec<Condition>> {
        let node = self.identifier.as_deref().map(|node| find_node(node, scene)).transpose()?;
        let mut conditions = self.selection.conditions(scene)?;
        conditions.extend(node.map(Condition::Node));
        Ok(conditions)
    }
}

/// The routes that are listed of a node.
#[derive(Debug, Args)]
pub(crate) struct RoutesOfNode {
    /// Whose: an id or a unique part of one, a label, a host name or an address. [default: all nodes]
    #[arg(value_name = "NODE", value_parser = nonempty(), conflicts_with_all = ["node", "identifier"])]
    of: Option<String>,
    #[command(flatten)]
    listed: ListedRoutes,
}

impl Selection for RoutesOfNode {
    fn is_given(&self) -> bool {
        self.of.is_some() || self.listed.is_given()
    }

    fn refers(&self) -> Vec<(Table, &str)> {
        let node = self.of.as_deref().map(|node| (Table::Nodes, node));
        self.listed.refers().into_iter().chain(node).collect()
    }

    fn conditions(&self, scene: &Scene<'_>) -> Outcome<Vec<Condition>> {
        let node = self.of.as_deref().map(|node| find_node(node, scene)).transpose()?;
        let mut conditions = self.listed.conditions(scene)?;
        conditions.extend(node.map(Condition::Node));
        Ok(conditions)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Approval<const APPROVED: bool> {
    #[command(flatten)]
    chosen: Chosen<RouteSelection>,
}

impl<const APPROVED: bool> Plans for Approval<APPROVED> {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let routes = self.chosen.find(Table::Routes, scene)?;
        let mut plan = Plan::each(&routes, scene, |record| match record {
            EntityRecord::Route(route) => {
                Some(RouteCommand::SetApproved { id: route.id, approved: APPROVED })
            }
            _ => None,
        });
        plan.notes = unpaired(&routes, APPROVED, scene);
        Ok(plan)
    }
}

/// The other exit routes of the nodes whose one is approved or not: traffic of one family only is rarely meant.
fn unpaired(routes: &[EntityRecord], approved: bool, scene: &Scene<'_>) -> Vec<String> {
    let is_meant =
        |id| routes.iter().any(|it| matches!(it, EntityRecord::Route(it) if it.id == id));
    let exits = routes.iter().filter_map(|record| match record {
        EntityRecord::Route(route) if route.prefix.is_exit() => Some(route),
        _ => None,
    });
    let others = exits.flat_map(|exit| {
        let of_node = scene.state.routes().of_node(exit.node);
        of_node.filter(|it| it.prefix.is_exit() && it.approved != approved)
    });
    let told = others.filter(|other| !is_meant(other.id)).map(|other| {
        let node = scene.state.nodes().get(other.node);
        let node = node.map_or_else(|| other.node.to_string(), |node| node.label.to_string());
        unpaired_note(other.prefix, &node, approved)
    });
    told.collect()
}

/// What is said of the exit route that is left of two.
pub(super) fn unpaired_note(left: Prefix, node: &str, approved: bool) -> String {
    let standing = if approved { "unapproved" } else { "approved" };
    format!("{left} of {node} stays {standing}: an exit node has both")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Clearable {
    Description,
}

#[derive(Debug, Args)]
pub(crate) struct Change {
    #[command(flatten)]
    of: Target,
    /// What it costs to go this way; the lowest goes first.
    #[arg(long)]
    metric: Option<u32>,
    /// A note.
    #[arg(long, value_parser = given::<Text<255>>)]
    description: Option<Text<255>>,
    /// Leave it without these.
    #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
    clear: Vec<Clearable>,
}

impl Plans for Change {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let record = self.of.find(Table::Routes, scene)?;
        let EntityRecord::Route(route) = &record else { return Err(super::unlike(&record)) };
        let is_cleared = self.clear.contains(&Clearable::Description);
        let changes = RoutePatch {
            metric: self.metric.map_or(Update::Keep, |it| Update::Set(RouteMetric::new(it))),
            description: patch(self.description.as_ref(), is_cleared)?,
        };
        super::require_change(changes != RoutePatch::default())?;
        let command = RouteCommand::Update { id: route.id, patch: changes, expected: None };
        Ok(Plan::on(&record, scene).then(command))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Removal {
    #[command(flatten)]
    chosen: Chosen<RouteSelection>,
}

impl Plans for Removal {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let routes = self.chosen.find(Table::Routes, scene)?;
        Ok(Plan::each(&routes, scene, |record| match record {
            EntityRecord::Route(route) => Some(RouteCommand::Delete { id: route.id }),
            _ => None,
        }))
    }
}
