//! `gwstore node`.

mod selection;

use std::net::{Ipv4Addr, Ipv6Addr};

use clap::{Args, Subcommand, ValueEnum};
use ghostwire_store::command::{EntityRecord, NodeCommand, Part, RouteCommand};
use ghostwire_store::domain::{
    AddressFamilies, Admission, ByteRate, DnsLabel, Hostname, MachineKey, Mtu, NewAddress, NodeId,
    NodeKey, NodePatch, NodeSettingsPatch, Patch, Prefix, RegisterMethod, Registration,
    Renumbering, RouteId, Tag, TagSet, Update,
};
use ghostwire_store_core::schema::Table;

use self::selection::NodeSelection;
pub(crate) use self::selection::{ListedNodes, PresenceSelection};
use super::user::find_user;
use super::values::{Ends, Moment, word};
use super::{
    Act, Chosen, Delete, Edit, ListArgs, Plan, Plans, Scene, ShowArgs, Target, find, nonempty,
    only, parsed, patch, random, update, usage,
};
use crate::failure::Outcome;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List nodes.
    #[command(visible_alias = "ls")]
    List(ListArgs<ListedNodes>),
    /// Show all that is known of a node.
    #[command(visible_alias = "get")]
    Show(ShowArgs),
    /// Admit a machine by hand, as its user's.
    #[command(visible_alias = "register", alias = "add")]
    Create(Edit<Register>),
    /// Change a node, or what its client is told to do.
    #[command(aliases = ["update", "set"])]
    Edit(Edit<Change>),
    /// Give a node another DNS label.
    Rename(Edit<Rename>),
    /// Let nodes' keys expire, so that they have to sign in again.
    #[command(alias = "logout")]
    Expire(Edit<Expire>),
    /// Give a node to another user.
    #[command(alias = "assign")]
    Move(Edit<Move>),
    /// Replaces a node's tags by those that are given; --add and --remove leave the others.
    #[command(alias = "tags")]
    Tag(Edit<Retag>),
    /// Replaces what is approved of a node's routes by these prefixes, advertised yet or not; `route approve`
    /// adds to it.
    ApproveRoutes(Edit<ApproveRoutes>),
    /// List the routes of a node, or of all.
    #[command(alias = "routes")]
    ListRoutes(ListArgs<super::RoutesOfNode>),
    /// Give a node other addresses: the lowest free ones, or those that are given.
    Renumber(Edit<Renumber>),
    /// Give an address to every node that lacks one of a configured family.
    #[command(name = "backfillips", visible_alias = "backfill-addresses", alias = "backfill-ips")]
    Backfill(Edit<Backfill>),
    /// Delete nodes with their routes and sessions.
    #[command(aliases = ["rm", "remove"])]
    Delete(Delete<Removal>),
}

impl Verb {
    pub(super) fn act(&self) -> Act<'_> {
        match self {
            Self::List(list) => list.act(Table::Nodes),
            Self::Show(show) => Act::Show(Table::Nodes, show),
            Self::Create(edit) => edit.act(),
            Self::Edit(edit) => edit.act(),
            Self::Rename(edit) => edit.act(),
            Self::Expire(edit) => edit.act(),
            Self::Move(edit) => edit.act(),
            Self::Tag(edit) => edit.act(),
            Self::ApproveRoutes(edit) => edit.act(),
            Self::ListRoutes(list) => list.act(Table::Routes),
            Self::Renumber(edit) => edit.act(),
            Self::Backfill(edit) => edit.act(),
            Self::Delete(delete) => delete.act(),
        }
    }
}

/// The node that a text names.
pub(super) fn find_node(text: &str, scene: &Scene<'_>) -> Outcome<NodeId> {
    match find(Table::Nodes, text, scene)? {
        EntityRecord::Node(node) => Ok(node.id),
        other => Err(super::unlike(&other)),
    }
}

#[derive(Debug, Args)]
pub(crate) struct Register {
    /// The name as the machine reports it; its label is made of that.
    hostname: Hostname,
    /// The user who owns it.
    #[arg(short, long, value_name = "USER", value_parser = nonempty())]
    user: String,
    /// The key of the machine.
    #[arg(long)]
    machine_key: MachineKey,
    /// Its WireGuard key.
    #[arg(short = 'k', long, alias = "key")]
    node_key: NodeKey,
    /// When its key expires: 90d, a date, or never.
    #[arg(short, long, alias = "expires", value_name = "TIME", default_value = "never")]
    expiration: Ends,
    /// Of which families it gets addresses: both, ipv4, ipv6.
    #[arg(long, value_parser = word::<AddressFamilies>)]
    families: Option<AddressFamilies>,
}

