//! Users: names, identities, and what goes with them.

use crate::prelude::*;

cases! {
    stored {
        "user-name" => [
            a_local_name_is_unique_to_the_byte,
            users_of_a_provider_may_share_names,
            a_freed_name_can_be_taken_again,
        ],
        "oidc-identity" => [
            a_sign_in_creates_the_user_or_brings_it_up_to_date,
            provider_and_subject_together_are_unique,
            addresses_of_mail_may_be_shared,
        ],
        "sign-in-time" => [
            a_sign_in_is_recorded_once_a_minute_and_is_no_change,
            the_providers_sign_ins_are_recorded_too,
        ],
        "user-groups" => [
            groups_are_what_the_provider_said_last,
            groups_are_edited_where_no_provider_says_them,
            users_are_listed_by_group,
        ],
        "user-role" => [a_role_is_given_and_no_provider_takes_it],
        "user-metadata" => [
            metadata_have_a_revision_of_their_own,
            metadata_that_were_never_set_can_be_required,
        ],
        "issuers" => [
            an_issuer_is_the_same_however_it_is_written,
            an_issuer_that_was_stored_before_is_found_and_rewritten_at_sign_in,
        ],
        "link-identity" => [
            a_local_user_can_be_given_an_identity,
            a_verified_address_links_a_sign_in_only_if_that_is_asked_for,
        ],
        "delete-user" => [
            what_a_user_owns_keeps_it,
            its_sessions_go_in_any_case,
            the_cascade_takes_everything_of_it_and_nothing_else,
        ],
    }
}

async fn a_local_name_is_unique_to_the_byte(env: &mut TestEnv, store: Opened) {
    let ann = create(&store, "Ann").await;
    let store = env.reload(store).await;
    let error = store.users().create(local("Ann")).await.unwrap_err();
    assert_eq!(error.constraint(), Some("name"));
    let lower = create(&store, "ann").await;
    let rename =
        |name: &str| UserPatch { name: Update::Set(name.parse().unwrap()), ..UserPatch::default() };
    let error = store.users().update(lower.id, rename("Ann"), None).await.unwrap_err();
    assert_eq!(error.constraint(), Some("name"));
    // Its own name is no duplicate.
    store.users().update(ann.id, rename("Ann"), None).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(by_name(&store, "Ann").await, Some(ann));
    assert_eq!(by_name(&store, "ann").await, Some(lower));
    assert_eq!(by_name(&store, "ANN").await, None);
    let known = NewUser { identity: Identity::PreAuth {}, ..local("ann") };
    store.users().create(known).await.unwrap();
}

async fn users_of_a_provider_may_share_names(env: &mut TestEnv, store: Opened) {
    let own = create(&store, "ann").await;
    let first = store.users().upsert_oidc(profile("1", "ann")).await.unwrap();
    let second = store.users().upsert_oidc(profile("2", "ann")).await.unwrap();
    let store = env.reload(store).await;
    // By name there is only the local one.
    assert_eq!(by_name(&store, "ann").await, Some(own.clone()));
    let filter = UserFilter { name: Some("ann".parse().unwrap()), ..UserFilter::default() };
    let all = store.users().list(&filter, &PageRequest::default()).await.unwrap();
    let mut expected = [own.clone(), first, second];
    expected.sort_by_key(|user| user.id);
    assert_eq!(all.items, expected);
    store.users().delete(own.id, false).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(by_name(&store, "ann").await, None);
}

async fn a_freed_name_can_be_taken_again(env: &mut TestEnv, store: Opened) {
    let first = create(&store, "ann").await;
    store.users().delete(first.id, false).await.unwrap();
    let store = env.reload(store).await;
    let second = create(&store, "ann").await;
    assert_ne!(second.id, first.id);
    let patch = UserPatch { name: Update::Set("eve".parse().unwrap()), ..UserPatch::default() };
    let renamed = store.users().update(second.id, patch, None).await.unwrap();
    let store = env.reload(store).await;
    let third = create(&store, "ann").await;
    let store = env.reload(store).await;
    assert_eq!(by_name(&store, "eve").await, Some(renamed));
    assert_eq!(by_name(&store, "ann").await, Some(third));
    assert_eq!(store.users().get(first.id).await.unwrap(), None);
}

