//! Sign-ins that are under way: begun in one process, completed once, in any.

use crate::prelude::*;

cases! {
    stored {
        "sign-ins" => [
            a_sign_in_is_found_by_its_state_until_it_expires,
            sweeping_removes_exactly_the_expired_sign_ins,
            a_sign_in_ends_within_a_day,
            a_state_belongs_to_one_sign_in_at_a_time,
            a_sign_in_is_seen_and_stays,
        ],
        "sign-in-once" => [
            of_many_takes_at_once_one_wins,
            what_was_taken_stays_taken,
            of_many_answers_at_once_one_counts,
        ],
        "sign-in-secrets" => [what_completes_a_sign_in_is_not_shown],
    }
    once {
        "sign-ins" => [there_are_20_000_of_a_purpose_at_most_and_expired_ones_make_room],
    }
}

const STATE: &str = "af0ifjsldkj-3f7Jx0";
const PAYLOAD: &str = r#"{"nonce":"n-0S6_WzA2Mj","verifier":"dBjftJeZ4CVP"}"#;

fn purpose() -> Text<64> {
    text("oidc")
}

fn sign_in(expires_at: Timestamp) -> NewSignIn {
    let payload = SignInPayload::new(PAYLOAD).unwrap();
    NewSignIn { purpose: purpose(), payload, expires_at }
}

async fn take(store: &Opened, state: &str) -> Result<Arc<SignIn>> {
    store.sign_ins().take(&purpose(), state).await
}

async fn a_sign_in_is_found_by_its_state_until_it_expires(env: &mut TestEnv, store: Opened) {
    let begun = store.sign_ins().begin(STATE, sign_in(at(60))).await.unwrap();
    assert_eq!((begun.created_at, begun.expires_at), (at(0), at(60)));
    let late = store.sign_ins().begin("another state", sign_in(at(60))).await.unwrap();
    let store = env.reload(store).await;
    let before = store.view().serial();
    // Refused alike: unknown, of another purpose, expired.
    let longer = format!("{STATE}x");
    let unknown = fails(take(&store, &longer).await, PermissionDenied);
    let other = store.sign_ins().take(&text("device"), STATE).await;
    let other = fails(other, PermissionDenied);
    env.clock().set(at(60).saturating_sub(MICROSECOND));
    assert_eq!(take(&store, STATE).await.unwrap(), begun);
    env.clock().set(at(60));
    let expired = fails(take(&store, "another state").await, PermissionDenied);
    let store = env.reload(store).await;
    assert_eq!(store.view().serial(), before.next(), "one was taken, and nothing else written");
    assert_eq!(store.view().sign_ins().iter().collect::<Vec<_>>(), [&late]);
    for error in [&other, &expired] {
        assert_eq!(error.to_string(), unknown.to_string());
    }
    assert_eq!(unknown.entity(), Some(EntityKind::SignIn));
}

async fn sweeping_removes_exactly_the_expired_sign_ins(env: &mut TestEnv, store: Opened) {
    let mut begun = Vec::new();
    for (number, seconds) in [30, 10, 20, 20, 40].into_iter().enumerate() {
        let state = format!("state {number} of five");
        begun.push(store.sign_ins().begin(&state, sign_in(at(seconds))).await.unwrap());
    }
    let store = env.reload(store).await;
    assert_eq!(store.sign_ins().sweep().await.unwrap(), 0);
    env.advance(20);
    assert_eq!(store.sign_ins().sweep().await.unwrap(), 3);
    let store = env.reload(store).await;
    let left: BTreeSet<_> = store.view().sign_ins().iter().map(|it| it.id).collect();
    assert_eq!(left, [begun[0].id, begun[4].id].into());
    assert_eq!(store.sign_ins().sweep().await.unwrap(), 0);
    // Strangers begin sign-ins, so they leave no lines.
    let lines = store.audit().query(&AuditQuery::default(), &PageRequest::default()).await.unwrap();
    assert!(lines.items.is_empty(), "{lines:?}");
}

