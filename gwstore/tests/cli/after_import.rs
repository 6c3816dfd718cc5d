//! After an import everybody comes back: each machine with its own keys, each person through the identity
//! provider, each program with its key. All of them must get what they had.

use std::sync::Arc;

use ghostwire_store::domain::{
    Admission, Identity, NewPreAuthKey, Node, NodeKey, OidcProfile, RegisterMethod, Registration,
    Update, User, UserPatch,
};
use ghostwire_store::{Opener, Store};

use crate::support::Place;

/// What those who come back show, as they have it: nothing of it is read from the store.
#[derive(Default)]
pub(crate) struct Shown {
    /// The text of credentials that the import brought.
    pub(crate) api_keys: &'static [&'static str],
    pub(crate) preauth_keys: &'static [&'static str],
    /// Who signs in through a provider: the name of the user, and the issuer and subject that the
    /// provider's tokens have.
    pub(crate) people: &'static [(&'static str, &'static str, &'static str)],
}

/// Has everybody come back to the imported store of a backend, which has so many users and nodes.
#[track_caller]
pub(crate) fn everybody_has_what_they_had(
    place: &Place,
    backend: &str,
    (users, nodes): (usize, usize),
    shown: &Shown,
) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Opener::new(&place.config(backend)).open().await.unwrap();
        let view = store.view();
        assert_eq!((view.users().len(), view.nodes().len()), (users, nodes));
        for text in shown.api_keys {
            store.api_keys().authenticate(text).await.unwrap();
        }
        for text in shown.preauth_keys {
            store.preauth_keys().authenticate(text).await.unwrap();
        }
        for node in view.nodes().iter() {
            machine_comes_back(&*store, node).await;
        }
        for (name, issuer, subject) in shown.people {
            let is_it = |user: &&Arc<User>| {
                user.name.as_str() == *name && matches!(user.identity, Identity::Oidc { .. })
            };
            let mut found = view.users().iter().filter(is_it);
            let user = found.next().unwrap_or_else(|| panic!("{name} has no identity"));
            assert!(found.next().is_none(), "several are called {name}");
            sign_in(&*store, user, issuer, subject).await;
        }
        let others = view.users().iter().filter(|user| user.identity == (Identity::Local {}));
        let mut count = shown.people.len();
        for user in others {
            is_given_an_identity(&*store, user).await;
            count += 1;
        }
        assert_eq!(count, users, "somebody signs in through a provider, and nobody says as whom");
        let after = store.view();
        assert_eq!((after.users().len(), after.nodes().len()), (users, nodes));
        let routes = |view: &ghostwire_store::View| -> Vec<_> {
            view.routes().iter().map(|route| (route.node, route.prefix, route.approved)).collect()
        };
        assert_eq!(routes(&after), routes(&view));
        store.close().await.unwrap();
    });
}

async fn machine_comes_back(store: &dyn Store, node: &Arc<Node>) {
    let registration = |admission| Registration {
        machine_key: node.machine_key,
        node_key: node.node_key,
        disco_key: node.disco_key,
        hostname: node.hostname.clone(),
        host_info: node.host_info.clone(),
        admission,
        expires_at: node.expires_at,
        families: None,
    };
    let has_expired = node.expires_at.is_some_and(|at| at <= store.clock().now().unwrap());
    let fresh = NewPreAuthKey {
        user: node.user,
        tags: node.tags.clone(),
        ephemeral: node.ephemeral,
        reusable: true,
        expires_at: None,
    };
    let (fresh, _) = store.preauth_keys().create(fresh).await.unwrap();
    let fresh = Admission::PreAuthKey(fresh.id);
    // With the keys that it has.
    let own = match (node.preauth_key, node.user) {
        (Some(key), _) if !has_expired => {
            let again = registration(Admission::PreAuthKey(key));
            assert_eq!(store.nodes().register(again).await.unwrap(), *node);
            Admission::PreAuthKey(key)
        }
        (_, Some(user)) => {
            let method = match node.register_method {
                RegisterMethod::AuthKey => RegisterMethod::Cli,
                other => other,
            };
            Admission::User { user, method }
        }
        _ => fresh.clone(),
    };
    has_what_it_had(node, &store.nodes().register(registration(own)).await.unwrap());
    // With a new node key, which only a valid key or its owner admits.
    let mut bytes = *node.node_key.as_bytes();
    bytes[0] ^= 0xff;
    let node_key = NodeKey::from_bytes(bytes).unwrap();
    let renewed = Registration { node_key, expires_at: None, ..registration(fresh) };
    let renewed = store.nodes().register(renewed).await.unwrap();
    assert_eq!(renewed.node_key, node_key);
    has_what_it_had(node, &renewed);
}

fn has_what_it_had(before: &Node, after: &Node) {
    assert_eq!((after.id, &after.label), (before.id, &before.label));
    assert_eq!((after.ipv4, after.ipv6), (before.ipv4, before.ipv6));
    assert_eq!((after.user, &after.tags), (before.user, &before.tags));
    assert_eq!((after.ephemeral, after.created_at), (before.ephemeral, before.created_at));
}

/// Who has no identity is given one, and signs in with it.
async fn is_given_an_identity(store: &dyn Store, user: &Arc<User>) {
    const ISSUER: &str = "https://new.example";
    let subject = user.id.to_string();
    let identity =
        Identity::Oidc { provider: ISSUER.parse().unwrap(), subject: subject.parse().unwrap() };
    let patch = UserPatch { identity: Update::Set(identity), ..UserPatch::default() };
    store.users().update(user.id, patch, Some(user.revision)).await.unwrap();
    sign_in(store, user, ISSUER, &subject).await;
}

/// The provider says who it is: that has to be this user, who has what it had.
async fn sign_in(store: &dyn Store, user: &Arc<User>, issuer: &str, subject: &str) {
    let nodes = |store: &dyn Store| store.view().nodes().of_user(user.id).collect::<Vec<_>>();
    let before = nodes(store);
    // Providers end their issuers with a slash, or do not.
    for issuer in [format!("{issuer}/"), issuer.to_owned()] {
        let profile = OidcProfile {
            provider: issuer.parse().unwrap(),
            subject: subject.parse().unwrap(),
            name: user.name.clone(),
            display_name: None,
            email: None,
            email_verified: false,
            picture_url: None,
            groups: user.groups.clone(),
        };
        let signed_in = store.users().upsert_oidc(profile).await.unwrap();
        assert_eq!((signed_in.id, signed_in.created_at), (user.id, user.created_at));
        assert_eq!(nodes(store), before);
    }
}
