//! After an import everybody comes back: each machine with its own keys, each person through the identity
//! provider, each program with its key. All of them must get what they had.

use std::sync::Arc;

use ghostwire_store::domain::{
    Admission, Identity, NewPreAuthKey, Node, NodeKey, OidcProfile, RegisterMethod, Registration,
    Update, User, UserPatch,
};
use ghostwire_store::{Opener, Store};

use crate::support::Place;

/// The text of credentials that the import brought.
#[derive(Default)]
pub(crate) struct Texts {
    pub(crate) api_keys: &'static [&'static str],
    pub(crate) preauth_keys: &'static [&'static str],
}

/// Has everybody come back to the imported store of a backend, which has so many users and nodes.
#[track_caller]
pub(crate) fn everybody_has_what_they_had(
    place: &Place,
    backend: &str,
    (users, nodes): (usize, usize),
    texts: &Texts,
) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Opener::new(&place.config(backend)).open().await.unwrap();
        let view = store.view();
        assert_eq!((view.users().len(), view.nodes().len()), (users, nodes));
        for text in texts.api_keys {
            store.api_keys().authenticate(text).await.unwrap();
        }
        for text in texts.preauth_keys {
            store.preauth_keys().authenticate(text).await.unwrap();
        }
        for node in view.nodes().iter() {
            machine_comes_back(&*store, node).await;
        }
        for user in view.users().iter() {
            person_comes_back(&*store, user).await;
        }
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

async fn person_comes_back(store: &dyn Store, user: &Arc<User>) {
    let nodes = |store: &dyn Store| store.view().nodes().of_user(user.id).collect::<Vec<_>>();
    let before = nodes(store);
    let identity = match &user.identity {
        Identity::Local {} => {
            // Who has no identity is given one.
            let identity = Identity::Oidc {
                provider: "https://new.example".parse().unwrap(),
                subject: user.id.to_string().parse().unwrap(),
            };
            let patch =
                UserPatch { identity: Update::Set(identity.clone()), ..UserPatch::default() };
            store.users().update(user.id, patch, Some(user.revision)).await.unwrap();
            identity
        }
        other => other.clone(),
    };
    let Identity::Oidc { provider, subject } = identity else { return };
    // Providers end their issuers with a slash, or do not.
    for provider in [format!("{provider}/"), provider.to_string()] {
        let profile = OidcProfile {
            provider: provider.parse().unwrap(),
            subject: subject.clone(),
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