async fn a_sign_in_ends_within_a_day(env: &mut TestEnv, store: Opened) {
    let day = at(86_400);
    for end in [at(0), at(-60), Timestamp::EPOCH, day.saturating_add(MICROSECOND), Timestamp::MAX] {
        fails(store.sign_ins().begin(STATE, sign_in(end)).await, InvalidArgument);
    }
    let begun = store.sign_ins().begin(STATE, sign_in(day)).await.unwrap();
    let store = env.reload(store).await;
    // Whoever brings it in: it is none of the store's if nobody knows that it ends, or with what key.
    let forever = SignIn { expires_at: Timestamp::MAX, ..SignIn::clone(&begun) };
    let foreign =
        SecretHash::bcrypt("$2b$04$ABCDEFGHIJKLMNOPQRSTUu5pUYnC0pESokJLt705oY3/ycNDD4BIW");
    let foreign = SignIn { hash: foreign.unwrap(), ..SignIn::clone(&begun) };
    for wrong in [forever, foreign] {
        let images =
            vec![EntityRecord::from(SignIn { id: SignInId::from_bytes([9; 16]), ..wrong })];
        fails(store.restore(Restore { images, skip_invalid: false }).await, InvalidArgument);
    }
    for state in ["", "seven..", &"x".repeat(1025)] {
        let error = fails(store.sign_ins().begin(state, sign_in(day)).await, InvalidArgument);
        assert!(!error.to_string().contains("seven"), "{error}");
        fails(take(&store, state).await, PermissionDenied);
    }
    for state in ["eight...", &"x".repeat(1024)] {
        store.sign_ins().begin(state, sign_in(day)).await.unwrap();
        take(&store, state).await.unwrap();
    }
    assert_eq!(store.view().sign_ins().iter().collect::<Vec<_>>(), [&begun]);
}

async fn a_state_belongs_to_one_sign_in_at_a_time(env: &mut TestEnv, store: Opened) {
    let first = store.sign_ins().begin(STATE, sign_in(at(60))).await.unwrap();
    let store = env.reload(store).await;
    let again = store.sign_ins().begin(STATE, sign_in(at(60))).await;
    fails(again, AlreadyExists { constraint: "hash" });
    assert_eq!(take(&store, STATE).await.unwrap(), first);
    let second = store.sign_ins().begin(STATE, sign_in(at(90))).await.unwrap();
    assert_ne!(second.id, first.id);
    let store = env.reload(store).await;
    assert_eq!(take(&store, STATE).await.unwrap(), second);
}

/// A device asks again and again, and somebody approves it elsewhere.
async fn a_sign_in_is_seen_and_stays(env: &mut TestEnv, store: Opened) {
    let begun = store.sign_ins().begin(STATE, sign_in(at(60))).await.unwrap();
    let store = env.reload(store).await;
    let oidc = purpose();
    let peek = || store.sign_ins().peek(&oidc, STATE);
    assert_eq!(idle(&store, peek()).await, begun);
    let unknown = fails(store.sign_ins().peek(&purpose(), "another state").await, PermissionDenied);
    let other = fails(store.sign_ins().peek(&text("device"), STATE).await, PermissionDenied);
    assert_eq!(other.to_string(), unknown.to_string());
    let approved = SignInPayload::new("approved").unwrap();
    let replace = |from: &SignInPayload, to: &SignInPayload| {
        let (from, to) = (from.clone(), to.clone());
        let store = store.clone();
        async move { store.sign_ins().replace(&purpose(), STATE, &from, to).await }
    };
    refused(&store, replace(&approved, &begun.payload), Conflict).await;
    let replaced = replace(&begun.payload, &approved).await.unwrap();
    assert_eq!(*replaced, SignIn { payload: approved.clone(), ..SignIn::clone(&begun) });
    assert_eq!(idle(&store, replace(&approved, &approved)).await, replaced);
    assert_eq!(peek().await.unwrap(), replaced);
    env.clock().set(at(60));
    fails(peek().await, PermissionDenied);
    refused(&store, replace(&approved, &begun.payload), PermissionDenied).await;
    let store = env.reload(store).await;
    assert_eq!(store.view().sign_ins().iter().collect::<Vec<_>>(), [&replaced]);
    let lines = store.audit().query(&AuditQuery::default(), &PageRequest::default()).await.unwrap();
    assert!(lines.items.is_empty(), "{lines:?}");
}

async fn of_many_answers_at_once_one_counts(env: &mut TestEnv, store: Opened) {
    let begun = store.sign_ins().begin(STATE, sign_in(at(60))).await.unwrap();
    let store = env.reload(store).await;
    let answers = (0..32).map(|number| {
        let (store, pending) = (store.clone(), begun.payload.clone());
        let payload = SignInPayload::new(format!("answer {number}")).unwrap();
        tokio::spawn(
            async move { store.sign_ins().replace(&purpose(), STATE, &pending, payload).await },
        )
    });
    let mut won = Vec::new();
    for answered in join_all(answers).await {
        match answered.unwrap() {
            Ok(sign_in) => won.push(sign_in),
            Err(error) => assert_eq!(*error.kind(), Conflict),
        }
    }
    assert_eq!(won.len(), 1);
    let store = env.reload(store).await;
    assert_eq!(take(&store, STATE).await.unwrap(), won[0]);
}