impl Plans for Register {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let user = find_user(&self.user, scene)?;
        let admission = Admission::User { user, method: RegisterMethod::Cli };
        let registration = Registration {
            expires_at: self.expiration.at(scene.now)?,
            families: self.families,
            ..Registration::new(self.machine_key, self.node_key, self.hostname.clone(), admission)
        };
        let id = NodeId::time_ordered(scene.now, random()?);
        let registration = Box::new(registration);
        Ok(Plan::of(NodeCommand::Register { id, registration }))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Clearable {
    Mtu,
    Keepalive,
    AcceptRoutes,
    AcceptDns,
    ExitNode,
    UploadLimit,
    DownloadLimit,
}

#[derive(Debug, Args)]
pub(crate) struct Change {
    #[command(flatten)]
    of: Target,
    /// When its key expires: 90d, a date, or never.
    #[arg(short, long, alias = "expires", value_name = "TIME")]
    expiration: Option<Ends>,
    /// The name as the machine reports it.
    #[arg(long)]
    hostname: Option<Hostname>,
    /// Of which families it is given addresses from now on: both, ipv4, ipv6.
    #[arg(long, value_parser = word::<AddressFamilies>)]
    families: Option<AddressFamilies>,
    /// The largest packet that its tunnel takes.
    #[arg(long, value_parser = mtu)]
    mtu: Option<Mtu>,
    /// Seconds between the packets that keep its way through a NAT open; 0 sends none.
    #[arg(long, value_name = "SECONDS")]
    keepalive: Option<u16>,
    /// Whether it uses the routes of other nodes.
    #[arg(long, value_name = "BOOL")]
    accept_routes: Option<bool>,
    /// Whether it uses the network's resolvers.
    #[arg(long, value_name = "BOOL")]
    accept_dns: Option<bool>,
    /// The node through which it reaches everything else.
    #[arg(long, value_name = "NODE", value_parser = nonempty())]
    exit_node: Option<String>,
    /// How much it may send, in bytes a second.
    #[arg(long, value_name = "BYTES", value_parser = rate)]
    upload_limit: Option<ByteRate>,
    /// How much it may receive, in bytes a second.
    #[arg(long, value_name = "BYTES", value_parser = rate)]
    download_limit: Option<ByteRate>,
    /// Leave these to the client.
    #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
    clear: Vec<Clearable>,
}

fn mtu(text: &str) -> Result<Mtu, String> {
    let bytes = text.parse::<u16>().map_err(|error| error.to_string())?;
    Mtu::new(bytes).map_err(|error| error.to_string())
}

fn rate(text: &str) -> Result<ByteRate, String> {
    let bytes = text.parse::<u64>().map_err(|error| error.to_string())?;
    ByteRate::new(bytes).map_err(|error| error.to_string())
}

impl Plans for Change {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let record = self.of.find(Table::Nodes, scene)?;
        let EntityRecord::Node(node) = &record else { return Err(super::unlike(&record)) };
        let changes = NodePatch {
            hostname: update(self.hostname.as_ref()),
            expires_at: expiry(self.expiration, scene)?,
            families: update(self.families.as_ref()),
            ..NodePatch::default()
        };
        let is_cleared = |field| self.clear.contains(&field);
        let exit_node = self.exit_node.as_deref().map(|node| find_node(node, scene)).transpose()?;
        let settings = NodeSettingsPatch {
            mtu: patch(self.mtu.as_ref(), is_cleared(Clearable::Mtu))?,
            persistent_keepalive_seconds: patch(
                self.keepalive.as_ref(),
                is_cleared(Clearable::Keepalive),
            )?,
            accept_routes: patch(self.accept_routes.as_ref(), is_cleared(Clearable::AcceptRoutes))?,
            accept_dns: patch(self.accept_dns.as_ref(), is_cleared(Clearable::AcceptDns))?,
            exit_node: patch(exit_node.as_ref(), is_cleared(Clearable::ExitNode))?,
            upload_limit: patch(self.upload_limit.as_ref(), is_cleared(Clearable::UploadLimit))?,
            download_limit: patch(
                self.download_limit.as_ref(),
                is_cleared(Clearable::DownloadLimit),
            )?,
        };
        let (has_changes, has_settings) =
            (changes != NodePatch::default(), settings != NodeSettingsPatch::default());
        super::require_change(has_changes || has_settings)?;
        let mut plan = Plan::on(&record, scene);
        if has_changes {
            plan = plan.then(updated(node.id, changes));
        }
        if has_settings {
            let (id, patch) = (node.id, Box::new(settings));
            plan = plan.then(NodeCommand::UpdateSettings { id, patch, expected: None });
        }
        Ok(plan)
    }
}

