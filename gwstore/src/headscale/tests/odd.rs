//! Rows as they are found in networks that have lived for years.

use ghostwire_store_core::domain::{Identity, RegisterMethod, SecretScheme};

use super::*;

const BCRYPT: &str = "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";

#[test]
fn a_node_in_full() {
    let row = node_row(
        5,
        &[
            ("hostname", "'Ann''s MacBook'"),
            ("given_name", "'Web'"),
            ("ipv6", "'fd7a:115c:a1e0::5'"),
            ("endpoints", r#"'["192.0.2.1:41641","[2001:db8::1]:7","nonsense"]'"#),
            ("host_info", r#"'{"OS":"linux","RoutableIPs":["10.0.0.0/8","192.168.0.0/16"]}'"#),
            ("approved_routes", r#"'["10.0.0.0/8","172.16.0.0/12","10.0.0.1/8"]'"#),
            ("register_method", "'oidc'"),
            ("expiry", "'2099-01-01 00:00:00+00:00'"),
            ("last_seen", "'2024-05-01 12:00:00.5+00:00'"),
            ("updated_at", "'2024-06-01 12:00:00+00:00'"),
        ],
    );
    let import = import(&row);
    let node = &import.nodes()[0];
    assert_eq!((node.hostname.as_str(), node.label.as_str()), ("Ann's MacBook", "web"));
    assert_eq!(node.register_method, RegisterMethod::Oidc);
    assert_eq!(node.user, Some(import.users()[0].id));
    assert_eq!(node.expires_at.unwrap().to_string(), "2099-01-01T00:00:00.000000Z");
    assert_eq!(node.updated_at.to_string(), "2024-06-01T12:00:00.000000Z");
    assert_eq!(node.host_info.os().unwrap(), "linux");
    let presence = &import.presences()[0];
    assert_eq!((presence.online, presence.session.get()), (false, 0));
    assert_eq!(presence.endpoints.len(), 2);
    assert_eq!(Some(presence.endpoints.as_slice()[0].seen_at), presence.last_seen);
    let routes: Vec<_> = import
        .routes()
        .iter()
        .map(|route| (route.prefix.to_string(), route.advertised, route.approved, route.primary))
        .collect();
    let wanted = [
        ("10.0.0.0/8".to_owned(), true, true, false),
        ("172.16.0.0/12".to_owned(), false, true, false),
        ("192.168.0.0/16".to_owned(), true, false, false),
    ];
    assert_eq!(routes, wanted);
    assert_eq!(import.findings.problems, []);
    assert!(import.has_note("the route 10.0.0.1/8 became 10.0.0.0/8"));
    assert!(import.has_note("not an address and port"));
    import.assert_restorable();
}

#[test]
fn nodes_that_break_a_rule() {
    let zero = format!("'{}'", "0".repeat(64));
    for (column, value, part) in [
        ("machine_key", zero.as_str(), "machine_key: a MachineKey must not be all zero"),
        ("node_key", zero.as_str(), "node_key"),
        ("node_key", "NULL", "node_key: is empty"),
        ("ipv4", "'100.64.0'", "ipv4: not an address"),
        ("ipv4", "'fd7a::1'", "ipv4: an address of the other family"),
        ("user_id", "NULL", "neither a user nor tags"),
        ("user_id", "7", "its user (users 7) does not exist"),
    ] {
        let import = import(&node_row(1, &[(column, value)]));
        let (table, id, reason) = import.only_problem();
        assert_eq!((table, id), ("nodes", 1));
        assert!(reason.contains(part), "{column}: {reason}");
        assert_eq!(import.said(), [""; 0], "no remarks on what is left out");
        assert!(import.nodes().is_empty() && import.presences().is_empty());
    }
}

#[test]
fn nodes_that_are_mended_with_a_note() {
    for (column, value, note) in [
        ("given_name", "''", "one was made of the host name"),
        ("hostname", "NULL", "the given name was taken"),
        ("hostname", "'a' || char(9)", "characters that do not show"),
        ("host_info", "'[]'", "host info is not a JSON object"),
        ("endpoints", "'x'", "endpoints are not a JSON list"),
        ("register_method", "''", "how it was registered"),
        ("created_at", "NULL", "no time of creation"),
        ("ipv4", "''", "has no address"),
        ("auth_key_id", "9", "without the pre-auth key"),
        ("auth_key_id", "'x'", ""),
        ("disco_key", "'discokey:1'", "the disco key is none"),
        ("given_name", "'under_score'", "it became under-score"),
        ("given_name", "'a.b'", "it became a"),
        ("given_name", "'' || char(9)", "it became node"),
        ("given_name", "x'ff'", "no given name"),
        ("hostname", "x'ff'", "the given name was taken"),
        ("host_info", "x'ff'", "host info is not a JSON object"),
        ("register_method", "'magic'", "taken from its key"),
        ("register_method", "'authKey'", "another spelling"),
        ("register_method", "'REGISTER_METHOD_AUTH_KEY'", "another spelling"),
        ("register_method", "3", "taken from its key"),
        ("forced_tags", r#"'["tag:UPPER"]'"#, r#"the tag "tag:UPPER" became tag:upper"#),
        ("forced_tags", r#"'["tag:a b"]'"#, "became tag:a-b"),
        ("forced_tags", r#"'["tag:"]'"#, "nothing shows"),
        ("forced_tags", "'tag:a'", "not a JSON list"),
        ("expiry", "'never'", "counts as expired"),
        ("created_at", "'never'", "no time of creation"),
        ("updated_at", "'never'", "its last change cannot be read"),
        ("last_seen", "'never'", "last seen cannot be read"),
        ("approved_routes", "'{}'", "none was taken"),
        ("approved_routes", r#"'["x"]'"#, "an approved route is no prefix"),
    ] {
        let import = import(&node_row(1, &[(column, value)]));
        assert_eq!(import.findings.problems, [], "{column}");
        assert!(note.is_empty() || import.has_note(note), "{column}: {:?}", import.said());
        assert_eq!(import.nodes().len(), 1);
        import.assert_restorable();
    }
    let fallback = node_row(1, &[("created_at", "NULL"), ("updated_at", "'2024-03-01T00:00:00Z'")]);
    let fallback = import(&fallback);
    assert_eq!(fallback.nodes()[0].created_at.to_string(), "2024-03-01T00:00:00.000000Z");
    assert!(fallback.said().is_empty());
}

#[test]
fn forms_that_need_no_note() {
    let zero = format!("'discokey:{}'", "0".repeat(64));
    let bare = format!("'{}'", "aB".repeat(32));
    let row = node_row(
        1,
        &[
            ("machine_key", bare.as_str()),
            ("node_key", bare.as_str()),
            ("disco_key", zero.as_str()),
            ("host_info", "'null'"),
            ("endpoints", "'null'"),
            ("forced_tags", "'null'"),
            ("approved_routes", "NULL"),
            ("auth_key_id", "0"),
            ("expiry", "'0001-01-01 00:00:00 +0000 UTC'"),
            ("last_seen", "'0001-01-01 00:00:00+00:00'"),
            ("ipv4", "NULL"),
            ("ip_addresses", "'fd7a:115c:a1e0::1,100.64.0.1,100.64.0.9'"),
        ],
    );
    let import = import(&row);
    assert!(import.findings.problems.is_empty() && import.said().is_empty());
    let node = &import.nodes()[0];
    assert_eq!((node.disco_key, node.expires_at, node.preauth_key), (None, None, None));
    assert_eq!(node.ipv4.unwrap().to_string(), "100.64.0.1");
    assert_eq!(node.ipv6.unwrap().to_string(), "fd7a:115c:a1e0::1");
    assert_eq!(node.machine_key.to_string(), format!("mkey:{}", "ab".repeat(32)));
    assert!(import.presences().is_empty());
}

#[test]
fn rows_that_want_the_same() {
    let mkey = format!("'mkey:{}'", "01".repeat(32));
    let node_key = format!("'nodekey:{}'", "01".repeat(32));
    for (column, value, constraint) in
        [("node_key", node_key.as_str(), "node_key"), ("machine_key", mkey.as_str(), "machine_key")]
    {
        let second = node_row(
            2,
            &[
                (column, value),
                ("last_seen", "'2024-05-01 12:00:00+00:00'"),
                ("approved_routes", "'[\"10.0.0.0/8\"]'"),
            ],
        );
        let import = import(&(node_row(1, &[]) + &second));
        let (table, id, reason) = import.only_problem();
        // The one that was seen.
        assert_eq!((table, id), ("nodes", 1));
        assert!(reason.contains(constraint) && reason.ends_with("nodes 2 stays"), "{reason}");
        assert_eq!(
            (import.nodes().len(), import.presences().len(), import.routes().len()),
            (1, 1, 1)
        );
        import.assert_restorable();
    }
}

#[test]
fn an_address_costs_no_machine() {
    let seen = ("last_seen", "'2024-05-01 12:00:00+00:00'");
    let import = import(
        &(node_row(1, &[("ipv6", "'fd7a::1'")])
            + &node_row(2, &[("ipv4", "'100.64.0.1'"), ("ipv6", "'fd7a::2'"), seen])),
    );
    assert_eq!(import.findings.problems, []);
    let addresses: Vec<_> = import.nodes().iter().map(|node| (node.ipv4, node.ipv6)).collect();
    let wanted: [(Option<std::net::Ipv4Addr>, Option<std::net::Ipv6Addr>); 2] =
        [(None, "fd7a::1".parse().ok()), ("100.64.0.1".parse().ok(), "fd7a::2".parse().ok())];
    assert_eq!(addresses, wanted, "the one that was seen keeps it");
    assert!(import.has_note("another node has its address 100.64.0.1"));
    import.assert_restorable();
}

#[test]
fn what_depends_on_a_row_that_is_left_out_is_named() {
    const LONG: &str = "https://id.example/";
    let import = import(&format!(
        "INSERT INTO users(id, name, created_at, deleted_at) VALUES
           (3, 'gone', '2024-01-01', '2024-02-01 00:00:00+00:00');
         INSERT INTO users(id, name, created_at, provider_identifier) VALUES(2, 'lost', '2024-01-01', '{LONG}{}');
         INSERT INTO pre_auth_keys(id, key, user_id, created_at) VALUES(1, 'k', 2, '2024-01-01');
         INSERT INTO api_keys(id, prefix, hash, user_id, created_at) VALUES(1, 'p', '{BCRYPT}', 2, '2024-01-01');
         {}{}",
        "x".repeat(256),
        node_row(1, &[("user_id", "2")]),
        node_row(2, &[("user_id", "3")]),
    ));
    let problems: Vec<_> = import
        .findings
        .problems
        .iter()
        .map(|problem| (problem.table, problem.id, problem.reason.as_str()))
        .collect();
    assert!(problems[0].2.starts_with("provider_identifier: "));
    assert_eq!(
        problems[1..],
        [
            ("pre_auth_keys", 1, "its user (users 2) was left out"),
            ("nodes", 1, "its user (users 2) was left out"),
            ("nodes", 2, "its user (users 3) was deleted"),
            ("api_keys", 1, "its user (users 2) was left out"),
        ]
    );
    assert!(import.has_note("users: marked as deleted in Headscale, not imported (1 row: 3)"));
}

#[test]
fn users() {
    let import = import(
        "INSERT INTO users(id, name, email, provider, provider_identifier, display_name, profile_pic_url, created_at)
         VALUES(2, '', 'Bob@X.org', 'oidc', 'https://id.x.org/7', 'Bob', 'https://x.org/b.png', '2024-01-01'),
               (3, 'ann', NULL, 'oidc', 'https://id.x.org/8', '', '', '2024-01-01'),
               (4, 'ann', NULL, NULL, '', NULL, NULL, '2024-01-01'),
               (5, 'eve', 'nonsense', NULL, NULL, NULL, NULL, '2024-01-01'),
               (6, '\u{200b}', NULL, NULL, NULL, NULL, NULL, '2024-01-01'),
               (7, 'bob', NULL, 'oidc', 'HTTPS://ID.x.org:443//7', NULL, NULL, '2024-01-01');",
    );
    let users = import.users();
    let names: Vec<_> = users.iter().map(|user| user.name.as_str()).collect();
    assert_eq!(names, ["ann", "Bob@X.org", "ann", "ann-4", "eve", "user-6"]);
    assert_eq!(users[0].identity, Identity::Local {});
    assert_eq!(users[1].name.as_str(), "Bob@X.org");
    assert_eq!(users[1].email.as_ref().unwrap().as_str(), "bob@x.org");
    assert!(users[1].picture_url.is_some() && users[2].picture_url.is_none());
    assert!(
        matches!(&users[2].identity, Identity::Oidc { subject, .. } if subject.as_str() == "8")
    );
    assert_eq!(import.findings.problems, []);
    assert!(users[4].email.is_none() && import.has_note("the e-mail address is none"));
    assert!(import.has_note("this one is called ann-4 (1 row: 4)"));
    assert!(import.has_note("made of the row's number (1 row: 6)"));
    assert!(import.has_note("the same person to the identity provider as users 2"));
    assert_eq!(import.without_identity, 4);
    import.assert_restorable();
}

#[test]
fn preauth_keys() {
    let import = import(&format!(
        "INSERT INTO pre_auth_keys(id, key, user_id, reusable, ephemeral, used, tags, expiration, created_at, prefix, hash) VALUES
           (1, 'plain1', 1, 1, 1, 1, 'null', '0001-01-01 00:00:00+00:00', '2024-01-01', NULL, NULL),
           (2, 'plain2', 1, 0, 0, 1, '[\"tag:b\",\"tag:a\"]', '2024-02-01', '2024-01-01', '', NULL),
           (3, '', NULL, 0, 0, 0, '[\"tag:a\"]', NULL, '2024-01-01', 'abcdef012345', CAST('{BCRYPT}' AS BLOB)),
           (4, 'plain4', NULL, 0, 0, 0, '[]', NULL, '2024-01-01', NULL, NULL),
           (5, '', 1, 0, 0, 0, '[]', NULL, '2024-01-01', NULL, NULL),
           (6, '', 1, 0, 0, 0, '[]', NULL, '2024-01-01', 'abc', 'plain6'),
           (7, 'plain1', 1, 0, 0, 0, '[]', NULL, '2024-01-01', NULL, NULL);
         {}{}",
        node_row(1, &[("auth_key_id", "1"), ("register_method", "'authkey'")]),
        node_row(2, &[("auth_key_id", "7"), ("register_method", "NULL")]),
    ));
    let keys = import.preauth_keys();
    assert_eq!(keys.len(), 3);
    assert!(keys[0].reusable && keys[0].ephemeral && keys[0].expires_at.is_none());
    assert_eq!(keys[0].hash, hasher("plain1"));
    assert_eq!(keys[0].used_at.unwrap().to_string(), "2024-01-02T00:00:00.000000Z", "of the node");
    assert_eq!(keys[1].used_at, Some(keys[1].created_at));
    assert_eq!((keys[1].tags.len(), keys[1].user), (2, None), "as its nodes");
    assert_eq!((keys[2].user, keys[2].hash.scheme()), (None, SecretScheme::Bcrypt));
    assert_eq!(keys[2].prefix.as_ref().unwrap().as_str(), "abcdef012345");
    let ids: Vec<_> = import.findings.problems.iter().map(|problem| problem.id).collect();
    assert_eq!(ids, [6, 7]);
    assert!(import.is_left_over("pre_auth_keys", 4, "could admit nobody"));
    assert!(import.is_left_over("pre_auth_keys", 5, "nothing could use it"));
    let nodes = import.nodes();
    assert!(nodes[0].ephemeral && nodes[0].preauth_key == Some(keys[0].id));
    assert_eq!((nodes[1].preauth_key, nodes[1].register_method), (None, RegisterMethod::AuthKey));
    let shown = format!("{import:?}");
    assert!(!shown.contains("plain") && !shown.contains("N9qo8"), "no key or hash is shown");
    import.assert_restorable();
}

#[test]
fn api_keys() {
    let import = import(&format!(
        "INSERT INTO api_keys(id, prefix, hash, expiration, last_seen, created_at) VALUES
           (1, 'hFKcRjLyfw', CAST('{BCRYPT}' AS BLOB), '2023-07-08 22:34:28.559681279+00:00', '2024-01-01', '2023-04-09'),
           (2, 'a.b', '{BCRYPT}', NULL, NULL, '2023-04-09'),
           (3, 'abc', NULL, NULL, NULL, '2023-04-09'),
           (4, 'abc', '$argon2id$v=19$m=1', NULL, NULL, '2023-04-09');"
    ));
    let keys = import.api_keys();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].expires_at.unwrap().to_string(), "2023-07-08T22:34:28.559681Z");
    assert!(keys[0].last_used_at.is_some() && keys[0].user.is_none());
    let ids: Vec<_> = import.findings.problems.iter().map(|problem| problem.id).collect();
    assert_eq!(ids, [2, 3, 4]);
    assert!(!format!("{:?}", import.findings.problems).contains("argon2id"));
}

#[test]
fn policies_are_versions() {
    let import = import(
        "INSERT INTO policies(id, data, created_at, deleted_at) VALUES
           (3, '{ // one', '2024-01-01', NULL), (5, 'gone', '2024-01-02', '2024-01-03'),
           (7, '', '2024-01-04', NULL), (9, 'two', '2024-01-05', NULL);",
    );
    let policies: Vec<_> = import
        .policies()
        .iter()
        .map(|policy| {
            (policy.version.get(), policy.document.as_str().to_owned(), policy.author.to_string())
        })
        .collect();
    let author = "headscale".to_owned();
    assert_eq!(
        policies,
        [(1, "{ // one".to_owned(), author.clone()), (2, "two".to_owned(), author)]
    );
    assert_eq!(import.findings.problems, []);
    assert!(import.is_left_over("policies", 7, "no longer in force"));
    let empty =
        super::import("INSERT INTO policies(id, created_at, data) VALUES(1, '2024-01-01', '');");
    let (table, id, reason) = empty.only_problem();
    assert!((table, id) == ("policies", 1) && reason.contains("everything is allowed"));
}

#[test]
fn tags_without_a_policy_to_allow_them() {
    let asks = ("host_info", r#"'{"RequestTags":["tag:a"]}'"#);
    let without = import(&node_row(1, &[asks]));
    assert!(without.has_note("no policy to allow them") && without.nodes()[0].tags.is_empty());
    let policy = "INSERT INTO policies(id, created_at, data) VALUES(1, '2024-01-01', '{\"tagOwners\":{\"tag:a\":[\"ann\"]}}');";
    let broken = import(&(policy.to_owned() + &node_row(1, &[asks])));
    assert!(broken.has_note("grants no tags") && broken.nodes()[0].tags.is_empty());
    let done = "INSERT INTO migrations VALUES('202601121700-migrate-hostinfo-request-tags');";
    let done = import(&(done.to_owned() + &policy.replace("ann", "ann@") + &node_row(1, &[asks])));
    assert!(done.nodes()[0].tags.is_empty() && done.said().is_empty(), "0.28 decided that already");
    assert_eq!(done.origin.release, Some("0.28"));
}

#[test]
fn owners_that_headscale_lost_or_dropped() {
    let import = import(&format!(
        "INSERT INTO pre_auth_keys(id, key, user_id, created_at) VALUES(1, 'k', 1, '2024-01-01');{}{}",
        node_row(1, &[("user_id", "NULL"), ("auth_key_id", "1"), ("forced_tags", "'null'")]),
        node_row(2, &[("forced_tags", r#"'["tag:a"]'"#), ("user_id", "99")]),
    ));
    assert_eq!(import.findings.problems, []);
    assert_eq!(import.nodes()[0].user, Some(import.users()[0].id));
    assert!(import.nodes()[1].user.is_none() && import.nodes()[1].tags.len() == 1);
    assert!(import.has_note("lost its user") && import.has_note("belongs to its tags"));
}

/// The same with the table `routes` of 0.25 and before.
fn with_routes(migrated: bool, rows: &str) -> Import {
    let text = dump(&format!(
        "CREATE TABLE routes(id integer PRIMARY KEY, created_at datetime, updated_at datetime,
           deleted_at datetime, node_id integer NOT NULL, prefix text, advertised numeric,
           enabled numeric, is_primary numeric);
         {}{rows}",
        node_row(1, &[("host_info", r#"'{"RoutableIPs":["10.0.0.0/8","0.0.0.0/0"]}'"#)]),
    ));
    let moved = "INSERT INTO migrations VALUES('202502131714');";
    read_text(&if migrated { text } else { text.replace(moved, "") }).unwrap()
}

#[test]
fn routes_of_old() {
    let rows = "INSERT INTO routes VALUES
        (1, '2024-03-01', NULL, NULL, 1, '10.0.0.0/8', 0, 1, 1),
        (2, '2024-03-01', NULL, '2024-04-01', 1, '10.1.0.0/16', 1, 1, 0),
        (3, '2024-03-01', NULL, NULL, 9, '10.2.0.0/16', 1, 1, 0),
        (4, '2024-03-01', NULL, NULL, 1, '10.3.0.1/16', 1, 1, 0),
        (5, '2024-03-01', NULL, NULL, 0, '10.2.0.0/16', 1, 1, 0);";
    let import = with_routes(false, rows);
    let routes: Vec<_> = import
        .routes()
        .iter()
        .map(|route| (route.prefix.to_string(), route.advertised, route.approved))
        .collect();
    let wanted = [
        ("0.0.0.0/0".to_owned(), true, false),
        ("10.0.0.0/8".to_owned(), true, true),
        ("10.3.0.0/16".to_owned(), true, true),
    ];
    assert_eq!(routes, wanted);
    assert_eq!(import.findings.problems, []);
    assert!(import.is_left_over("routes", 2, "marked as deleted"));
    assert!(import.is_left_over("routes", 3, "its node (nodes 9) does not exist"));
    assert!(import.is_left_over("routes", 5, "belongs to no node"));
    assert!(import.has_note("the route 10.3.0.1/16 became 10.3.0.0/16"));
    import.assert_restorable();
    let stale = with_routes(true, rows);
    assert!(stale.has_note("5 rows ignored") && stale.findings.problems.is_empty());
    assert!(stale.routes().iter().all(|route| !route.approved), "nothing old is approved anew");
}

#[test]
fn tags_of_keys_of_old() {
    let text = dump("INSERT INTO pre_auth_keys(id, key, created_at) VALUES(1, 'k', '2024-01-01');
        CREATE TABLE pre_auth_key_acl_tags(id integer PRIMARY KEY, pre_auth_key_id integer, tag text);
        INSERT INTO pre_auth_key_acl_tags VALUES(1, 1, 'tag:old');")
    .replace("used numeric DEFAULT false, tags text,", "used numeric DEFAULT false,");
    let import = read_text(&text).unwrap();
    assert_eq!(import.findings.problems, []);
    assert_eq!(import.preauth_keys()[0].tags.as_slice()[0].name(), "old");
}

#[test]
fn what_is_newer_is_said() {
    let import = import(
        "INSERT INTO migrations VALUES('202605221435-clear-zero-time-node-expiry');
         INSERT INTO migrations VALUES('209901010000-novel');
         CREATE TABLE database_versions(id integer PRIMARY KEY, version text, updated_at datetime);
         INSERT INTO database_versions VALUES(1, 'v0.29.1', NULL);
         CREATE TABLE oauth_clients(id integer PRIMARY KEY, client_id text);
         INSERT INTO oauth_clients VALUES(1, 'x');",
    );
    assert_eq!(import.origin.version.as_deref(), Some("v0.29.1"));
    assert_eq!(import.origin.release, Some("0.29.0"));
    assert!(import.has_note("does not know") && import.has_note("209901010000-novel"));
    assert!(import.has_note("oauth_clients: 1 row not imported: the store has no OAuth clients"));
}

/// As it is proposed for 0.30: the tables of each kind of key are gone.
#[test]
fn machines_come_in_without_credentials_in_one_table() {
    let table = "CREATE TABLE credentials(id integer PRIMARY KEY AUTOINCREMENT, kind text, identifier text,
          hash blob, user_id integer, reusable numeric, ephemeral numeric, used numeric, expiration datetime);
         INSERT INTO credentials(id, kind, identifier, hash, user_id) VALUES
           (1, 'authkey', 'abcdef012345', '$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA', 1),
           (2, 'api', 'abcdef012346', '$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA', 1);";
    let node = node_row(5, &[("auth_key_id", "1"), ("register_method", "'authkey'")]);
    let text = dump(&format!("{table}\n{node}"));
    let mut statements = text.split_inclusive(';').map(str::to_owned).collect::<Vec<_>>();
    statements.retain(|it| !it.contains("TABLE pre_auth_keys") && !it.contains("TABLE api_keys"));
    let import = read_text(&statements.concat()).unwrap();
    assert_eq!(import.nodes().len(), 1);
    assert_eq!((import.preauth_keys().len(), import.api_keys().len()), (0, 0));
    assert_eq!(import.findings.problems, []);
    assert!(import.has_note("credentials: 2 rows not imported: keys in one table"));
    import.assert_restorable();
}

#[test]
fn of_two_that_cannot_both_come_in_the_living_one_stays() {
    let key = format!("'mkey:{}'", "01".repeat(32));
    let node = |id, changes: Vec<(&'static str, &'static str)>| {
        let mut changes: Vec<(&str, &str)> = changes;
        changes.extend([("machine_key", key.as_str()), ("given_name", "'box'")]);
        node_row(id, &changes)
    };
    let expired = ("expiry", "'2026-01-01 00:00:00+00:00'");
    let later = ("expiry", "'2099-01-01 00:00:00+00:00'");
    let seen = |at: &'static str| ("last_seen", at);
    let (may, june) = (seen("'2025-05-01'"), seen("'2025-06-01'"));
    for (first, second, stays) in [
        (vec![], vec![], 1),
        (vec![expired, june], vec![may], 2),
        (vec![expired, june], vec![], 2),
        (vec![later, may], vec![june], 2),
        (vec![later, june], vec![may], 1),
        (vec![expired, may], vec![expired, june], 2),
        (vec![], vec![may], 2),
    ] {
        let import = import(&(node(1, first.clone()) + &node(2, second.clone())));
        let (table, id, reason) = import.only_problem();
        assert_eq!((table, id), ("nodes", 3 - stays), "{first:?} {second:?}");
        assert!(reason.ends_with(&format!("nodes {stays} stays")), "{reason}");
        assert_eq!(import.nodes()[0].label.as_str(), "box");
        assert_eq!(import.findings.lost("nodes"), 1);
    }
}

#[test]
fn nodes_of_one_name_are_told_apart() {
    let old = ("expiry", "'2020-01-01 00:00:00+00:00'");
    let import = import(
        &(node_row(1, &[old, ("given_name", "'box'")])
            + &node_row(2, &[("given_name", "'BOX'")])
            + &node_row(3, &[("given_name", "'box'")])),
    );
    assert_eq!(import.findings.problems, []);
    let labels: Vec<_> = import.nodes().iter().map(|node| node.label.to_string()).collect();
    assert_eq!(labels[1], "box", "the first that has not expired");
    for (node, label) in import.nodes().iter().zip(&labels) {
        let id = node.id.to_string();
        assert!(label == "box" || *label == format!("box-{}", &id[id.len() - 4..]), "{label}");
    }
    assert!(import.has_note("another node is called box"));
    import.assert_restorable();
}

#[test]
fn what_is_not_understood_is_named() {
    let text = dump(
        "CREATE TABLE kvs(key text); INSERT INTO kvs VALUES('x');
         CREATE TABLE \"lost\"\"found\"(a); INSERT INTO \"lost\"\"found\" VALUES(1), (2);
         CREATE TABLE empty(a); CREATE TABLE nodes_old(id integer); CREATE TABLE _litestream_seq(id);
         INSERT INTO _litestream_seq VALUES(1);
         INSERT INTO users(id, name, role, flag) VALUES(2, 'bob', 'owner', 0), (3, 'eve', NULL, '[]');",
    )
    .replace("updated_at datetime, deleted_at datetime);", "updated_at datetime, deleted_at datetime, role text, flag);");
    let import = read_text(&text).unwrap();
    assert!(import.findings.problems.is_empty());
    for part in [
        "kvs: 1 row ignored",
        "lost\"found: 2 rows not imported",
        "users: the column role is not imported: this importer does not know it (1 row has a value",
    ] {
        assert!(import.has_note(part), "{part}: {:?}", import.said());
    }
    assert_eq!(import.findings.notes.len(), 3, "{:?}", import.findings.notes);
}
