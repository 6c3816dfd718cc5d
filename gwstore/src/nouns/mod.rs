//! The nouns of the command line: a file for each, with its verbs, how its entities are selected, and
//! what each verb comes to.
//!
//! An edit is a function of the state: it gives a [`Plan`] of commands, which is tried on a copy of the state
//! before anything is written. A dry run ends there, so what it says is what would happen.

mod apikey;
mod audit;
mod dns;
mod edit;
mod node;
mod policy;
mod preauthkey;
mod route;
mod session;
mod setting;
mod target;
mod user;
mod values;

use clap::{Args, Subcommand};
use ghostwire_store::admin::select::Condition;
pub(crate) use ghostwire_store::admin::select::id_of;
use ghostwire_store::command::EntityRecord;
use ghostwire_store::domain::{Clock, Cursor, Limit, Patch, SystemClock, Timestamp, Update};
use ghostwire_store::entropy::{Entropy, SystemEntropy};
use ghostwire_store::{Error, ErrorKind, Result};
use ghostwire_store_core::schema::Table;
use ghostwire_store_core::state::State;

pub(crate) use self::apikey::KeySelection;
pub(crate) use self::audit::{AuditSelection, MetricSelection};
pub(crate) use self::dns::DnsSelection;
use self::edit::{Delete, Edit};
pub(crate) use self::edit::{Expected, How, Issues, Manner, Plan, Plans};
pub(crate) use self::node::{ListedNodes, PresenceSelection};
pub(crate) use self::policy::{Check, Get as GetPolicy, get as policy, unknown_keys};
pub(crate) use self::preauthkey::PreauthKeySelection;
pub(crate) use self::route::{ListedRoutes, RoutesOfNode};
pub(crate) use self::session::SessionSelection;
pub(crate) use self::setting::{Get as GetSetting, get as setting};
pub(crate) use self::target::{
    Chosen, Target, find, label_of, name_of, revision_of, without_secret,
};
pub(crate) use self::user::UserSelection;
pub(crate) use self::values::Moment;
use crate::failure::{Failure, Outcome};

/// What is stored, each with its verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Noun {
    /// People and service accounts.
    #[command(subcommand, visible_alias = "users")]
    User(user::Verb),
    /// The machines of the mesh.
    #[command(subcommand, visible_alias = "nodes", aliases = ["machine", "machines", "peer", "peers"])]
    Node(node::Verb),
    /// Prefixes outside the mesh that nodes lead to.
    #[command(subcommand, visible_alias = "routes")]
    Route(route::Verb),
    /// Keys of either kind.
    #[command(subcommand)]
    Key(Key),
    /// Pre-auth keys: what admits nodes without a person at the keyboard.
    #[command(
        subcommand,
        name = "preauthkey",
        visible_alias = "preauthkeys",
        aliases = ["preauth-key", "preauth-keys", "authkey", "authkeys", "auth-key", "auth-keys",
            "setup-key", "setup-keys"]
    )]
    PreauthKey(preauthkey::Verb),
    /// API keys: what lets programs use the control plane's API.
    #[command(
        subcommand,
        name = "apikey",
        visible_alias = "apikeys",
        aliases = ["api-key", "api-keys"]
    )]
    ApiKey(apikey::Verb),
    /// The access policy and its versions.
    #[command(subcommand, visible_alias = "policies", aliases = ["acl", "acls"])]
    Policy(policy::Verb),
    /// DNS records that the mesh serves beside the labels of nodes.
    #[command(subcommand, aliases = ["dns-record", "dns-records", "record", "records"])]
    Dns(dns::Verb),
    /// Sign-ins that last.
    #[command(subcommand, visible_alias = "sessions")]
    Session(session::Verb),
    /// The documents that hold for the whole network.
    #[command(subcommand, visible_alias = "settings")]
    Setting(setting::Verb),
    /// Who did what.
    #[command(subcommand)]
    Audit(audit::Verb),
}

/// Keys of either kind.
#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Those that admit nodes.
    #[command(subcommand, aliases = ["preauthkey", "pre-auth", "auth"])]
    Preauth(preauthkey::Verb),
    /// Those of programs.
    #[command(subcommand, aliases = ["apikey"])]
    Api(apikey::Verb),
    /// Which of the two is to be said.
    #[command(hide = true, visible_alias = "ls", disable_help_flag = true)]
    List {
        #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
        _arguments: Vec<std::ffi::OsString>,
    },
}

impl Noun {
    pub(crate) fn act(&self) -> Act<'_> {
        match self {
            Self::User(verb) => verb.act(),
            Self::Node(verb) => verb.act(),
            Self::Route(verb) => verb.act(),
            Self::PreauthKey(verb) | Self::Key(Key::Preauth(verb)) => verb.act(),
            Self::Key(Key::List { .. }) => {
                let error = Error::invalid("there are two kinds of keys");
                let help = "`gwstore key preauth list` lists those that admit nodes, `gwstore key api list` \
                            those of programs, and `gwstore keys list` what is in the keyring";
                Act::Unclear(error.with("help", help))
            }
            Self::ApiKey(verb) | Self::Key(Key::Api(verb)) => verb.act(),
            Self::Policy(verb) => verb.act(),
            Self::Dns(verb) => verb.act(),
            Self::Session(verb) => verb.act(),
            Self::Setting(verb) => verb.act(),
            Self::Audit(verb) => verb.act(),
        }
    }
}

