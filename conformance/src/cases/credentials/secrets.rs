//! What is kept of a secret, how credentials look, and how they are refused.

use ghostwire_store_core::repository::preauth_key_hash;
use ghostwire_store_core::secrets::HashKey;

use crate::prelude::*;

cases! {
    stored {
        "secrets" => [
            a_secret_is_shown_once_and_still_checks,
            no_secret_is_among_what_is_kept,
            what_is_kept_is_a_hash_under_the_key_outside,
        ],
        "credential-forms" => [new_credentials_have_mark_public_part_and_secret],
        "one-refusal" => [
            every_reason_gives_the_same_refusal,
            a_preauth_key_is_refused_if_wrong_or_unknown,
        ],
    }
    stored_unopened {
        "secrets" => [without_the_hash_key_credentials_are_crypto_and_all_else_works],
    }
}

async fn a_secret_is_shown_once_and_still_checks(env: &mut TestEnv, store: Opened) {
    let all = Credentials::make(env, &store).await;
    let store = env.reload(store).await;
    all.check(&store).await;
    let store = env.reopen(store).await;
    all.check(&store).await;
}

async fn no_secret_is_among_what_is_kept(env: &mut TestEnv, store: Opened) {
    let all = Credentials::make(env, &store).await;
    // Uses and refusals leave nothing of it either.
    all.check(&store).await;
    store.api_keys().authenticate(&format!("{}x", all.api_text.expose())).await.unwrap_err();
    settle(&store).await;
    let store = env.reload(store).await;
    let secrets = [&all.api_text, &all.preauth_text, &all.session_text]
        .map(|text| text.expose().rsplit_once('-').unwrap().1.to_owned());
    let mut kept: Vec<u8> = Vec::new();
    let view = store.view();
    for image in view.images() {
        kept.extend(format!("{image:?}").bytes());
        let body = image.encode();
        assert!(!body.is_empty(), "{image:?}");
        kept.extend(body);
    }
    let page = PageRequest::first(Limit::MAX);
    let audit = store.audit().query(&AuditQuery::default(), &page).await.unwrap();
    kept.extend(format!("{audit:?}").bytes());
    store.close().await.unwrap();
    let backend = env.open_backend().await;
    let head = backend.head().await.unwrap();
    for table in Table::ALL {
        let scan = Scan { range: KeyRange::all(table), reverse: false, limit: 10_000 };
        for row in backend.scan(scan).await.unwrap().rows {
            kept.extend(row.key.as_bytes());
            kept.extend(row.body);
        }
    }
    let oldest = Serial::new(head.oldest_block.get() - 1);
    for block in backend.blocks(oldest, 10_000).await.unwrap() {
        kept.extend(block.bytes);
    }
    backend.close().await.unwrap();
    for file in env.place().files() {
        kept.extend(std::fs::read(file).unwrap());
    }
    let is_kept = |sought: &[u8]| kept.windows(sought.len()).any(|window| window == sought);
    assert!(is_kept(all.api_key.prefix.as_str().as_bytes()), "the search finds what is there");
    for secret in secrets {
        assert_eq!(secret.len(), 64);
        assert!(!is_kept(secret.as_bytes()));
        assert!(!is_kept(&unhex(&secret)));
    }
}

async fn what_is_kept_is_a_hash_under_the_key_outside(env: &mut TestEnv, store: Opened) {
    let all = Credentials::make(env, &store).await;
    let store = env.reload(store).await;
    let key = env.options().hash_key.unwrap();
    let view = store.view();
    let api = &view.api_keys().get(all.api_key.id).unwrap().hash;
    let preauth = &view.preauth_keys().get(all.preauth_key.id).unwrap().hash;
    let session = &view.sessions().get(all.session.id).unwrap().hash;
    for hash in [api, preauth, session] {
        assert_eq!(hash.scheme(), SecretScheme::Hmac { key_id: key.current().id() });
    }
    let secret = all.preauth_text.expose().rsplit_once('-').unwrap().1;
    assert_eq!(*preauth, preauth_key_hash(key.current(), secret));
    assert_ne!(*preauth, preauth_key_hash(&HashKey::new([4; 32]), secret));
}

