//! `gwstore user`.

use std::path::Path;

use clap::{Args, Subcommand, ValueEnum};
use ghostwire_store::admin::select::Condition;
use ghostwire_store::command::{EntityRecord, Part, UserCommand};
use ghostwire_store::domain::{
    Email, GroupName, GroupSet, Identity, Issuer, JsonObject, NewUser, Patch, Text, Update, User,
    UserId, UserName, UserPatch, UserRole,
};
use ghostwire_store_core::schema::Table;

use super::policy::Input;
use super::values::{given, word};
use super::{
    Act, Chosen, Delete, Edit, ListArgs, Named, Plan, Plans, Scene, Selection, ShowArgs, Target,
    find, given_ones, nonempty, only, parsed, patch, random, update,
};
use crate::failure::{Failure, Outcome};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List users.
    #[command(visible_alias = "ls")]
    List(ListArgs<UserSelection>),
    /// Show all that is known of a user.
    #[command(visible_alias = "get")]
    Show(ShowArgs),
    /// Create a local user, or with --provider and --subject one who signs in through a provider.
    #[command(alias = "add")]
    Create(Edit<Create>),
    /// Change a user.
    #[command(aliases = ["update", "set"])]
    Edit(Edit<Change>),
    /// Give a user another name.
    Rename(Edit<Rename>),
    /// Delete users and their sessions; those who own nodes or keys only with --cascade.
    #[command(visible_alias = "destroy", aliases = ["rm", "remove"])]
    Delete(Delete<Removal>),
}

impl Verb {
    pub(super) fn act(&self) -> Act<'_> {
        match self {
            Self::List(list) => list.act(Table::Users),
            Self::Show(show) => Act::Show(Table::Users, show),
            Self::Create(edit) => edit.act(),
            Self::Edit(edit) => edit.act(),
            Self::Rename(edit) => edit.act(),
            Self::Delete(delete) => delete.act(),
        }
    }
}

/// The user whom a text names.
pub(super) fn find_user(text: &str, scene: &Scene<'_>) -> Outcome<UserId> {
    match find(Table::Users, text, scene)? {
        EntityRecord::User(user) => Ok(user.id),
        other => Err(super::unlike(&other)),
    }
}

/// The users who are meant by options.
#[derive(Debug, Args)]
pub(crate) struct UserSelection {
    /// With this name; several may have it.
    #[arg(long, short_alias = 'n')]
    name: Option<UserName>,
    /// With this e-mail address.
    #[arg(long)]
    email: Option<Email>,
    /// Who sign in through this identity provider.
    #[arg(long)]
    provider: Option<Issuer>,
    /// In this group.
    #[arg(long)]
    group: Option<GroupName>,
    /// With this role.
    #[arg(long, value_parser = word::<UserRole>)]
    role: Option<UserRole>,
}

impl Selection for UserSelection {
    fn is_given(&self) -> bool {
        let Self { name, email, provider, group, role } = self;
        name.is_some() || email.is_some() || provider.is_some() || group.is_some() || role.is_some()
    }

    fn names(&self) -> Option<Named<'_>> {
        let is_user = |record: &EntityRecord, is_it: &dyn Fn(&User) -> bool| match record {
            EntityRecord::User(user) => is_it(user),
            _ => false,
        };
        match (&self.name, &self.email) {
            (Some(name), _) => Some(Named::new("--name", name, move |record| {
                is_user(record, &|user| user.name == *name)
            })),
            (None, Some(email)) => Some(Named::new("--email", email, move |record| {
                is_user(record, &|user| user.email.as_ref() == Some(email))
            })),
            (None, None) => None,
        }
    }

    fn conditions(&self, _: &Scene<'_>) -> Outcome<Vec<Condition>> {
        Ok(given_ones([
            self.name.clone().map(Condition::UserName),
            self.email.clone().map(Condition::Email),
            self.provider.clone().map(Condition::Provider),
            self.group.clone().map(Condition::Group),
            self.role.map(Condition::Role),
        ]))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Unique among local users.
    name: UserName,
    #[command(flatten)]
    fields: Fields,
}

/// What a user has beside a name.
#[derive(Debug, Args)]
struct Fields {
    /// What a person reads.
    #[arg(short, long, value_parser = given::<Text<255>>)]
    display_name: Option<Text<255>>,
    /// E-mail address.
    #[arg(short, long)]
    email: Option<Email>,
    /// What the user may do: owner, admin, network-admin, it-admin, billing-admin, auditor, member.
    #[arg(long, value_parser = word::<UserRole>)]
    role: Option<UserRole>,
    /// Where a picture can be had.
    #[arg(short, long, alias = "picture", value_parser = given::<Text<2048>>)]
    picture_url: Option<Text<2048>>,
    /// The identity provider through which the user signs in.
    #[arg(long, requires = "subject")]
    provider: Option<Issuer>,
    /// How the provider calls the user: its `sub` claim.
    #[arg(long, requires = "provider", value_parser = given::<Text<255>>)]
    subject: Option<Text<255>>,
}

impl Fields {
    fn identity(&self) -> Option<Identity> {
        let (provider, subject) = (self.provider.clone()?, self.subject.clone()?);
        Some(Identity::Oidc { provider, subject })
    }
}