async fn a_sign_in_creates_the_user_or_brings_it_up_to_date(env: &mut TestEnv, store: Opened) {
    let full = OidcProfile {
        display_name: Some(text("Ann")),
        email: Some("ann@example.com".parse().unwrap()),
        picture_url: Some(text("https://example.com/ann.png")),
        ..profile("1", "ann")
    };
    let created = store.users().upsert_oidc(full.clone()).await.unwrap();
    assert_eq!(created.identity, identity("1"));
    assert_eq!((created.revision.get(), created.email.clone()), (1, full.email.clone()));
    let store = env.reload(store).await;
    env.advance(60);
    let same = store.users().upsert_oidc(full).await.unwrap();
    let recorded = User { last_sign_in_at: Some(at(60)), ..User::clone(&created) };
    assert_eq!(same, Arc::new(recorded), "nothing new but the time");
    // The provider is the authority: what it leaves out is cleared.
    let changed = store.users().upsert_oidc(profile("1", "anna")).await.unwrap();
    let store = env.reload(store).await;
    let found = store.users().get_by_identity(&identity("1")).await.unwrap().unwrap();
    assert_eq!(found, changed);
    assert_eq!((found.id, found.created_at, found.updated_at), (created.id, at(0), at(60)));
    assert_eq!((found.name.as_str(), found.revision.get()), ("anna", 2));
    assert_eq!((&found.display_name, &found.email, &found.picture_url), (&None, &None, &None));
    assert_eq!(store.view().users().len(), 1);
}

async fn provider_and_subject_together_are_unique(env: &mut TestEnv, store: Opened) {
    let first = store.users().upsert_oidc(profile("1", "ann")).await.unwrap();
    let store = env.reload(store).await;
    let new = NewUser { identity: identity("1"), ..local("other") };
    let error = fails(store.users().create(new).await, AlreadyExists { constraint: "identity" });
    assert_eq!(error.entity(), Some(EntityKind::User));
    let elsewhere =
        OidcProfile { provider: issuer("https://other.example"), ..profile("1", "ann") };
    let second = store.users().upsert_oidc(elsewhere).await.unwrap();
    let third = store.users().upsert_oidc(profile("2", "ann")).await.unwrap();
    let fourth =
        OidcProfile { provider: issuer("https://id.example.com/x"), ..profile("1", "ann") };
    let fourth = store.users().upsert_oidc(fourth).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(store.view().users().len(), 4);
    for user in [first, second, third, fourth] {
        let found = store.users().get_by_identity(&user.identity).await.unwrap();
        assert_eq!(found, Some(user));
    }
    assert_eq!(store.users().get_by_identity(&identity("3")).await.unwrap(), None);
    assert_eq!(store.users().get_by_identity(&Identity::Local {}).await.unwrap(), None);
}

async fn addresses_of_mail_may_be_shared(env: &mut TestEnv, store: Opened) {
    let email: Option<Email> = Some("team@example.com".parse().unwrap());
    for name in ["a", "b"] {
        store.users().create(NewUser { email: email.clone(), ..local(name) }).await.unwrap();
    }
    let signed_in = OidcProfile { email: email.clone(), ..profile("1", "c") };
    store.users().upsert_oidc(signed_in).await.unwrap();
    let store = env.reload(store).await;
    let filter = UserFilter { email, ..UserFilter::default() };
    let found = store.users().list(&filter, &PageRequest::default()).await.unwrap();
    assert_eq!(found.items.len(), 3);
}

async fn a_sign_in_is_recorded_once_a_minute_and_is_no_change(
    env: &mut TestEnv,
    mut store: Opened,
) {
    let ann = create(&store, "ann").await;
    assert_eq!(ann.last_sign_in_at, None);
    let start = env.options().clock.now();
    let second = Duration::from_secs(1);
    for (after, recorded) in
        [(Duration::ZERO, 0), (60 * second - MICROSECOND, 0), (60 * second, 60), (119 * second, 60)]
    {
        env.clock().set(start.saturating_add(after));
        let user = store.users().record_sign_in(ann.id).await.unwrap();
        assert_eq!(user.last_sign_in_at, Some(start.saturating_add(recorded * second)));
        assert_eq!((user.revision, user.updated_at), (ann.revision, ann.updated_at));
        store = env.reload(store).await;
        assert_eq!(store.users().get(ann.id).await.unwrap(), Some(user));
    }
    // One commit for making the user, two for its sign-ins, which leave no lines.
    assert_eq!(store.view().serial().get(), 3);
    let audit = store.audit().query(&AuditQuery::default(), &PageRequest::default()).await.unwrap();
    assert_eq!(audit.items.len(), 1);
    fails(store.users().record_sign_in(UserId::from_bytes([9; 16])).await, NotFound);
}

