//! Users: who owns nodes and signs in.

use serde::{Deserialize, Serialize};

use super::{
    BoundedSet, Email, GroupName, Issuer, JsonObject, Patch, Revision, Text, Timestamp, Update,
    UserId, UserName,
};
use super::{deserialize_stored, deserialize_stored_option};

/// A person or service account that owns nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Time-ordered identifier; never reused.
    pub id: UserId,
    /// Byte-exact; unique among local users.
    #[serde(deserialize_with = "deserialize_stored")]
    pub name: UserName,
    /// What a person reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<Text<255>>,
    /// ASCII-lowercased; not unique, since identity providers do not promise that.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "deserialize_stored_option"
    )]
    pub email: Option<Email>,
    /// How this user proves who they are.
    pub identity: Identity,
    /// Where a picture of the user can be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture_url: Option<Text<2048>>,
    /// What the user may do in the control plane.
    #[serde(default, skip_serializing_if = "UserRole::is_member")]
    pub role: UserRole,
    /// The user's groups: as the identity provider said at the last sign-in or, of a user of none, as an
    /// administrator did.
    #[serde(default, skip_serializing_if = "GroupSet::is_empty")]
    pub groups: GroupSet,
    /// What else the control plane keeps about the user, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<JsonObject>,
    /// Counts changes of `metadata`, from 1; it goes on when that is cleared. `None` while nothing was
    /// ever set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_revision: Option<Revision>,
    /// When the user was created.
    pub created_at: Timestamp,
    /// When a field last changed, other than `metadata` and `last_sign_in_at`.
    pub updated_at: Timestamp,
    /// When the user was last recorded as signing in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sign_in_at: Option<Timestamp>,
    /// Counts changes, from 1, other than those of `metadata` and `last_sign_in_at`.
    pub revision: Revision,
}

/// At most 256 groups.
pub type GroupSet = BoundedSet<GroupName, 256>;

/// What a user may do in the control plane, which gives each role its meaning. The store keeps it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum UserRole {
    /// To whom the network belongs.
    Owner,
    /// Everything but what only owners may.
    Admin,
    /// The network: policy, routes, DNS.
    NetworkAdmin,
    /// Users and machines.
    ItAdmin,
    /// What the network costs.
    BillingAdmin,
    /// Reads everything, changes nothing.
    Auditor,
    /// The user's own machines.
    #[default]
    Member,
}

impl UserRole {
    /// Every role.
    pub const ALL: [Self; 7] = [
        Self::Owner,
        Self::Admin,
        Self::NetworkAdmin,
        Self::ItAdmin,
        Self::BillingAdmin,
        Self::Auditor,
        Self::Member,
    ];

    /// The name in snake case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::NetworkAdmin => "network_admin",
            Self::ItAdmin => "it_admin",
            Self::BillingAdmin => "billing_admin",
            Self::Auditor => "auditor",
            Self::Member => "member",
        }
    }

    /// Whether it is the role of everybody who was given no other.
    #[must_use]
    pub fn is_member(&self) -> bool {
        *self == Self::Member
    }
}

impl std::fmt::Display for UserRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// How a user proves who they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Identity {
    /// Managed by the administrator of this control plane.
    Local {},
    /// Signed in through an OpenID Connect provider; (provider, subject) is unique.
    Oidc {
        /// The identity provider: the issuer of its tokens.
        #[serde(deserialize_with = "deserialize_stored")]
        provider: Issuer,
        /// The issuer's identifier of the person (the `sub` claim).
        subject: Text<255>,
    },
    /// Known only through the pre-auth keys that it was given.
    PreAuth {},
}

impl Identity {
    /// The same identity with its issuer in the form of today ([`Issuer::canonical`]), by which
    /// identities are compared.
    #[must_use]
    pub fn canonical(&self) -> Self {
        match self {
            Self::Oidc { provider, subject } => {
                Self::Oidc { provider: provider.canonical(), subject: subject.clone() }
            }
            other => other.clone(),
        }
    }
}

/// What is needed to create a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewUser {
    /// Unique among local users.
    pub name: UserName,
    /// What a person reads.
    pub display_name: Option<Text<255>>,
    /// E-mail address, in lower case.
    pub email: Option<Email>,
    /// How the user proves who they are.
    pub identity: Identity,
    /// Where to find a picture of the user.
    pub picture_url: Option<Text<2048>>,
    /// What the user may do.
    #[serde(default)]
    pub role: UserRole,
}

impl NewUser {
    /// A local user with nothing but a name.
    #[must_use]
    pub fn local(name: UserName) -> Self {
        Self {
            name,
            display_name: None,
            email: None,
            identity: Identity::Local {},
            picture_url: None,
            role: UserRole::Member,
        }
    }

    /// The user as it is right after its creation.
    #[must_use]
    pub fn created(self, id: UserId, at: Timestamp) -> User {
        User {
            id,
            name: self.name,
            display_name: self.display_name,
            email: self.email,
            identity: self.identity.canonical(),
            picture_url: self.picture_url,
            role: self.role,
            groups: GroupSet::empty(),
            metadata: None,
            metadata_revision: None,
            created_at: at,
            updated_at: at,
            last_sign_in_at: None,
            revision: Revision::FIRST,
        }
    }
}

/// What an identity provider says about a person at sign-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OidcProfile {
    /// The identity provider: the issuer of its tokens.
    pub provider: Issuer,
    /// The issuer's identifier of the person.
    pub subject: Text<255>,
    /// Preferred user name; [`UserName::from_outside`] makes one of any claim that shows.
    pub name: UserName,
    /// Display name; `None` clears a stored one, since the provider is the authority.
    pub display_name: Option<Text<255>>,
    /// E-mail address; `None` clears.
    pub email: Option<Email>,
    /// Whether the provider vouches for the address (the `email_verified` claim). Matters to
    /// [`LinkBy::VerifiedEmail`] only, and is not stored.
    #[serde(default)]
    pub email_verified: bool,
    /// Picture; `None` clears.
    pub picture_url: Option<Text<2048>>,
    /// The person's groups; none clears.
    #[serde(default)]
    pub groups: GroupSet,
}

/// Whether the first sign-in of a person may become that of a local user who is there already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkBy {
    /// No: it makes a user of its own.
    #[default]
    Nothing,
    /// Yes, of the only local user with the same e-mail address, if the provider vouches for it. Whoever
    /// can have the provider vouch for an address becomes the user who has it here, so this is for
    /// providers that the operator trusts with that.
    VerifiedEmail,
}

/// A change to a user; fields left at `Keep` stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserPatch {
    /// New name; unique among local users.
    pub name: Update<UserName>,
    /// New display name.
    pub display_name: Patch<Text<255>>,
    /// New e-mail address.
    pub email: Patch<Email>,
    /// How the user proves who they are from now on. A local user who is given an identity of a provider
    /// signs in through it, and keeps all it owns.
    pub identity: Update<Identity>,
    /// Where a picture can be had now.
    pub picture_url: Patch<Text<2048>>,
    /// New role.
    pub role: Update<UserRole>,
    /// All groups from now on, of a user who has no identity of a provider: those of the others are the
    /// provider's word.
    pub groups: Update<GroupSet>,
}

/// Which users to list; all of the given conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserFilter {
    /// This name, byte-exact.
    pub name: Option<UserName>,
    /// This e-mail address.
    pub email: Option<Email>,
    /// Signed in through this identity provider.
    pub provider: Option<Issuer>,
    /// In this group, byte-exact.
    pub group: Option<GroupName>,
    /// With this role.
    pub role: Option<UserRole>,
}