/// What `gwstore list` lists.
#[derive(Debug, Subcommand)]
pub(crate) enum Listed {
    /// People and service accounts.
    #[command(alias = "user")]
    Users(ListArgs<UserSelection>),
    /// Machines of the mesh.
    #[command(alias = "node")]
    Nodes(ListArgs<ListedNodes>),
    /// Processes of the control plane.
    #[command(alias = "instance")]
    Instances(ListArgs<Everything>),
    /// Which nodes are online, and when each was last seen.
    Presence(ListArgs<PresenceSelection>),
    /// Prefixes outside the mesh that nodes lead to.
    #[command(alias = "route")]
    Routes(ListArgs<ListedRoutes>),
    /// Keys of programs, never their secrets.
    #[command(aliases = ["apikeys", "apikey", "api-key"])]
    ApiKeys(ListArgs<KeySelection>),
    /// Keys that admit nodes, never their secrets.
    #[command(aliases = ["preauthkeys", "preauthkey", "preauth-key"])]
    PreauthKeys(ListArgs<PreauthKeySelection>),
    /// Versions of the access policy, the newest first.
    #[command(alias = "policy")]
    Policies(ListArgs<Everything>),
    /// DNS records that the mesh serves.
    #[command(alias = "dns")]
    DnsRecords(ListArgs<DnsSelection>),
    /// Sign-ins that last, never their tokens.
    #[command(alias = "session")]
    Sessions(ListArgs<SessionSelection>),
    /// Sign-ins that are under way.
    #[command(alias = "sign-in")]
    SignIns(ListArgs<Everything>),
    /// Documents for the whole network that were set.
    #[command(alias = "setting")]
    Settings(ListArgs<Everything>),
    /// Measured values of nodes and of the network.
    #[command(alias = "metric")]
    Metrics(ListArgs<MetricSelection>),
    /// Who did what.
    Audit(ListArgs<AuditSelection>),
}

impl Listed {
    pub(crate) fn listing(&self) -> Listing<'_> {
        match self {
            Self::Users(args) => args.of(Table::Users),
            Self::Nodes(args) => args.of(Table::Nodes),
            Self::Instances(args) => args.of(Table::Instances),
            Self::Presence(args) => args.of(Table::Presence),
            Self::Routes(args) => args.of(Table::Routes),
            Self::ApiKeys(args) => args.of(Table::ApiKeys),
            Self::PreauthKeys(args) => args.of(Table::PreAuthKeys),
            Self::Policies(args) => args.of(Table::Policies),
            Self::DnsRecords(args) => args.of(Table::DnsRecords),
            Self::Sessions(args) => args.of(Table::Sessions),
            Self::SignIns(args) => args.of(Table::SignIns),
            Self::Settings(args) => args.of(Table::Settings),
            Self::Metrics(args) => {
                Listing { source: Source::Metrics(&args.selection), page: &args.page }
            }
            Self::Audit(args) => args.audit(),
        }
    }
}

