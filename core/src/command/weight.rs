//! What commands own, about, so that what waits for the writer is bounded in bytes.

use super::{
    ApiKeyCommand, Command, DnsCommand, EntityRecord, NodeCommand, PolicyCommand, Precondition,
    Restore, RouteCommand, SettingCommand, SignInCommand, Transaction, UserCommand,
};
use crate::domain::{Endpoint, GroupName, Update};

/// What a command owns at most whose fields are all short.
pub(crate) const LIGHT: usize = 4096;

/// What an entity takes whose fields are all short, about.
const ENTITY: usize = 1024;

/// A settings document as JSON is at most this long. To count would take longer than to read it.
const SETTING: usize = 1024 * 1024;

/// A tag with its text, about.
const TAG: usize = 64;

/// A permission with its text, about.
const PERMISSION: usize = 64;

/// A group with its text, at most.
const GROUP: usize = size_of::<GroupName>() + GroupName::MAX_BYTES;

impl Command {
    /// How many bytes of memory it owns, about, and rather too many. It takes time in proportion to
    /// the length of lists of commands and of entities, and otherwise next to none.
    pub(crate) fn weight(&self) -> usize {
        LIGHT
            + match self {
                Self::ApiKey(ApiKeyCommand::Create { key, .. }) => {
                    key.permissions.len() * PERMISSION
                }
                Self::User(UserCommand::Update { patch, .. }) => match &patch.groups {
                    Update::Set(groups) => groups.len() * GROUP,
                    Update::Keep => 0,
                },
                Self::User(UserCommand::UpsertOidc { profile, .. }) => profile.groups.len() * GROUP,
                Self::User(UserCommand::SetMetadata { metadata: Some(metadata), .. }) => {
                    metadata.as_str().len()
                }
                Self::Node(NodeCommand::Register { registration, .. }) => {
                    registration.host_info.as_str().len()
                }
                Self::Node(NodeCommand::Update { patch, .. }) => match &patch.host_info {
                    Update::Set(host_info) => host_info.as_str().len(),
                    Update::Keep => 0,
                },
                Self::Node(NodeCommand::Expire { nodes, .. }) => size_of_val(nodes.as_slice()),
                Self::SignIn(SignInCommand::Begin { sign_in, .. }) => {
                    sign_in.payload.expose().len()
                }
                Self::SignIn(SignInCommand::Replace { from, to, .. }) => {
                    from.expose().len() + to.expose().len()
                }
                Self::Route(
                    RouteCommand::Advertise { prefixes, .. }
                    | RouteCommand::Approve { prefixes, .. },
                ) => size_of_val(prefixes.as_slice()),
                Self::DnsRecord(DnsCommand::Put { values, .. }) => {
                    let texts = values.iter().map(|(_, value)| value.as_str().len());
                    size_of_val(values.as_slice()) + texts.sum::<usize>()
                }
                Self::Route(RouteCommand::Elect { prefixes }) => size_of_val(prefixes.as_slice()),
                Self::Policy(PolicyCommand::Swap { document, .. }) => document.as_str().len(),
                Self::Setting(SettingCommand::Put { .. }) => SETTING,
                Self::Restore(Restore { images, .. }) => images.iter().map(image).sum(),
                Self::Transaction(Transaction { preconditions, commands }) => {
                    size_of_val(preconditions.as_slice())
                        + preconditions.iter().map(precondition).sum::<usize>()
                        + commands.iter().map(Self::weight).sum::<usize>()
                }
                // All fields are short.
                _ => 0,
            }
    }
}

/// What it owns besides itself.
fn precondition(precondition: &Precondition) -> usize {
    match precondition {
        Precondition::DnsRecordSet(name, ..) => name.as_str().len(),
        _ => 0,
    }
}

fn image(image: &EntityRecord) -> usize {
    ENTITY
        + match image {
            EntityRecord::User(user) => {
                user.groups.len() * GROUP
                    + user.metadata.as_ref().map_or(0, |metadata| metadata.as_str().len())
            }
            EntityRecord::Node(node) => node.host_info.as_str().len() + node.tags.len() * TAG,
            EntityRecord::Presence(presence) => presence.endpoints.len() * size_of::<Endpoint>(),
            EntityRecord::PreAuthKey(key) => key.tags.len() * TAG,
            EntityRecord::ApiKey(key) => key.permissions.len() * PERMISSION,
            EntityRecord::SignIn(sign_in) => sign_in.payload.expose().len(),
            EntityRecord::Policy(policy) => policy.document.as_str().len(),
            EntityRecord::Setting(_) => SETTING,
            // All fields are short.
            _ => 0,
        }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::command::{Part, PresenceCommand, UserCommand};
    use crate::domain::{DocumentText, NewUser, NodeId, Timestamp, UserId};

    #[test]
    fn long_texts_and_lists_weigh_what_they_are() {
        let create = || UserCommand::Create {
            id: UserId::from_bytes([1; 16]),
            user: NewUser::local("alice".parse().unwrap()),
        };
        assert_eq!(Command::from(create()).weight(), LIGHT);
        assert_eq!(
            Command::from(PresenceCommand::DisconnectAll { of: None, part: Part::WHOLE }).weight(),
            LIGHT
        );
        let document = DocumentText::new("x".repeat(1_000_000)).unwrap();
        let swap = PolicyCommand::Swap { expected: None, document };
        assert_eq!(Command::from(swap.clone()).weight(), LIGHT + 1_000_000);
        let nodes = vec![NodeId::from_bytes([1; 16]); 1000];
        let expire = NodeCommand::Expire { nodes, at: Timestamp::EPOCH, part: Part::WHOLE };
        assert_eq!(Command::from(expire).weight(), LIGHT + 16_000);
        let both = Transaction::new().then(create()).unwrap().then(swap).unwrap();
        assert_eq!(Command::from(both).weight(), 3 * LIGHT + 1_000_000);
    }
}
