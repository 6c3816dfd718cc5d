//! Credentials that were made elsewhere: their text stays, and their hashes are replaced.

use std::future::poll_fn;
use std::task::Poll;

use ghostwire_store_core::repository::preauth_key_hash;

use crate::prelude::*;

cases! {
    stored {
        "credential-forms" => [imported_credentials_keep_their_text],
        "imported-hashes" => [
            an_imported_hash_is_replaced_at_its_first_use,
            a_wrong_secret_replaces_nothing,
            what_bcrypt_takes_for_the_secret_is_wrong,
            a_key_that_ended_costs_no_check,
            a_hash_above_cost_14_is_crypto,
            a_newer_hash_is_never_overwritten,
            concurrent_first_uses_replace_it_once,
            a_key_without_a_public_part_is_found_by_its_newest_hash,
            keys_with_a_blake3_hash_are_found_by_their_text,
        ],
    }
    once {
        "imported-hashes" => [
            a_hash_of_cost_14_is_checked,
            an_imported_hash_is_checked_while_the_writer_is_busy,
            guesses_at_a_key_delay_nothing_else,
        ],
    }
}

async fn imported_credentials_keep_their_text(env: &mut TestEnv, store: Opened) {
    let now = env.options().clock.now();
    let key = env.options().hash_key.unwrap().current().clone();
    let alice = create(&store, "alice").await;
    // The public part of such a key may contain the separator.
    let recent = api_key(1, "ab-cd_Ef-123", BCRYPT_2A, now);
    let older = api_key(2, "XyZ7890", BCRYPT_2B, now);
    let preauth = preauth_key(3, Some("zz-yy_Xx-987"), bcrypt(BCRYPT_2Y), alice.id, now);
    let plain = "0f".repeat(24);
    let bare = preauth_key(4, None, preauth_key_hash(&key, &plain), alice.id, now);
    let images = vec![
        EntityRecord::from(recent.clone()),
        EntityRecord::from(older.clone()),
        EntityRecord::from(preauth.clone()),
        EntityRecord::from(bare.clone()),
    ];
    store.restore(Restore { images, skip_invalid: false }).await.unwrap();
    let store = env.reload(store).await;
    let api = [
        (format!("hskey-api-ab-cd_Ef-123-{SECRET}"), recent.id),
        (format!("XyZ7890.{SECRET}"), older.id),
    ];
    let preauths = [(format!("hskey-auth-zz-yy_Xx-987-{SECRET}"), preauth.id), (plain, bare.id)];
    for _ in 0..2 {
        for (text, id) in &api {
            assert_eq!(store.api_keys().authenticate(text).await.unwrap().id, *id);
            fails(store.preauth_keys().authenticate(text).await, PermissionDenied);
        }
        for (text, id) in &preauths {
            assert_eq!(store.preauth_keys().authenticate(text).await.unwrap().id, *id);
            fails(store.api_keys().authenticate(text).await, PermissionDenied);
        }
        // The second time with the hashes that replaced the imported ones.
        settle(&store).await;
    }
    let store = env.reload(store).await;
    for (text, id) in &api {
        assert_eq!(store.api_keys().authenticate(text).await.unwrap().id, *id);
    }
    for (text, id) in &preauths {
        assert_eq!(store.preauth_keys().authenticate(text).await.unwrap().id, *id);
    }
}