/// What a verb wants to be done.
pub(crate) enum Act<'a> {
    List(Listing<'a>),
    Show(Table, &'a ShowArgs),
    Edit(&'a dyn Plans, Manner<'a>),
    /// An edit that makes a secret.
    Issue(&'a dyn Issues, &'a How),
    GetPolicy(&'a GetPolicy),
    CheckPolicy(&'a Check),
    GetSetting(&'a GetSetting),
    /// Nobody guesses what is meant.
    Unclear(Error),
}

/// The state at a moment, which decides what a selection means.
pub(crate) struct Scene<'a> {
    pub(crate) state: &'a State,
    pub(crate) now: Timestamp,
}

impl<'a> Scene<'a> {
    /// Now, as the store sees it: its time may be ahead of the clock.
    pub(crate) fn of(state: &'a State) -> Self {
        Self { state, now: SystemClock.now().max(state.time()) }
    }
}

/// What is to be listed.
pub(crate) struct Listing<'a> {
    pub(crate) source: Source<'a>,
    pub(crate) page: &'a PageArgs,
}

/// Where the items are.
pub(crate) enum Source<'a> {
    State(Table, &'a dyn Selection),
    Metrics(&'a MetricSelection),
    Audit(&'a AuditSelection),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs<S: Args> {
    #[command(flatten)]
    selection: S,
    #[command(flatten)]
    page: PageArgs,
}

impl<S: Args + Selection> ListArgs<S> {
    fn of(&self, table: Table) -> Listing<'_> {
        Listing { source: Source::State(table, &self.selection), page: &self.page }
    }

    fn act(&self, table: Table) -> Act<'_> {
        Act::List(self.of(table))
    }
}

/// How much of a listing, and how it looks.
#[derive(Debug, Args)]
#[command(next_help_heading = "Listing")]
pub(crate) struct PageArgs {
    /// At most so many, 1 to 1000. [default: 100 on a terminal, otherwise everything]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) limit: Option<Limit>,
    /// Where the page before ended.
    #[arg(long, conflicts_with = "all")]
    pub(crate) cursor: Option<Cursor>,
    /// Everything, on a terminal, too.
    #[arg(long)]
    pub(crate) all: bool,
    /// Only these columns of the table, by their titles, in this order: id,label,last-seen.
    #[arg(long, value_name = "TITLES", value_delimiter = ',', value_parser = nonempty())]
    pub(crate) columns: Vec<String>,
    /// Times as they are stored, and not how long ago.
    #[arg(long)]
    pub(crate) absolute_times: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) target: Target,
}

fn nonempty() -> clap::builder::NonEmptyStringValueParser {
    clap::builder::NonEmptyStringValueParser::new()
}

/// Whether an entity is meant.
pub(crate) type Admits<'a> = Box<dyn Fn(&EntityRecord) -> bool + 'a>;

/// Options that say which entities are meant.
pub(crate) trait Selection: std::fmt::Debug {
    /// Whether any is given.
    fn is_given(&self) -> bool;

    /// What is named rather than described, and so has to be there.
    fn names(&self) -> Option<Named<'_>> {
        None
    }

    /// Texts by which they name entities of other tables.
    fn refers(&self) -> Vec<(Table, &str)> {
        Vec::new()
    }

    /// What they mean now; all of them have to hold.
    fn conditions(&self, scene: &Scene<'_>) -> Outcome<Vec<Condition>>;

    /// The same, of entities that are at hand.
    fn admits<'a>(&self, scene: &Scene<'a>) -> Outcome<Admits<'a>> {
        let (conditions, state, now) = (self.conditions(scene)?, scene.state, scene.now);
        Ok(Box::new(move |record| conditions.iter().all(|it| it.holds(record, state, now))))
    }
}

/// An entity that an option names.
pub(crate) struct Named<'a> {
    option: &'static str,
    name: String,
    is_it: Admits<'a>,
}

impl<'a> Named<'a> {
    fn new(
        option: &'static str,
        name: impl ToString,
        is_it: impl Fn(&EntityRecord) -> bool + 'a,
    ) -> Self {
        Self { option, name: name.to_string(), is_it: Box::new(is_it) }
    }
}

/// No options.
#[derive(Debug, Args)]
pub(crate) struct Everything {}

impl Selection for Everything {
    fn is_given(&self) -> bool {
        false
    }

    fn conditions(&self, _: &Scene<'_>) -> Outcome<Vec<Condition>> {
        Ok(Vec::new())
    }
}

/// A mistake on the command line.
fn usage(message: &'static str) -> Failure {
    Failure::usage(Error::invalid(message))
}

/// A word of the command line as what it has to be.
fn parsed<T: std::str::FromStr<Err = Error>>(word: &str) -> Outcome<T> {
    word.parse().map_err(Failure::usage)
}

/// The one word that is wanted, be it by itself or in an option.
fn only<'a>(words: &[&'a str], option: Option<&'a str>) -> Outcome<&'a str> {
    match (words, option) {
        ([word], None) => Ok(*word),
        ([], Some(word)) => Ok(word),
        ([], None) => Err(usage("say what it shall be; --help shows how")),
        _ => Err(usage("too many arguments: one value is wanted")),
    }
}

/// A change to a field that may be unset.
fn patch<T: Clone>(value: Option<&T>, is_cleared: bool) -> Outcome<Patch<T>> {
    match (value, is_cleared) {
        (Some(_), true) => Err(usage("a field is both set and cleared")),
        (Some(value), false) => Ok(Patch::Set(value.clone())),
        (None, true) => Ok(Patch::Clear),
        (None, false) => Ok(Patch::Keep),
    }
}

/// Refuses an edit that says nothing.
fn require_change(has_changes: bool) -> Outcome {
    if has_changes { Ok(()) } else { Err(usage("say what to change; --help lists the options")) }
}

/// A table gave something else than it holds, which it never does.
fn unlike(record: &EntityRecord) -> Failure {
    let error = Error::new(ErrorKind::Unexpected, "a table gave another kind of entity");
    error.about(record.entity()).into()
}

fn update<T: Clone>(value: Option<&T>) -> Update<T> {
    value.cloned().map_or(Update::Keep, Update::Set)
}

/// The conditions that are given.
fn given_ones<const N: usize>(conditions: [Option<Condition>; N]) -> Vec<Condition> {
    conditions.into_iter().flatten().collect()
}

fn random() -> Result<[u8; 10]> {
    let mut random = [0; 10];
    SystemEntropy.fill(&mut random)?;
    Ok(random)
}
