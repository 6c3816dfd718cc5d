//! The key that hashes credentials: a store knows which one is its own.

use ghostwire_store_core::secrets::{HashKey, HashKeys};

use super::secrets::Credentials;
use crate::prelude::*;

cases! {
    stored {
        "credential-key" => [
            another_key_is_refused_at_opening,
            credentials_outlive_a_rotation_of_their_key,
        ],
    }
    stored_unopened {
        "credential-key" => [a_store_that_had_no_key_takes_the_first],
    }
}

fn with_key(env: &TestEnv, key: Option<u8>) -> StoreOptions {
    let hash_key = key.map(|byte| Arc::new(HashKey::new([byte; 32]).into()));
    StoreOptions { hash_key, ..env.options() }
}

/// The key of the environment.
const OWN: u8 = 3;
const OTHER: u8 = 4;

async fn is_refused(env: &TestEnv, options: StoreOptions) {
    let configured =
        data_encoding::HEXLOWER.encode(&options.hash_key.as_ref().unwrap().current().id());
    let opened = ghostwire_store_core::open(env.open_backend().await, options).await;
    let text = fails(opened, Crypto).to_string();
    assert!(text.contains("secret_key_file") && text.contains(&configured), "{text}");
}

async fn another_key_is_refused_at_opening(env: &mut TestEnv, store: Opened) {
    let all = OneOfEach::make(&store).await;
    store.api_keys().create(NewApiKey::default()).await.unwrap();
    let store = env.reload(store).await;
    let before = (standing(&store).await, store.view().position());
    close(store).await;
    for read_only in [false, true] {
        is_refused(env, StoreOptions { read_only, ..with_key(env, Some(OTHER)) }).await;
    }
    let store = env.open().await;
    assert_eq!((standing(&store).await, store.view().position()), before);
    all.check(&store).await;
    settle(&store).await;
    // It is this key, not just one that nobody has used yet.
    let store = env.reload(store).await;
    store.users().delete(all.user.id, true).await.unwrap();
    let store = env.reload(store).await;
    close(store).await;
    is_refused(env, with_key(env, Some(OTHER))).await;
    // Once no credential is left, another key may take its place; not where others use the store.
    let store = env.open().await;
    let (keys, sessions) = (store.view(), store.view());
    for key in keys.api_keys().iter() {
        store.api_keys().delete(key.id).await.unwrap();
    }
    for key in keys.preauth_keys().iter() {
        store.preauth_keys().delete(key.id).await.unwrap();
    }
    for session in sessions.sessions().iter() {
        store.sessions().end(session.id).await.unwrap();
    }
    let is_shared = store.info().backend.shared;
    let store = env.reload(store).await;
    close(store).await;
    if is_shared {
        is_refused(env, with_key(env, Some(OTHER))).await;
        return close(env.open().await).await;
    }
    let store = env.open_with(with_key(env, Some(OTHER))).await;
    let (_, secret) = store.api_keys().create(NewApiKey::default()).await.unwrap();
    store.api_keys().authenticate(secret.expose()).await.unwrap();
    settle(&store).await;
    close(store).await;
    is_refused(env, with_key(env, Some(OWN))).await;
    close(env.open_with(with_key(env, Some(OTHER))).await).await;
}

async fn credentials_outlive_a_rotation_of_their_key(env: &mut TestEnv, store: Opened) {
    let all = Credentials::make(env, &store).await;
    let until = env.options().clock.now().saturating_add(HOUR);
    let sign_in = NewSignIn {
        purpose: text("oidc"),
        payload: SignInPayload::new("{}").unwrap(),
        expires_at: until,
    };
    store.sign_ins().begin("a state that is long", sign_in).await.unwrap();
    let store = env.reload(store).await;
    close(store).await;
    let rotated = |read_only| {
        let keys = HashKeys::new([OWN, OTHER].map(|byte| HashKey::new([byte; 32]))).unwrap();
        StoreOptions { hash_key: Some(Arc::new(keys)), read_only, ..env.options() }
    };
    // Whoever only reads changes nothing.
    let store = env.open_with(rotated(true)).await;
    close(store).await;
    close(env.open().await).await;
    let store = env.open_with(rotated(false)).await;
    let hashed_with = |store: &Opened| {
        let view = store.view();
        let api = view.api_keys().get(all.api_key.id).unwrap().hash.scheme();
        let preauth = view.preauth_keys().get(all.preauth_key.id).unwrap().hash.scheme();
        let session = view.sessions().get(all.session.id).unwrap().hash.scheme();
        [api, preauth, session]
    };
    let [own, other] = [OWN, OTHER].map(|byte| HashKey::new([byte; 32]));
    let [own, other] = [own, other].map(|key| SecretScheme::Hmac { key_id: key.id() });
    assert_eq!(hashed_with(&store), [own, own, own]);
    all.check(&store).await;
    settle(&store).await;
    assert_eq!(hashed_with(&store), [other, other, own], "sessions are left to expire");
    all.check(&store).await;
    store.sign_ins().take(&text("oidc"), "a state that is long").await.unwrap();
    // What is new is hashed with the new key.
    let (new, secret) = store.api_keys().create(NewApiKey::default()).await.unwrap();
    assert_eq!(new.hash.scheme(), other);
    close(store).await;
    is_refused(env, with_key(env, Some(OWN))).await;
    // Once the old one is retired, nothing but the session is lost.
    let store = env.open_with(with_key(env, Some(OTHER))).await;
    store.api_keys().authenticate(secret.expose()).await.unwrap();
    store.api_keys().authenticate(all.api_text.expose()).await.unwrap();
    store.preauth_keys().authenticate(all.preauth_text.expose()).await.unwrap();
    fails(store.sessions().authenticate(all.session_text.expose()).await, Crypto);
    close(store).await;
}

async fn a_store_that_had_no_key_takes_the_first(env: &mut TestEnv) {
    let known = async |env: &TestEnv| {
        let backend = env.open_backend().await;
        let head = backend.head().await.unwrap();
        backend.close().await.unwrap();
        head.credential_key
    };
    for _ in 0..2 {
        let store = env.open_with(with_key(env, None)).await;
        create(&store, &format!("user-{}", store.view().serial())).await;
        close(store).await;
        assert_eq!(known(env).await, None);
    }
    // Whoever only reads does not decide.
    let options = StoreOptions { read_only: true, ..with_key(env, Some(OTHER)) };
    close(env.open_with(options).await).await;
    assert_eq!(known(env).await, None);
    let store = env.open().await;
    let position = store.view().position();
    assert_eq!(position.get(), 2, "nothing was changed by that");
    store.api_keys().create(NewApiKey::default()).await.unwrap();
    let store = env.reload(store).await;
    close(store).await;
    let own = HashKey::new([OWN; 32]).check(env.opening().store);
    assert_eq!(known(env).await, Some(own));
    is_refused(env, with_key(env, Some(OTHER))).await;
    // Without any key everything but credentials can be used, and it remains known.
    let store = env.open_with(with_key(env, None)).await;
    create(&store, "last").await;
    close(store).await;
    assert_eq!(known(env).await, Some(own));
    is_refused(env, with_key(env, Some(OTHER))).await;
    assert_eq!(names(&env.open().await), ["last", "user-0", "user-1"]);
}