/// Keys of Ghostwire, whose texts have no public part and were hashed as a whole.
async fn keys_with_a_blake3_hash_are_found_by_their_text(env: &mut TestEnv, store: Opened) {
    let now = env.options().clock.now();
    let alice = create(&store, "alice").await;
    // The BLAKE3 of an empty text, and of `abc`.
    const NOTHING: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    const ABC: &str = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
    let hash = |digits: &str| SecretHash::parse(&format!("blake3:{digits}")).unwrap();
    let prefix = |digits: &str| format!("b3-{}", &digits[..24]);
    let api = ApiKey { hash: hash(ABC), ..api_key(1, &prefix(ABC), BCRYPT_2A, now) };
    let preauth = preauth_key(2, Some(&prefix(ABC)), hash(ABC), alice.id, now);
    let revoked = ApiKey {
        hash: hash(NOTHING),
        revoked_at: Some(now),
        ..api_key(3, &prefix(NOTHING), BCRYPT_2A, now)
    };
    // By another public part nobody would ever find it.
    let lost = ApiKey { prefix: "abc".parse().unwrap(), ..api.clone() };
    let lost = vec![EntityRecord::from(lost)];
    fails(store.restore(Restore { images: lost, skip_invalid: false }).await, InvalidArgument);
    let bare = vec![EntityRecord::from(PreAuthKey { prefix: None, ..preauth.clone() })];
    fails(store.restore(Restore { images: bare, skip_invalid: false }).await, InvalidArgument);
    let images = vec![
        EntityRecord::from(api.clone()),
        EntityRecord::from(preauth.clone()),
        EntityRecord::from(revoked),
    ];
    store.restore(Restore { images, skip_invalid: false }).await.unwrap();
    let store = env.reload(store).await;
    for wrong in ["abd", "ab", "", "abc.", &prefix(ABC), ABC] {
        fails(store.api_keys().authenticate(wrong).await, PermissionDenied);
        fails(store.preauth_keys().authenticate(wrong).await, PermissionDenied);
    }
    for _ in 0..2 {
        assert_eq!(store.api_keys().authenticate("abc").await.unwrap().id, api.id);
        assert_eq!(store.preauth_keys().authenticate("abc").await.unwrap().id, preauth.id);
        // The second time with the hashes that replaced the imported ones.
        settle(&store).await;
    }
    assert_eq!(store.info().imported_hash_checks, 0, "it takes no thread of its own");
    let store = env.reload(store).await;
    let key_id = env.options().hash_key.unwrap().current().id();
    let view = store.view();
    let found =
        (view.api_keys().get(api.id).unwrap(), view.preauth_keys().get(preauth.id).unwrap());
    for hash in [&found.0.hash, &found.1.hash] {
        assert_eq!(hash.scheme(), SecretScheme::Hmac { key_id });
    }
    assert_eq!((found.0.revision.get(), found.1.revision.get()), (2, 2));
    assert_eq!(store.api_keys().authenticate("abc").await.unwrap().id, api.id);
    fails(store.api_keys().authenticate("abd").await, PermissionDenied);
}

async fn an_imported_hash_is_replaced_at_its_first_use(env: &mut TestEnv, store: Opened) {
    let imported = Imported::bring(env, &store, bcrypt(BCRYPT_2A)).await;
    let store = env.reload(store).await;
    imported.check(&store).await.unwrap();
    settle(&store).await;
    let store = env.reload(store).await;
    let key_id = env.options().hash_key.unwrap().current().id();
    for (hash, revision) in imported.hashes(&store) {
        assert_eq!(hash.scheme(), SecretScheme::Hmac { key_id });
        assert_eq!(revision.get(), 2);
    }
    let page = PageRequest::default();
    let audit = store.audit().query(&AuditQuery::default(), &page).await.unwrap().items;
    assert!(audit.iter().all(|entry| entry.action.as_str() == "user.create"), "{audit:?}");
    imported.check(&store).await.unwrap();
    settle(&store).await;
    let store = env.reload(store).await;
    assert!(imported.hashes(&store).iter().all(|(_, revision)| revision.get() == 2));
}

async fn a_wrong_secret_replaces_nothing(env: &mut TestEnv, store: Opened) {
    let imported = Imported::bring(env, &store, bcrypt(BCRYPT_2A)).await;
    let wrong = SECRET.replace('f', "e");
    for (api, preauth) in [(imported.api_text(&wrong), imported.preauth_text(&wrong))] {
        fails(store.api_keys().authenticate(&api).await, PermissionDenied);
        fails(store.preauth_keys().authenticate(&preauth).await, PermissionDenied);
    }
    settle(&store).await;
    let store = env.reload(store).await;
    for (hash, revision) in imported.hashes(&store) {
        assert_eq!((hash, revision), (bcrypt(BCRYPT_2A), Revision::FIRST));
    }
    imported.check(&store).await.unwrap();
}