fn expiry(
    ends: Option<Ends>,
    scene: &Scene<'_>,
) -> Outcome<Patch<ghostwire_store::domain::Timestamp>> {
    let Some(ends) = ends else { return Ok(Patch::Keep) };
    Ok(ends.at(scene.now)?.map_or(Patch::Clear, Patch::Set))
}

fn updated(id: NodeId, patch: NodePatch) -> NodeCommand {
    NodeCommand::Update { id, patch: Box::new(patch), expected: None }
}

/// A change to the one node that is named.
fn change(target: &str, patch: NodePatch, scene: &Scene<'_>) -> Outcome<Plan> {
    let record = find(Table::Nodes, target, scene)?;
    let EntityRecord::Node(node) = &record else { return Err(super::unlike(&record)) };
    Ok(Plan::on(&record, scene).then(updated(node.id, patch)))
}

#[derive(Debug, Args)]
pub(crate) struct Rename {
    #[command(flatten)]
    of: Target,
    /// The new label; unique.
    #[arg(value_name = "LABEL", value_parser = nonempty())]
    label: Vec<String>,
}

impl Plans for Rename {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let (target, words) = self.of.split(&self.label)?;
        let label: DnsLabel = parsed(only(&words, None)?)?;
        change(target, NodePatch { label: Update::Set(label), ..NodePatch::default() }, scene)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Expire {
    /// When: now, in 7d, at a date. (`node edit --expiration never` takes an expiry back.)
    #[arg(
        short = 'e',
        long,
        visible_alias = "expiry",
        alias = "expiration",
        value_name = "TIME",
        default_value = "now"
    )]
    at: Moment,
    /// Take the expiry back, as in other tools.
    #[arg(long, hide = true, conflicts_with = "at")]
    disable: bool,
    #[command(flatten)]
    chosen: Chosen<NodeSelection>,
}

impl Plans for Expire {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let at = self.at.ahead(scene.now)?;
        let nodes = self.chosen.find(Table::Nodes, scene)?;
        Ok(Plan::each(&nodes, scene, |record| match record {
            EntityRecord::Node(node) if self.disable => {
                let expires_at = Patch::Clear;
                Some(updated(node.id, NodePatch { expires_at, ..NodePatch::default() }))
            }
            EntityRecord::Node(node) => {
                Some(NodeCommand::Expire { nodes: vec![node.id], at, part: Part::WHOLE })
            }
            _ => None,
        }))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Move {
    #[command(flatten)]
    of: Target,
    /// The user who owns it from now on.
    #[arg(value_name = "USER", value_parser = nonempty())]
    to: Vec<String>,
    /// The same, as in other tools.
    #[arg(short, long, alias = "to", value_name = "USER", value_parser = nonempty(), hide = true)]
    user: Option<String>,
}

impl Plans for Move {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let (target, words) = self.of.split(&self.to)?;
        let user = find_user(only(&words, self.user.as_deref())?, scene)?;
        change(target, NodePatch { user: Patch::Set(user), ..NodePatch::default() }, scene)
    }
}

/// What an option lists; the empty text lists nothing.
fn given(listed: Option<&[String]>) -> impl Iterator<Item = &str> {
    listed.unwrap_or_default().iter().map(String::as_str).filter(|word| !word.is_empty())
}

#[derive(Debug, Args)]
pub(crate) struct Retag {
    #[command(flatten)]
    of: Target,
    /// The tags, such as tag:server.
    #[arg(value_name = "TAG", value_parser = nonempty())]
    tags: Vec<String>,
    /// The same, as in other tools.
    #[arg(
        short = 't',
        long = "tags",
        alias = "tag",
        value_name = "TAGS",
        value_delimiter = ',',
        hide = true
    )]
    listed: Option<Vec<String>>,
    /// Add these tags to those that it has.
    #[arg(long, conflicts_with = "remove")]
    add: bool,
    /// Take these tags from those that it has.
    #[arg(long)]
    remove: bool,
    /// Leave it without tags; it needs a user then.
    #[arg(long, conflicts_with_all = ["add", "remove"])]
    clear: bool,
}