async fn the_providers_sign_ins_are_recorded_too(env: &mut TestEnv, store: Opened) {
    let created = store.users().upsert_oidc(profile("1", "ann")).await.unwrap();
    assert_eq!(created.last_sign_in_at, Some(at(0)));
    env.advance(59);
    assert_eq!(store.users().upsert_oidc(profile("1", "ann")).await.unwrap(), created);
    env.advance(1);
    let again = store.users().upsert_oidc(profile("1", "ann")).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(again, Arc::new(User { last_sign_in_at: Some(at(60)), ..User::clone(&created) }));
    // With a change there is a write in any case.
    env.advance(1);
    let renamed = store.users().upsert_oidc(profile("1", "anna")).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(store.users().get(created.id).await.unwrap(), Some(renamed.clone()));
    assert_eq!((renamed.last_sign_in_at, renamed.revision.get()), (Some(at(61)), 2));
}

fn groups(names: &[&str]) -> GroupSet {
    GroupSet::new(names.iter().map(|name| name.parse().unwrap())).unwrap()
}

async fn groups_are_what_the_provider_said_last(env: &mut TestEnv, store: Opened) {
    let said = |names| OidcProfile { groups: groups(names), ..profile("1", "ann") };
    let created = store.users().upsert_oidc(said(&["staff", "Admins", "staff"])).await.unwrap();
    let store = env.reload(store).await;
    let found = store.users().get(created.id).await.unwrap().unwrap();
    let names: Vec<_> = found.groups.iter().map(GroupName::as_str).collect();
    assert_eq!(names, ["Admins", "staff"], "sorted bytewise, each once");
    let same = store.users().upsert_oidc(said(&["Admins", "staff"])).await.unwrap();
    assert_eq!(same, created);
    let changed = store.users().upsert_oidc(said(&["staff"])).await.unwrap();
    assert_eq!((changed.groups.len(), changed.revision.get()), (1, 2));
    let cleared = store.users().upsert_oidc(said(&[])).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(store.users().get(created.id).await.unwrap(), Some(cleared.clone()));
    assert!(cleared.groups.is_empty());
    let many = (0..256).map(|number| format!("group {number}").parse().unwrap());
    assert!(GroupSet::new(many.clone()).is_ok());
    let error = GroupSet::new(many.chain(["one more".parse().unwrap()])).unwrap_err();
    assert_eq!(*error.kind(), InvalidArgument);
}

async fn groups_are_edited_where_no_provider_says_them(env: &mut TestEnv, store: Opened) {
    let ann = create(&store, "ann").await;
    let patch = |names| UserPatch { groups: Update::Set(groups(names)), ..UserPatch::default() };
    let ann = store.users().update(ann.id, patch(&["staff"]), Some(ann.revision)).await.unwrap();
    assert_eq!((&ann.groups, ann.revision.get()), (&groups(&["staff"]), 2));
    let said = OidcProfile { groups: groups(&["staff"]), ..profile("1", "bob") };
    let bob = store.users().upsert_oidc(said).await.unwrap();
    let store = env.reload(store).await;
    refused(&store, store.users().update(bob.id, patch(&["admins"]), None), Restricted).await;
    let same = idle(&store, store.users().update(bob.id, patch(&["staff"]), None)).await;
    assert_eq!(same, bob);
    // Once she has an identity the provider says them.
    let email = Some("ann@example.org".parse().unwrap());
    let set = UserPatch { email: Patch::Set("ann@example.org".parse().unwrap()), ..patch(&["a"]) };
    store.users().update(ann.id, set, None).await.unwrap();
    let said = OidcProfile { email, email_verified: true, ..profile("2", "ann") };
    let linked = store.users().upsert_oidc_linking(said, LinkBy::VerifiedEmail).await.unwrap();
    assert_eq!((linked.id, linked.groups.is_empty()), (ann.id, true));
    let store = env.reload(store).await;
    refused(&store, store.users().update(ann.id, patch(&["a"]), None), Restricted).await;
    assert_eq!(store.users().get(ann.id).await.unwrap(), Some(linked));
}