async fn what_bcrypt_takes_for_the_secret_is_wrong(env: &mut TestEnv, store: Opened) {
    let imported = Imported::bring(env, &store, bcrypt(BCRYPT_2A)).await;
    let store = env.reload(store).await;
    // bcrypt ends a secret with a zero, repeats it, and reads 72 bytes.
    let again = format!("{SECRET}\0{}", &SECRET[..7]);
    for wrong in [again.clone(), format!("{again} and more"), format!("{SECRET}\0")] {
        let error = store.api_keys().authenticate(&imported.api_text(&wrong)).await.unwrap_err();
        assert_eq!(*error.kind(), PermissionDenied, "{wrong:?}");
        let text = imported.preauth_text(&wrong);
        let error = store.preauth_keys().authenticate(&text).await.unwrap_err();
        assert_eq!(*error.kind(), PermissionDenied, "{wrong:?}");
    }
    assert_eq!(store.info().imported_hash_checks, 0);
    settle(&store).await;
    let store = env.reload(store).await;
    imported.check(&store).await.unwrap();
}

async fn a_key_that_ended_costs_no_check(env: &mut TestEnv, store: Opened) {
    let now = env.options().clock.now();
    let alice = user(&store, "alice").await;
    let ended = Some(now);
    let api = |n: u8| api_key(n, &format!("abcdef01234{n}"), BCRYPT_2A, now);
    let preauth = |n: u8| {
        let prefix = format!("543210fedcb{n}");
        preauth_key(n, Some(&prefix), bcrypt(BCRYPT_2A), alice, now)
    };
    let used_up = PreAuthKey { reusable: false, used_at: ended, revoked_at: ended, ..preauth(5) };
    let images = vec![
        EntityRecord::from(ApiKey { revoked_at: ended, ..api(1) }),
        EntityRecord::from(ApiKey { expires_at: ended, ..api(2) }),
        EntityRecord::from(PreAuthKey { revoked_at: ended, ..preauth(3) }),
        EntityRecord::from(PreAuthKey { expires_at: ended, ..preauth(4) }),
        EntityRecord::from(used_up.clone()),
    ];
    store.restore(Restore { images, skip_invalid: false }).await.unwrap();
    let store = env.reload(store).await;
    for secret in [SECRET, "a guess"] {
        for n in [1, 2] {
            let text = format!("hskey-api-abcdef01234{n}-{secret}");
            let error = store.api_keys().authenticate(&text).await.unwrap_err();
            assert_eq!(*error.kind(), PermissionDenied, "{n}");
        }
        for n in [3, 4] {
            let text = format!("hskey-auth-543210fedcb{n}-{secret}");
            let error = store.preauth_keys().authenticate(&text).await.unwrap_err();
            assert_eq!(*error.kind(), PermissionDenied, "{n}");
        }
    }
    assert_eq!(store.info().imported_hash_checks, 0);
    // The machine that used a key up may ask again with it.
    let text = format!("hskey-auth-543210fedcb5-{SECRET}");
    assert_eq!(store.preauth_keys().authenticate(&text).await.unwrap().id, used_up.id);
    assert_eq!(store.info().imported_hash_checks, 1);
}

async fn a_hash_above_cost_14_is_crypto(env: &mut TestEnv, store: Opened) {
    let costly = bcrypt(&BCRYPT_2A.replacen("$04$", "$15$", 1));
    let imported = Imported::bring(env, &store, costly.clone()).await;
    let store = env.reload(store).await;
    fails(store.api_keys().authenticate(&imported.api_text(SECRET)).await, Crypto);
    let text = imported.preauth_text(SECRET);
    fails(store.preauth_keys().authenticate(&text).await, Crypto);
    settle(&store).await;
    assert!(imported.hashes(&store).iter().all(|(hash, _)| *hash == costly));
}

async fn a_newer_hash_is_never_overwritten(env: &mut TestEnv, store: Opened) {
    let imported = Imported::bring(env, &store, bcrypt(BCRYPT_2A)).await;
    imported.check(&store).await.unwrap();
    settle(&store).await;
    let store = env.reload(store).await;
    let newer = imported.hashes(&store);
    // What a check that began before the hash was replaced would send now.
    let (from, to) = (bcrypt(BCRYPT_2A), SecretHash::hmac([9; 4], [9; 32]));
    let (api, preauth) = (imported.api, imported.preauth);
    let late = Transaction::new()
        .then(ApiKeyCommand::Rehash { id: api, from: from.clone(), to: to.clone() })
        .unwrap()
        .then(PreAuthKeyCommand::Rehash { id: preauth, from, to })
        .unwrap();
    let before = store.view().serial();
    store.transact(late).await.unwrap();
    assert_eq!(store.view().serial(), before);
    let store = env.reload(store).await;
    assert_eq!(imported.hashes(&store), newer);
    imported.check(&store).await.unwrap();
}