async fn without_the_hash_key_credentials_are_crypto_and_all_else_works(env: &mut TestEnv) {
    let store = env.open().await;
    let all = Credentials::make(env, &store).await;
    let store = env.reload(store).await;
    store.close().await.unwrap();
    let mut options = env.options();
    options.hash_key = None;
    let store = env.open_with(options).await;
    let before = store.view().serial();
    for error in all.errors(&store).await {
        assert_eq!(*error.kind(), Crypto, "{error}");
    }
    let new = session_of(all.session.owner, env.options().clock.now().saturating_add(HOUR));
    fails(store.api_keys().create(NewApiKey::default()).await, Crypto);
    fails(store.preauth_keys().create(reusable(all.alice)).await, Crypto);
    fails(store.sessions().begin(new).await, Crypto);
    assert_eq!(store.view().serial(), before, "nothing was made");
    create(&store, "bob").await;
    store.api_keys().revoke(all.api_key.id).await.unwrap();
    let store = env.reopen(store).await;
    store.preauth_keys().authenticate(all.preauth_text.expose()).await.unwrap();
    fails(store.api_keys().authenticate(all.api_text.expose()).await, PermissionDenied);
}

async fn new_credentials_have_mark_public_part_and_secret(env: &mut TestEnv, store: Opened) {
    let all = Credentials::make(env, &store).await;
    let other = Credentials::make_named(env, &store, "bob").await;
    let store = env.reload(store).await;
    let view = store.view();
    let prefix = |id| view.preauth_keys().get(id).unwrap().prefix.clone().unwrap().to_string();
    for all in [&all, &other] {
        let api = view.api_keys().get(all.api_key.id).unwrap().prefix.to_string();
        let session = all.session.id.to_string().replace('-', "");
        for (text, mark, public, length) in [
            (&all.api_text, "gwapi-", api, 12),
            (&all.preauth_text, "gwauth-", prefix(all.preauth_key.id), 12),
            (&all.session_text, "gwsession-", session, 32),
        ] {
            let rest = text.expose().strip_prefix(mark).unwrap();
            let (found, secret) = rest.split_once('-').unwrap();
            assert_eq!(found, public);
            assert_eq!((found.len(), secret.len()), (length, 64));
            let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            assert!(found.bytes().chain(secret.bytes()).all(is_hex));
        }
    }
    assert_ne!(all.api_text.expose(), other.api_text.expose());
    // One kind of credential is not taken for another.
    let texts = [&all.api_text, &all.preauth_text, &all.session_text];
    for (index, text) in texts.into_iter().enumerate() {
        let text = text.expose();
        let outcomes = [
            store.api_keys().authenticate(text).await.map(|_| ()),
            store.preauth_keys().authenticate(text).await.map(|_| ()),
            store.sessions().authenticate(text).await.map(|_| ()),
        ];
        for (other, outcome) in outcomes.into_iter().enumerate() {
            let kind = outcome.map_err(|error| error.kind().clone());
            assert_eq!(kind.err(), (other != index).then_some(PermissionDenied));
        }
    }
}

async fn every_reason_gives_the_same_refusal(env: &mut TestEnv, store: Opened) {
    let now = env.options().clock.now();
    let all = Credentials::make(env, &store).await;
    let expires_at = Some(now.saturating_add(HOUR));
    let new = NewApiKey { expires_at, ..NewApiKey::default() };
    let (_, expiring) = store.api_keys().create(new).await.unwrap();
    let (revoked_key, revoked) = store.api_keys().create(NewApiKey::default()).await.unwrap();
    store.api_keys().revoke(revoked_key.id).await.unwrap();
    let (deleted_key, deleted) = store.api_keys().create(NewApiKey::default()).await.unwrap();
    store.api_keys().delete(deleted_key.id).await.unwrap();
    let new = session_of(all.session.owner, now.saturating_add(HOUR));
    let (_, ending) = store.sessions().begin(new.clone()).await.unwrap();
    let (ended, ended_text) = store.sessions().begin(new).await.unwrap();
    store.sessions().end(ended.id).await.unwrap();
    let store = env.reload(store).await;

    env.clock().set(now.saturating_add(HOUR).saturating_sub(MICROSECOND));
    store.api_keys().authenticate(expiring.expose()).await.unwrap();
    store.sessions().authenticate(ending.expose()).await.unwrap();
    env.clock().set(now.saturating_add(HOUR));
    let mut refusals = Vec::new();
    for text in [
        other_secret(&all.api_text),
        other_public_part(&all.api_text, "gwapi-"),
        expiring.expose().to_owned(),
        revoked.expose().to_owned(),
        deleted.expose().to_owned(),
        other_secret(&revoked),
        all.preauth_text.expose().to_owned(),
        "gwapi-".to_owned(),
        "no.such".to_owned(),
        "é\0".to_owned(),
        String::new(),
    ] {
        refusals.push(store.api_keys().authenticate(&text).await.unwrap_err());
    }
    assert_equal_refusals(&refusals);
    let mut refusals = Vec::new();
    for text in [
        other_secret(&all.session_text),
        other_public_part(&all.session_text, "gwsession-"),
        ending.expose().to_owned(),
        ended_text.expose().to_owned(),
        all.api_text.expose().to_owned(),
        "gwsession--".to_owned(),
        String::new(),
    ] {
        refusals.push(store.sessions().authenticate(&text).await.unwrap_err());
    }
    assert_equal_refusals(&refusals);
}