impl Plans for Retag {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let (target, words) = self.of.split(&self.tags)?;
        let words = words.into_iter().chain(given(self.listed.as_deref()));
        let tags = words.map(parsed).collect::<Outcome<Vec<Tag>>>()?;
        // Headscale says `-t ""`.
        let is_cleared = self.clear || self.listed.is_some() && !self.add && !self.remove;
        if tags.is_empty() && !is_cleared || !tags.is_empty() && self.clear {
            return Err(usage("name the tags, or leave it without any by --clear"));
        }
        let record = find(Table::Nodes, target, scene)?;
        let EntityRecord::Node(node) = &record else { return Err(super::unlike(&record)) };
        let present = node.tags.iter().cloned();
        let tags = match (self.add, self.remove) {
            (true, _) => TagSet::new(present.chain(tags))?,
            (_, true) => TagSet::new(present.filter(|tag| !tags.contains(tag)))?,
            _ => TagSet::new(tags)?,
        };
        change(target, NodePatch { tags: Update::Set(tags), ..NodePatch::default() }, scene)
    }
}

#[derive(Debug, Args)]
pub(crate) struct ApproveRoutes {
    #[command(flatten)]
    of: Target,
    /// The prefixes, such as 10.0.0.0/8, and of an exit node 0.0.0.0/0 and ::/0. Those of its prefixes that
    /// are not named are approved no longer.
    #[arg(value_name = "PREFIX", value_parser = nonempty())]
    prefixes: Vec<String>,
    /// The same, as in other tools.
    #[arg(short, long, value_name = "PREFIXES", value_delimiter = ',', hide = true)]
    routes: Option<Vec<String>>,
    /// Approve none any longer.
    #[arg(long)]
    clear: bool,
}

impl Plans for ApproveRoutes {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let (target, words) = self.of.split(&self.prefixes)?;
        let words = words.into_iter().chain(given(self.routes.as_deref()));
        let prefixes = words.map(parsed).collect::<Outcome<Vec<Prefix>>>()?;
        // Headscale says `--routes ""`.
        let is_cleared = self.clear || self.routes.is_some();
        if prefixes.is_empty() && !is_cleared || !prefixes.is_empty() && self.clear {
            return Err(usage("name the prefixes, or approve none by --clear"));
        }
        let record = find(Table::Nodes, target, scene)?;
        let EntityRecord::Node(node) = &record else { return Err(super::unlike(&record)) };
        let with_id = |prefix| Ok((RouteId::time_ordered(scene.now, random()?), prefix));
        let prefixes = prefixes.into_iter().map(with_id).collect::<Outcome<_>>()?;
        let command = RouteCommand::Approve { node: node.id, prefixes, expected: None };
        Ok(Plan::on(&record, scene).then(command))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Renumber {
    #[command(flatten)]
    of: Target,
    /// This IPv4 address; without --ipv6 the other one stays.
    #[arg(long, value_name = "ADDRESS")]
    ipv4: Option<Ipv4Addr>,
    /// This IPv6 address; without --ipv4 the other one stays.
    #[arg(long, value_name = "ADDRESS")]
    ipv6: Option<Ipv6Addr>,
}

impl Plans for Renumber {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let record = self.of.find(Table::Nodes, scene)?;
        let EntityRecord::Node(node) = &record else { return Err(super::unlike(&record)) };
        let addresses = match (self.ipv4, self.ipv6) {
            (None, None) => Renumbering::BOTH,
            (ipv4, ipv6) => Renumbering {
                ipv4: ipv4.map_or(NewAddress::Keep, NewAddress::Given),
                ipv6: ipv6.map_or(NewAddress::Keep, NewAddress::Given),
            },
        };
        let command = NodeCommand::Renumber { id: node.id, addresses, expected: None };
        Ok(Plan::on(&record, scene).then(command))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Backfill {
    /// Also take back addresses for which the network settings have no place any more.
    #[arg(long)]
    release: bool,
}

impl Plans for Backfill {
    fn plan(&self, _: &Scene<'_>) -> Outcome<Plan> {
        let (release, part) = (self.release, Part::WHOLE);
        Ok(Plan::of(NodeCommand::BackfillAddresses { release, part }))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Removal {
    #[command(flatten)]
    chosen: Chosen<NodeSelection>,
}

impl Plans for Removal {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let nodes = self.chosen.find(Table::Nodes, scene)?;
        Ok(Plan::each(&nodes, scene, |record| match record {
            EntityRecord::Node(node) => Some(NodeCommand::Delete { id: node.id }),
            _ => None,
        }))
    }
}