async fn concurrent_first_uses_replace_it_once(env: &mut TestEnv, store: Opened) {
    let imported = Imported::bring(env, &store, bcrypt(BCRYPT_2A)).await;
    let text: Arc<str> = imported.api_text(SECRET).into();
    let checks: Vec<_> = (0..8)
        .map(|_| {
            let (store, text) = (store.clone(), text.clone());
            tokio::spawn(async move { store.api_keys().authenticate(&text).await })
        })
        .collect();
    for check in checks {
        assert_eq!(check.await.unwrap().unwrap().id, imported.api);
    }
    settle(&store).await;
    let store = env.reload(store).await;
    let key = store.view().api_keys().get(imported.api).unwrap().clone();
    assert_eq!(key.revision.get(), 2);
    assert_eq!(store.api_keys().authenticate(&text).await.unwrap().id, imported.api);
}

async fn a_key_without_a_public_part_is_found_by_its_newest_hash(env: &mut TestEnv, store: Opened) {
    let now = env.options().clock.now();
    let hash_key = env.options().hash_key.unwrap().current().clone();
    let alice = create(&store, "alice").await;
    let hash_of = |text: &str| preauth_key_hash(&hash_key, text);
    let (older, newer) = ("0f".repeat(24), "1e".repeat(24));
    let key = preauth_key(1, None, hash_of(&older), alice.id, now);
    let images = vec![EntityRecord::from(key.clone())];
    store.restore(Restore { images, skip_invalid: false }).await.unwrap();
    let (from, to) = (hash_of(&older), hash_of(&newer));
    let replace = PreAuthKeyCommand::Rehash { id: key.id, from, to };
    store.transact(Transaction::new().then(replace).unwrap()).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(store.preauth_keys().authenticate(&newer).await.unwrap().id, key.id);
    fails(store.preauth_keys().authenticate(&older).await, PermissionDenied);
}

async fn a_hash_of_cost_14_is_checked(env: &mut TestEnv, store: Opened) {
    let imported = Imported::bring(env, &store, bcrypt(BCRYPT_COST_14)).await;
    let text = imported.api_text(SECRET);
    assert_eq!(store.api_keys().authenticate(&text).await.unwrap().id, imported.api);
}

async fn an_imported_hash_is_checked_while_the_writer_is_busy(env: &mut TestEnv, store: Opened) {
    let imported = Imported::bring(env, &store, bcrypt(BCRYPT_2A)).await;
    let hold = env.faults().hold_commits();
    let write = spawn_create(&store, "bob");
    until_held(env).await;
    imported.check(&store).await.unwrap();
    assert!(!write.is_finished());
    drop(hold);
    write.await.unwrap().unwrap();
    settle(&store).await;
    assert!(imported.hashes(&store).iter().all(|(_, revision)| revision.get() == 2));
}