async fn a_preauth_key_is_refused_if_wrong_or_unknown(env: &mut TestEnv, store: Opened) {
    let all = Credentials::make(env, &store).await;
    let (deleted_key, deleted) = store.preauth_keys().create(reusable(all.alice)).await.unwrap();
    store.preauth_keys().delete(deleted_key.id).await.unwrap();
    let store = env.reload(store).await;
    let mut refusals = Vec::new();
    for text in [
        other_secret(&all.preauth_text),
        other_public_part(&all.preauth_text, "gwauth-"),
        deleted.expose().to_owned(),
        all.api_text.expose().to_owned(),
        "0f".repeat(24),
        "hskey-auth-".to_owned(),
        String::new(),
    ] {
        refusals.push(store.preauth_keys().authenticate(&text).await.unwrap_err());
    }
    assert_equal_refusals(&refusals);
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

fn other_secret(text: &Secret) -> String {
    let mut text = text.expose().to_owned();
    let last = text.pop().unwrap();
    text.push(if last == '0' { '1' } else { '0' });
    text
}

fn other_public_part(text: &Secret, mark: &str) -> String {
    let (public, secret) = text.expose().strip_prefix(mark).unwrap().split_once('-').unwrap();
    format!("{mark}{}-{secret}", "0".repeat(public.len()))
}

fn assert_equal_refusals(refusals: &[Error]) {
    for error in refusals {
        assert_eq!(*error.kind(), PermissionDenied);
        assert_eq!(error.to_string(), refusals[0].to_string());
        assert!(error.context().is_empty(), "{error}");
    }
}

/// One credential of each kind.
pub(super) struct Credentials {
    pub(super) alice: UserId,
    pub(super) api_key: Arc<ApiKey>,
    pub(super) api_text: Secret,
    pub(super) preauth_key: Arc<PreAuthKey>,
    pub(super) preauth_text: Secret,
    pub(super) session: Arc<Session>,
    pub(super) session_text: Secret,
}

impl Credentials {
    pub(super) async fn make(env: &TestEnv, store: &Opened) -> Self {
        Self::make_named(env, store, "alice").await
    }

    async fn make_named(env: &TestEnv, store: &Opened, name: &str) -> Self {
        let alice = user(store, name).await;
        let (api_key, api_text) = store.api_keys().create(api_key_of(alice)).await.unwrap();
        let (preauth_key, preauth_text) =
            store.preauth_keys().create(reusable(alice)).await.unwrap();
        let expires_at = env.options().clock.now().saturating_add(24 * HOUR);
        let new = session_of(SessionOwner::User(alice), expires_at);
        let (session, session_text) = store.sessions().begin(new).await.unwrap();
        Self { alice, api_key, api_text, preauth_key, preauth_text, session, session_text }
    }

    /// All of them are right, and what is one digit off is not.
    pub(super) async fn check(&self, store: &Opened) {
        let found = store.api_keys().authenticate(self.api_text.expose()).await.unwrap();
        assert_eq!(found.id, self.api_key.id);
        let found = store.preauth_keys().authenticate(self.preauth_text.expose()).await.unwrap();
        assert_eq!(found.id, self.preauth_key.id);
        let found = store.sessions().authenticate(self.session_text.expose()).await.unwrap();
        assert_eq!(found, self.session);
        fails(store.api_keys().authenticate(&other_secret(&self.api_text)).await, PermissionDenied);
        fails(
            store.preauth_keys().authenticate(&other_secret(&self.preauth_text)).await,
            PermissionDenied,
        );
        fails(
            store.sessions().authenticate(&other_secret(&self.session_text)).await,
            PermissionDenied,
        );
        settle(store).await;
    }

    async fn errors(&self, store: &Opened) -> [Error; 3] {
        [
            store.api_keys().authenticate(self.api_text.expose()).await.unwrap_err(),
            store.preauth_keys().authenticate(self.preauth_text.expose()).await.unwrap_err(),
            store.sessions().authenticate(self.session_text.expose()).await.unwrap_err(),
        ]
    }
}