impl Plans for Create {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let id = UserId::time_ordered(scene.now, random()?);
        let user = NewUser {
            display_name: self.fields.display_name.clone(),
            email: self.fields.email.clone(),
            picture_url: self.fields.picture_url.clone(),
            role: self.fields.role.unwrap_or_default(),
            identity: self.fields.identity().unwrap_or(Identity::Local {}),
            ..NewUser::local(self.name.clone())
        };
        Ok(Plan::of(UserCommand::Create { id, user }))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Clearable {
    DisplayName,
    Email,
    PictureUrl,
    Groups,
    Metadata,
}

#[derive(Debug, Args)]
pub(crate) struct Change {
    #[command(flatten)]
    of: Target,
    #[command(flatten)]
    fields: Fields,
    /// What the control plane keeps with the user: a JSON object, or @FILE that has it. It replaces what was
    /// there.
    #[arg(long, value_name = "JSON", value_parser = nonempty())]
    metadata: Option<String>,
    /// The user's groups, all of them. (Of a user of a provider they are the provider's word.)
    #[arg(long, value_name = "GROUPS", value_delimiter = ',')]
    groups: Option<Vec<GroupName>>,
    /// Leave the user without these.
    #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
    clear: Vec<Clearable>,
}

impl Plans for Change {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let record = self.of.find(Table::Users, scene)?;
        let EntityRecord::User(user) = &record else { return Err(super::unlike(&record)) };
        let is_cleared = |field| self.clear.contains(&field);
        let fields = &self.fields;
        let changes = UserPatch {
            name: Update::Keep,
            display_name: patch(fields.display_name.as_ref(), is_cleared(Clearable::DisplayName))?,
            email: patch(fields.email.as_ref(), is_cleared(Clearable::Email))?,
            identity: update(fields.identity().as_ref()),
            picture_url: patch(fields.picture_url.as_ref(), is_cleared(Clearable::PictureUrl))?,
            role: update(fields.role.as_ref()),
            groups: match patch(self.groups.as_ref(), is_cleared(Clearable::Groups))? {
                Patch::Keep => Update::Keep,
                Patch::Clear => Update::Set(GroupSet::empty()),
                Patch::Set(groups) => Update::Set(GroupSet::new(groups)?),
            },
        };
        let given = self.metadata.as_deref().map(metadata).transpose()?;
        let metadata = patch(given.as_ref(), is_cleared(Clearable::Metadata))?;
        let has_changes = changes != UserPatch::default();
        super::require_change(has_changes || metadata != Patch::Keep)?;
        let (id, expected) = (user.id, user.metadata_revision);
        let mut plan = Plan::on(&record, scene);
        if has_changes {
            plan = plan.then(UserCommand::Update { id, patch: changes, expected: None });
        }
        let metadata = match metadata {
            Patch::Keep => return Ok(plan),
            Patch::Clear => None,
            Patch::Set(metadata) => Some(metadata),
        };
        Ok(plan.then(UserCommand::SetMetadata { id, metadata, expected }))
    }
}

/// A JSON object, or the file that has it. What is wrong with it is said without repeating it.
fn metadata(text: &str) -> Outcome<JsonObject> {
    let text = match text.strip_prefix('@') {
        Some(file) => Input::of(Path::new(file)).read()?,
        None => text.to_owned(),
    };
    JsonObject::new(text).map_err(|error| Failure::usage(error.with("option", "--metadata")))
}

#[derive(Debug, Args)]
pub(crate) struct Rename {
    #[command(flatten)]
    of: Target,
    /// The new name.
    #[arg(value_name = "NAME", value_parser = nonempty())]
    name: Vec<String>,
    /// The same, as in other tools.
    #[arg(short = 'r', long, value_name = "NAME", value_parser = nonempty(), hide = true)]
    new_name: Option<String>,
}

impl Plans for Rename {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let (target, words) = self.of.split(&self.name)?;
        let name: UserName = parsed(only(&words, self.new_name.as_deref())?)?;
        let record = find(Table::Users, target, scene)?;
        update_user(&record, UserPatch { name: Update::Set(name), ..UserPatch::default() }, scene)
    }
}

fn update_user(record: &EntityRecord, patch: UserPatch, scene: &Scene<'_>) -> Outcome<Plan> {
    let EntityRecord::User(user) = record else { return Err(super::unlike(record)) };
    let command = UserCommand::Update { id: user.id, patch, expected: None };
    Ok(Plan::on(record, scene).then(command))
}

#[derive(Debug, Args)]
pub(crate) struct Removal {
    /// Also delete what they own: nodes with their routes, pre-auth keys and API keys. Without it users who
    /// own any are not deleted.
    #[arg(long)]
    cascade: bool,
    #[command(flatten)]
    chosen: Chosen<UserSelection>,
}

impl Plans for Removal {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let users = self.chosen.find(Table::Users, scene)?;
        Ok(Plan::each(&users, scene, |record| match record {
            EntityRecord::User(user) => {
                Some(UserCommand::Delete { id: user.id, cascade: self.cascade, part: Part::WHOLE })
            }
            _ => None,
        }))
    }
}