async fn users_are_listed_by_group(env: &mut TestEnv, store: Opened) {
    let mut made = Vec::new();
    for (subject, names) in
        [("1", &["staff"][..]), ("2", &["admins", "staff"]), ("3", &["Staff"]), ("4", &[])]
    {
        let profile = OidcProfile { groups: groups(names), ..profile(subject, "ann") };
        made.push(store.users().upsert_oidc(profile).await.unwrap());
    }
    let store = env.reload(store).await;
    for (group, members) in
        [("staff", &made[..2]), ("admins", &made[1..2]), ("Staff", &made[2..3]), ("sta", &[])]
    {
        let filter = UserFilter { group: group.parse().ok(), ..UserFilter::default() };
        let one = PageRequest::first(Limit::new(1).unwrap());
        let mut listed = store.users().list(&filter, &one).await.unwrap();
        let mut found = listed.items;
        while let Some(next) = listed.next {
            let request = PageRequest::after(one.limit, next);
            listed = store.users().list(&filter, &request).await.unwrap();
            found.extend(listed.items);
        }
        found.sort_by_key(|user| user.id);
        let mut members = members.to_vec();
        members.sort_by_key(|user| user.id);
        assert_eq!(found, members, "{group}");
    }
}

async fn a_role_is_given_and_no_provider_takes_it(env: &mut TestEnv, store: Opened) {
    let first = NewUser { role: UserRole::Owner, ..local("ann") };
    let owner = store.users().create(first).await.unwrap();
    let bob = store.users().upsert_oidc(profile("1", "bob")).await.unwrap();
    assert_eq!(bob.role, UserRole::Member);
    let patch = UserPatch { role: Update::Set(UserRole::Auditor), ..UserPatch::default() };
    let auditor = store.users().update(bob.id, patch.clone(), Some(bob.revision)).await.unwrap();
    assert_eq!((auditor.role, auditor.revision.get()), (UserRole::Auditor, 2));
    assert_eq!(store.users().update(bob.id, patch, None).await.unwrap(), auditor);
    let store = env.reload(store).await;
    let renamed = store.users().upsert_oidc(profile("1", "robert")).await.unwrap();
    assert_eq!(renamed.role, UserRole::Auditor);
    let store = env.reload(store).await;
    for (role, user) in [(UserRole::Owner, &owner), (UserRole::Auditor, &renamed)] {
        let filter = UserFilter { role: Some(role), ..UserFilter::default() };
        let listed = store.users().list(&filter, &PageRequest::default()).await.unwrap();
        assert_eq!(listed.items, std::slice::from_ref(user));
    }
    let back = UserPatch { role: Update::Set(UserRole::Member), ..UserPatch::default() };
    let member = store.users().update(bob.id, back, None).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(store.users().get(bob.id).await.unwrap(), Some(member));
}