async fn guesses_at_a_key_delay_nothing_else(env: &mut TestEnv, store: Opened) {
    const GUESSES: usize = 600;
    let slow = bcrypt(&BCRYPT_2A.replacen("$04$", "$08$", 1));
    let imported = Imported::bring(env, &store, slow).await;
    let (asked, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let guesses: Vec<_> = (0..GUESSES)
        .map(|number| {
            let text = imported.api_text(&format!("guess {number}"));
            let (store, asked, answered) = (store.clone(), asked.clone(), answered.clone());
            tokio::spawn(async move {
                let mut check = std::pin::pin!(store.api_keys().authenticate(&text));
                let first = poll_fn(|context| Poll::Ready(check.as_mut().poll(context))).await;
                asked.fetch_add(1, Ordering::SeqCst);
                let answer = match first {
                    Poll::Ready(answer) => answer,
                    Poll::Pending => check.await,
                };
                answered.fetch_add(1, Ordering::SeqCst);
                answer.unwrap_err()
            })
        })
        .collect();
    while asked.load(Ordering::SeqCst) < GUESSES {
        tokio::task::yield_now().await;
    }
    let page = PageRequest::default();
    let lines = store.audit().query(&AuditQuery::default(), &page).await.unwrap().items;
    assert!(!lines.is_empty());
    let before = answered.load(Ordering::SeqCst);
    assert!(before < GUESSES / 10, "{before} of {GUESSES} guesses were answered first");
    // Another key is checked between two of them.
    let text = imported.preauth_text("a guess");
    fails(store.preauth_keys().authenticate(&text).await, PermissionDenied);
    let before = answered.load(Ordering::SeqCst);
    assert!(before < GUESSES / 10, "{before} of {GUESSES} guesses were answered first");
    guesses.iter().for_each(tokio::task::JoinHandle::abort);
}

/// What the bcrypt hashes below are of.
const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const BCRYPT_2A: &str = "$2a$04$abcdefghijklmnopqrstuuQSLmioUYOEmKTL16wobTks4j4shJ2JG";
const BCRYPT_2B: &str = "$2b$04$ABCDEFGHIJKLMNOPQRSTUu5pUYnC0pESokJLt705oY3/ycNDD4BIW";
const BCRYPT_2Y: &str = "$2y$04$./ABCDEFGHIJKLMNOPQRSu4aKwKRN1.AuMKhh0zflbwwsyqzy0Xum";
const BCRYPT_COST_14: &str = "$2a$14$abcdefghijklmnopqrstuucU4jntYCE/oEyX0zWFfKDUQYMpTrQAS";

fn bcrypt(text: &str) -> SecretHash {
    SecretHash::bcrypt(text).unwrap()
}

fn api_key(n: u8, prefix: &str, hash: &str, at: Timestamp) -> ApiKey {
    ApiKey {
        id: ApiKeyId::time_ordered(at, [n; 10]),
        prefix: prefix.parse().unwrap(),
        hash: bcrypt(hash),
        user: None,
        description: None,
        permissions: PermissionSet::empty(),
        created_by: None,
        created_at: at,
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
        revision: Revision::FIRST,
    }
}

fn preauth_key(
    n: u8,
    prefix: Option<&str>,
    hash: SecretHash,
    user: UserId,
    at: Timestamp,
) -> PreAuthKey {
    PreAuthKey {
        id: PreAuthKeyId::time_ordered(at, [n; 10]),
        prefix: prefix.map(|prefix| prefix.parse().unwrap()),
        hash,
        user: Some(user),
        tags: TagSet::empty(),
        reusable: true,
        ephemeral: false,
        used_at: None,
        created_at: at,
        expires_at: None,
        revoked_at: None,
        revision: Revision::FIRST,
    }
}

/// An API key and a pre-auth key whose hashes were made elsewhere.
struct Imported {
    api: ApiKeyId,
    preauth: PreAuthKeyId,
}

impl Imported {
    async fn bring(env: &TestEnv, store: &Opened, hash: SecretHash) -> Self {
        let now = env.options().clock.now();
        let alice = user(store, "alice").await;
        let api = ApiKey { hash: hash.clone(), ..api_key(1, "abcdef012345", BCRYPT_2A, now) };
        let preauth = preauth_key(2, Some("543210fedcba"), hash, alice, now);
        let imported = Self { api: api.id, preauth: preauth.id };
        let images = vec![EntityRecord::from(api), EntityRecord::from(preauth)];
        store.restore(Restore { images, skip_invalid: false }).await.unwrap();
        imported
    }

    fn api_text(&self, secret: &str) -> String {
        format!("hskey-api-abcdef012345-{secret}")
    }

    fn preauth_text(&self, secret: &str) -> String {
        format!("hskey-auth-543210fedcba-{secret}")
    }

    async fn check(&self, store: &Opened) -> Result<(), Error> {
        let api = store.api_keys().authenticate(&self.api_text(SECRET)).await?;
        assert_eq!(api.id, self.api);
        let preauth = store.preauth_keys().authenticate(&self.preauth_text(SECRET)).await?;
        assert_eq!(preauth.id, self.preauth);
        Ok(())
    }

    fn hashes(&self, store: &Opened) -> [(SecretHash, Revision); 2] {
        let view = store.view();
        let api = view.api_keys().get(self.api).unwrap();
        let preauth = view.preauth_keys().get(self.preauth).unwrap();
        [(api.hash.clone(), api.revision), (preauth.hash.clone(), preauth.revision)]
    }
}
