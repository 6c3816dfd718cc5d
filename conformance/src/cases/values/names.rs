//! What a name may consist of, and what becomes of one that somebody else chose.

use crate::prelude::*;

cases! {
    stored {
        "names" => [
            a_name_from_outside_keeps_what_shows,
            a_name_that_was_stored_before_stays_readable,
        ],
    }
    once_unopened {
        "names" => [a_name_consists_of_characters_that_show],
    }
}

/// Zero width, blank, separating, turning, unassigned and private characters, and a soft hyphen.
const HIDDEN: &str = "\u{ad}\u{34f}\u{61c}\u{200b}\u{200d}\u{2028}\u{2029}\u{202e}\
                      \u{2062}\u{2800}\u{3164}\u{e000}\u{feff}\u{fe0f}\u{fff9}\u{e0001}";

async fn a_name_consists_of_characters_that_show(_: &mut TestEnv) {
    let every = |name: &str| {
        let address = format!("{name}@example.com").parse::<Email>().map(drop);
        let [user, host, actor] = [
            name.parse::<UserName>().map(drop),
            name.parse::<Hostname>().map(drop),
            name.parse::<ActorName>().map(drop),
        ];
        [user, host, actor, address]
    };
    for good in ["Zoë", "王秀英", "søren+1_(x)", "ノート🦀", "e\u{301}", "ß", "\\u{200b}"]
    {
        assert!(every(good).iter().all(Result::is_ok), "{good}");
    }
    for hidden in HIDDEN.chars() {
        for bad in [format!("admin{hidden}"), format!("{hidden}"), format!("ad{hidden}min")] {
            for refused in every(&bad) {
                assert_eq!(*refused.unwrap_err().kind(), InvalidArgument, "{bad:?}");
            }
        }
    }
    for bad in [" ann", "ann ", "a  b", "a\u{a0}b", "a\u{3000}b", "\u{301}ann"] {
        let [user, host, actor, _] = every(bad);
        for refused in [user, host, actor] {
            assert_eq!(*refused.unwrap_err().kind(), InvalidArgument, "{bad:?}");
        }
    }
}

async fn a_name_from_outside_keeps_what_shows(env: &mut TestEnv, store: Opened) {
    let admin = create(&store, "admin").await;
    let claim = "\u{feff} ad\u{ad}min\u{200b}\u{3000}\t2\n";
    let profile = OidcProfile {
        name: UserName::from_outside(claim).unwrap(),
        display_name: Some(text(claim)),
        email: Email::from_outside("admin\u{200b}@example.com").ok(),
        ..profile("1", "admin")
    };
    let user = store.users().upsert_oidc(profile).await.unwrap();
    let admission = Admission::User { user: user.id, method: RegisterMethod::Oidc };
    let reported = |n, name: &str| Registration {
        hostname: Hostname::from_outside(name),
        ..machine(n, admission.clone())
    };
    let named = store.nodes().register(reported(1, "Ann\u{2019}s\u{a0}Mac\n")).await.unwrap();
    let nameless = store.nodes().register(reported(2, "\u{3164}\u{200b}")).await.unwrap();
    let store = env.reload(store).await;
    let found = store.users().get(user.id).await.unwrap().unwrap();
    assert_eq!(found.name.as_str(), "admin 2");
    assert_eq!(found.email.as_ref().unwrap().as_str(), "admin@example.com");
    assert_eq!(found.display_name.as_ref().unwrap().as_str(), claim, "no name, so stored as it is");
    let found = store.users().get_by_name(&UserName::from_outside("adm\u{200d}in").unwrap()).await;
    assert_eq!(found.unwrap(), Some(admin));
    let hostname = |id| {
        let store = &store;
        async move { store.nodes().get(id).await.unwrap().unwrap().hostname.to_string() }
    };
    assert_eq!(hostname(named.id).await, "Ann\u{2019}s Mac");
    assert_eq!(hostname(nameless.id).await, "node");
    assert!(UserName::from_outside("\u{200b}").is_err(), "there is no user without a name");
}

async fn a_name_that_was_stored_before_stays_readable(env: &mut TestEnv, store: Opened) {
    const NAME: &str = "admin\u{200b}";
    let json = format!(
        r#"{{"id":"018df0a0-0000-7000-8000-000000000001","name":"{NAME}","email":"a\u00adb@c",
        "identity":{{"kind":"local"}},"created_at":"2024-02-29T12:00:00Z",
        "updated_at":"2024-02-29T12:00:00Z","revision":1}}"#
    );
    let user: User = serde_json::from_str(&json).unwrap();
    let images = vec![EntityRecord::User(user.clone().into())];
    store.restore(Restore { images, skip_invalid: false }).await.unwrap();
    let entry = r#"{"id":"018df0a0-0000-7000-8000-000000000002","at":"2024-02-29T12:00:00Z",
        "actor":"\u2028","action":"user.create","entity":"user","subject":"x"}"#;
    let entry: AuditEntry = serde_json::from_str(entry).unwrap();
    store.audit().append(vec![entry.clone()]).await.unwrap();
    let store = env.reload(store).await;
    let found = store.users().get(user.id).await.unwrap().unwrap();
    assert_eq!((found.name.as_str(), &*found), (NAME, &user));
    let lines = store.audit().query(&AuditQuery::default(), &PageRequest::default()).await.unwrap();
    assert!(lines.items.iter().any(|line| **line == entry));
    // A change of something else leaves it; a new name has to keep the rule.
    let patch = UserPatch { email: Patch::Clear, ..UserPatch::default() };
    let changed = store.users().update(user.id, patch, None).await.unwrap();
    assert_eq!(changed.name.as_str(), NAME);
    let json = format!(r#"{{"name":{{"set":"{NAME}"}}}}"#);
    assert!(serde_json::from_str::<UserPatch>(&json).is_err());
    assert!(
        serde_json::from_str::<NewUser>(&format!(
            r#"{{"name":"{NAME}","identity":{{"kind":"local"}}}}"#
        ))
        .is_err()
    );
}