async fn metadata_have_a_revision_of_their_own(env: &mut TestEnv, store: Opened) {
    let ann = create(&store, "ann").await;
    let notes = |text: &str| Some(JsonObject::new(text).unwrap());
    env.advance(1);
    let set = store.users().set_metadata(ann.id, notes(r#"{ "plan": 1 }"#), None).await.unwrap();
    assert_eq!((set.metadata_revision, set.updated_at), (Some(Revision::FIRST), ann.updated_at));
    let store = env.reload(store).await;
    assert_eq!(store.users().get(ann.id).await.unwrap(), Some(set.clone()));
    // An edit of the user is none of its metadata, nor the other way round.
    let patch = UserPatch { display_name: Patch::Set(text("Ann")), ..UserPatch::default() };
    store.users().update(ann.id, patch, Some(ann.revision)).await.unwrap();
    let first = set.metadata_revision;
    let second = store.users().set_metadata(ann.id, notes("{}"), first).await.unwrap();
    assert_eq!(second.metadata_revision, first.map(Revision::next));
    let before = store.view().serial();
    fails(store.users().set_metadata(ann.id, notes("{}"), first).await, Conflict);
    fails(store.users().set_metadata(ann.id, None, first).await, Conflict);
    let same = store.users().set_metadata(ann.id, notes("{}"), None).await.unwrap();
    assert_eq!((same, store.view().serial()), (second.clone(), before));
    // It goes on when they are cleared, so that nobody takes the next ones for these.
    let cleared = store.users().set_metadata(ann.id, None, second.metadata_revision).await.unwrap();
    assert_eq!((&cleared.metadata, cleared.metadata_revision.unwrap().get()), (&None, 3));
    let store = env.reload(store).await;
    assert_eq!(store.users().get(ann.id).await.unwrap(), Some(cleared));
    let nobody = UserId::from_bytes([9; 16]);
    fails(store.users().set_metadata(nobody, None, None).await, NotFound);
    let lines = store.audit().query(&AuditQuery::default(), &PageRequest::default()).await.unwrap();
    let set = lines.items.iter().filter(|line| line.action.as_str() == "user.set_metadata");
    assert_eq!(set.count(), 3);
}

async fn metadata_that_were_never_set_can_be_required(env: &mut TestEnv, store: Opened) {
    let ann = create(&store, "ann").await;
    let first = |revision| {
        let metadata = JsonObject::new("{}").ok();
        Transaction::new()
            .require(Precondition::UserMetadataRevision(ann.id, revision))
            .unwrap()
            .then(UserCommand::SetMetadata { id: ann.id, metadata, expected: None })
            .unwrap()
    };
    fails(store.transact(first(Some(Revision::FIRST))).await, Conflict);
    store.transact(first(None)).await.unwrap();
    let store = env.reload(store).await;
    fails(store.transact(first(None)).await, Conflict);
    store.transact(first(Some(Revision::FIRST))).await.unwrap();
    let user = store.users().get(ann.id).await.unwrap().unwrap();
    assert_eq!(user.metadata_revision, Some(Revision::FIRST));
    let stranger = Precondition::UserMetadataRevision(UserId::from_bytes([9; 16]), None);
    let absent = Transaction::new().require(stranger).unwrap();
    fails(store.transact(absent).await, Conflict);
}

async fn what_a_user_owns_keeps_it(env: &mut TestEnv, mut store: Opened) {
    let made = OneOfEach::make(&store).await;
    let user = made.user.id;
    // Revoked keys count, too; each thing for itself keeps the user.
    store.api_keys().revoke(made.api_key.id).await.unwrap();
    store.preauth_keys().revoke(made.preauth_key.id).await.unwrap();
    store = env.reload(store).await;
    is_kept(&store, user).await;
    store.nodes().delete(made.node.id).await.unwrap();
    store = env.reload(store).await;
    is_kept(&store, user).await;
    store.preauth_keys().delete(made.preauth_key.id).await.unwrap();
    store = env.reload(store).await;
    is_kept(&store, user).await;
    store.api_keys().delete(made.api_key.id).await.unwrap();
    let key = one_time_key(&store, user).await;
    store = env.reload(store).await;
    is_kept(&store, user).await;
    store.preauth_keys().delete(key.id).await.unwrap();
    store.users().delete(user, false).await.unwrap();
    store = env.reload(store).await;
    assert!(store.view().users().is_empty());
}

async fn its_sessions_go_in_any_case(env: &mut TestEnv, store: Opened) {
    let alice = create(&store, "alice").await;
    let bob = create(&store, "bob").await;
    let begin = |user: UserId| session_of(SessionOwner::User(user), Timestamp::MAX);
    let (_, token) = store.sessions().begin(begin(alice.id)).await.unwrap();
    let (kept, kept_token) = store.sessions().begin(begin(bob.id)).await.unwrap();
    store.users().delete(alice.id, false).await.unwrap();
    let store = env.reload(store).await;
    fails(store.sessions().authenticate(token.expose()).await, PermissionDenied);
    let sessions = store.sessions().list(None, &PageRequest::default()).await.unwrap();
    assert_eq!(sessions.items, std::slice::from_ref(&kept));
    assert_eq!(store.sessions().authenticate(kept_token.expose()).await.unwrap(), kept);
}

async fn the_cascade_takes_everything_of_it_and_nothing_else(env: &mut TestEnv, store: Opened) {
    let made = OneOfEach::make(&store).await;
    let of_node = session_of(SessionOwner::Node(made.node.id), Timestamp::MAX);
    store.sessions().begin(of_node).await.unwrap();
    store.api_keys().revoke(made.api_key.id).await.unwrap();
    let bob = create(&store, "bob").await;
    let node = register(&store, 2, by(bob.id)).await;
    let route =
        store.routes().advertise(node.id, vec![made.route.prefix], None).await.unwrap().remove(0);
    let (api_key, _) = store.api_keys().create(api_key_of(bob.id)).await.unwrap();
    let nobodys = store.api_keys().create(NewApiKey::default()).await.unwrap().0;
    let tags = TagSet::new(["tag:server".parse().unwrap()]).unwrap();
    let new = NewPreAuthKey { tags, ..NewPreAuthKey::default() };
    let (preauth_key, _) = store.preauth_keys().create(new).await.unwrap();

    store.users().delete(made.user.id, true).await.unwrap();
    let store = env.reload(store).await;
    let view = store.view();
    assert_eq!(view.users().iter().collect::<Vec<_>>(), [&bob]);
    assert_eq!(view.nodes().iter().collect::<Vec<_>>(), [&node]);
    assert_eq!(view.routes().iter().collect::<Vec<_>>(), [&route]);
    let mut keys = [api_key, nobodys];
    keys.sort_by_key(|key| key.id);
    assert_eq!(view.api_keys().iter().cloned().collect::<Vec<_>>(), keys);
    assert_eq!(view.preauth_keys().iter().collect::<Vec<_>>(), [&preauth_key]);
    assert!(view.sessions().is_empty());
    assert!(view.presence().get(made.node.id).is_none());
    fails(store.api_keys().authenticate(made.api_secret.expose()).await, PermissionDenied);
    fails(store.preauth_keys().authenticate(made.preauth_secret.expose()).await, PermissionDenied);
    // Its addresses and its name are free again.
    assert_eq!(store.nodes().get_by_address(made.node.ipv4.unwrap().into()).await.unwrap(), None);
    create(&store, "alice").await;
}

async fn is_kept(store: &Opened, user: UserId) {
    let before = store.view().serial();
    fails(store.users().delete(user, false).await, Restricted);
    assert_eq!(store.view().serial(), before);
    assert!(store.users().get(user).await.unwrap().is_some());
}

async fn by_name(store: &Opened, name: &str) -> Option<Arc<User>> {
    store.users().get_by_name(&name.parse().unwrap()).await.unwrap()
}

fn identity(subject: &str) -> Identity {
    Identity::Oidc { provider: issuer("https://id.example.com"), subject: text(subject) }
}

fn issuer(text: &str) -> Issuer {
    text.parse().unwrap()
}

async fn an_issuer_is_the_same_however_it_is_written(env: &mut TestEnv, store: Opened) {
    let ann = store.users().upsert_oidc(profile("1", "ann")).await.unwrap();
    let mut store = env.reload(store).await;
    for written in
        ["https://id.example.com/", "HTTPS://ID.Example.com", "https://id.example.com:443//"]
    {
        let provider = issuer(written);
        let signs_in = OidcProfile { provider: provider.clone(), ..profile("1", "ann") };
        assert_eq!(idle(&store, store.users().upsert_oidc(signs_in)).await, ann, "{written}");
        let identity = Identity::Oidc { provider: provider.clone(), subject: text("1") };
        let found = store.users().get_by_identity(&identity).await.unwrap();
        assert_eq!(found.as_ref(), Some(&ann));
        let new = NewUser { identity, ..local("other") };
        fails(store.users().create(new).await, AlreadyExists { constraint: "identity" });
        let filter = UserFilter { provider: Some(provider), ..UserFilter::default() };
        let listed = store.users().list(&filter, &PageRequest::default()).await.unwrap();
        assert_eq!(listed.items, std::slice::from_ref(&ann));
        store = env.reload(store).await;
    }
    // The path is the provider's own, and case matters in it.
    let realm = |name: &str| OidcProfile {
        provider: issuer(&format!("https://id.example.com/{name}")),
        ..profile("1", "ann")
    };
    let one = store.users().upsert_oidc(realm("A")).await.unwrap();
    let two = store.users().upsert_oidc(realm("a/")).await.unwrap();
    assert!(one.id != two.id && one.id != ann.id);
}

async fn an_issuer_that_was_stored_before_is_found_and_rewritten_at_sign_in(
    env: &mut TestEnv,
    store: Opened,
) {
    const OLD: &str = "https://ID.example.com/";
    let json = |id: u8| {
        format!(
            r#"{{"id":"018df0a0-0000-7000-8000-00000000000{id}","name":"ann",
            "identity":{{"kind":"oidc","provider":"{OLD}","subject":"1"}},
            "created_at":"2024-02-29T12:00:00Z","updated_at":"2024-02-29T12:00:00Z","revision":1}}"#
        )
    };
    let old: User = serde_json::from_str(&json(1)).unwrap();
    let restore = |user: &User| {
        let images = vec![EntityRecord::User(user.clone().into())];
        store.restore(Restore { images, skip_invalid: false })
    };
    restore(&old).await.unwrap();
    let twin: User = serde_json::from_str(&json(2)).unwrap();
    fails(restore(&twin).await, AlreadyExists { constraint: "identity" });
    let store = env.reload(store).await;
    let found = store.users().get_by_identity(&identity("1")).await.unwrap().unwrap();
    assert_eq!(*found, old, "as it was stored");
    let user = store.users().upsert_oidc(profile("1", "ann")).await.unwrap();
    let now = env.clock().now();
    let expected = User {
        identity: identity("1"),
        revision: old.revision.next(),
        updated_at: now,
        last_sign_in_at: Some(now),
        ..User::clone(&old)
    };
    assert_eq!(*user, expected);
    let store = env.reload(store).await;
    assert_eq!(idle(&store, store.users().upsert_oidc(profile("1", "ann"))).await, user);
    assert_eq!(store.view().users().len(), 1);
}