async fn of_many_takes_at_once_one_wins(env: &mut TestEnv, store: Opened) {
    let begun = store.sign_ins().begin(STATE, sign_in(at(60))).await.unwrap();
    let store = env.reload(store).await;
    let takes = (0..32).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { take(&store, STATE).await })
    });
    let mut won = Vec::new();
    for taken in join_all(takes).await {
        match taken.unwrap() {
            Ok(sign_in) => won.push(sign_in),
            Err(error) => assert_eq!(*error.kind(), PermissionDenied),
        }
    }
    assert_eq!(won, [begun]);
    let store = env.reload(store).await;
    assert!(store.view().sign_ins().is_empty());
}

async fn what_was_taken_stays_taken(env: &mut TestEnv, store: Opened) {
    store.sign_ins().begin(STATE, sign_in(at(60))).await.unwrap();
    let store = env.reload(store).await;
    take(&store, STATE).await.unwrap();
    let store = env.reload(store).await;
    fails(take(&store, STATE).await, PermissionDenied);
    assert!(store.view().sign_ins().is_empty());
}

async fn what_completes_a_sign_in_is_not_shown(env: &mut TestEnv, store: Opened) {
    let begun = store.sign_ins().begin(STATE, sign_in(at(60))).await.unwrap();
    let store = env.reload(store).await;
    let found = store.view().sign_ins().get(begun.id).unwrap().clone();
    assert_eq!(found.payload.expose(), PAYLOAD);
    let key = env.options().hash_key.unwrap().current().clone();
    assert_eq!(found.hash, key.hash("sign_in", STATE));
    let shown = format!("{found:?} {:?} {:?}", sign_in(at(60)), EntityRecord::from(found.clone()));
    let again = store.sign_ins().begin(STATE, sign_in(at(60))).await.unwrap_err();
    let shown = format!("{shown} {again} {again:?}");
    for secret in ["n-0S6_WzA2Mj", "dBjftJeZ4CVP", STATE] {
        assert!(!shown.contains(secret), "{shown}");
    }
    // A copy of the store holds what the store does. Without the state nobody can use it.
    let exported = serde_json::to_string(&EntityRecord::from(found.clone())).unwrap();
    assert!(exported.contains("dBjftJeZ4CVP") && !exported.contains(STATE), "{exported}");
    let image: EntityRecord = serde_json::from_str(&exported).unwrap();
    assert_eq!(image, EntityRecord::from(found));
    let image = vec![image];
    let restored = store.restore(Restore { images: image, skip_invalid: false }).await.unwrap();
    assert_eq!(restored.value.unchanged, 1);
}

async fn there_are_20_000_of_a_purpose_at_most_and_expired_ones_make_room(
    env: &mut TestEnv,
    store: Opened,
) {
    const MOST: u32 = 20_000;
    let image = |number: u32| {
        let mut id = [1; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let mut mac = [2; 32];
        mac[..4].copy_from_slice(&number.to_be_bytes());
        EntityRecord::from(SignIn {
            id: SignInId::from_bytes(id),
            purpose: purpose(),
            hash: SecretHash::hmac([1; 4], mac),
            payload: SignInPayload::new("").unwrap(),
            created_at: at(0),
            expires_at: at(60 + i64::from(number)),
        })
    };
    let images: Vec<_> = (0..MOST).map(image).collect();
    for images in images.chunks(5_000) {
        let restore = Restore { images: images.to_vec(), skip_invalid: false };
        store.restore(restore).await.unwrap();
    }
    let error = fails(store.sign_ins().begin(STATE, sign_in(at(90))).await, Exhausted);
    assert_eq!(error.entity(), Some(EntityKind::SignIn));
    // A flood of one kind stops no other.
    let device = NewSignIn { purpose: text("device"), ..sign_in(at(9_000)) };
    store.sign_ins().begin("a device code", device.clone()).await.unwrap();
    store.sign_ins().take(&device.purpose, "a device code").await.unwrap();
    env.clock().set(at(60));
    store.sign_ins().begin(STATE, sign_in(at(90))).await.unwrap();
    assert_eq!(store.view().sign_ins().len(), MOST as usize);
    assert!(store.view().sign_ins().iter().all(|it| it.expires_at > at(60)));
    fails(store.sign_ins().begin("one more state", sign_in(at(90))).await, Exhausted);
    take(&store, STATE).await.unwrap();
    store.sign_ins().begin("one more state", sign_in(at(90))).await.unwrap();
}