async fn a_local_user_can_be_given_an_identity(env: &mut TestEnv, store: Opened) {
    let ann = create(&store, "ann").await;
    let node = node(&store, ann.id, 1).await;
    let bob = store.users().upsert_oidc(profile("2", "bob")).await.unwrap();
    let give =
        |identity: Identity| UserPatch { identity: Update::Set(identity), ..UserPatch::default() };
    let taken = store.users().update(ann.id, give(bob.identity.clone()), None).await;
    fails(taken, AlreadyExists { constraint: "identity" });
    let given = store.users().update(ann.id, give(identity("1")), None).await.unwrap();
    assert_eq!((given.id, &given.identity), (ann.id, &identity("1")));
    let store = env.reload(store).await;
    let again = store.users().update(ann.id, give(identity("1")), None).await.unwrap();
    assert_eq!(again, given, "nothing new, nothing written");
    // From now on she signs in, and has what she had.
    let signed_in = store.users().upsert_oidc(profile("1", "ann")).await.unwrap();
    let last_sign_in_at = Some(env.clock().now());
    assert_eq!(*signed_in, User { last_sign_in_at, ..User::clone(&given) });
    assert_eq!(store.view().nodes().of_user(ann.id).collect::<Vec<_>>(), [node.id]);
    // Her local name is free, and with the identity taken away she would need one of her own.
    assert_eq!(by_name(&store, "ann").await, None);
    create(&store, "ann").await;
    let back = store.users().update(ann.id, give(Identity::Local {}), None).await;
    fails(back, AlreadyExists { constraint: "name" });
}

async fn a_verified_address_links_a_sign_in_only_if_that_is_asked_for(
    env: &mut TestEnv,
    store: Opened,
) {
    let address = |name: &str| Some(format!("{name}@example.com").parse::<Email>().unwrap());
    let new = |name: &str, at: &str| NewUser { email: address(at), ..local(name) };
    let ann = store.users().create(new("ann", "ann")).await.unwrap();
    for name in ["bob", "robert"] {
        store.users().create(new(name, "bob")).await.unwrap();
    }
    let store = env.reload(store).await;
    let says = |subject: &str, name: &str, email_verified| OidcProfile {
        email: address(name),
        email_verified,
        ..profile(subject, name)
    };
    let link = LinkBy::VerifiedEmail;
    let users = store.users();
    let strangers = [
        users.upsert_oidc(says("1", "ann", true)).await.unwrap(),
        users.upsert_oidc_linking(says("2", "ann", false), link).await.unwrap(),
        users
            .upsert_oidc_linking(OidcProfile { email: None, ..says("3", "ann", true) }, link)
            .await
            .unwrap(),
        // Two local users have this one, and those of a provider are never meant.
        users.upsert_oidc_linking(says("4", "bob", true), link).await.unwrap(),
    ];
    for stranger in strangers {
        assert_eq!(stranger.created_at, stranger.updated_at);
        assert_ne!(stranger.id, ann.id);
    }
    let linked = users.upsert_oidc_linking(says("5", "ann", true), link).await.unwrap();
    assert_eq!((linked.id, &linked.identity), (ann.id, &identity("5")));
    let store = env.reload(store).await;
    let again = idle(&store, store.users().upsert_oidc(says("5", "ann", false))).await;
    assert_eq!(again, linked);
    // She is no local user any longer.
    let sixth = store.users().upsert_oidc_linking(says("6", "ann", true), link).await.unwrap();
    assert_ne!(sixth.id, ann.id);
}
