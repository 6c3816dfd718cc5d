//! What an operator changes, on a closed store.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use ghostwire_store::{ErrorKind, Opener};
use serde_json::Value;

use crate::support::{BACKENDS, Place, Ran, command_in, portable, run_in, stores};

/// A machine's keys as options.
fn keys(number: u8) -> String {
    let hex = |of: u8| format!("{of:02x}").repeat(32);
    format!("--machine-key mkey:{} --node-key nodekey:{}", hex(number), hex(number + 100))
}

/// Two users and three machines.
fn network(place: &Place, backend: &str) {
    for command in [
        "user create alice --email alice@example.com --display-name Alice",
        "user create bob --role network-admin",
        &format!("node create laptop --user alice {}", keys(1)),
        &format!("node create desk --user alice --expiration 24h {}", keys(2)),
        &format!("node register server --user bob {}", keys(3)),
    ] {
        place.on(backend, command).ok();
    }
}

fn ids(ran: &Ran) -> Vec<String> {
    ran.items().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

/// What an edit says of the only entity that it changed.
#[track_caller]
fn change(ran: Ran) -> Value {
    let items = ran.ok().items();
    assert_eq!(items.len(), 1, "{items:#?}");
    items.into_iter().next().unwrap()
}

#[test]
fn users_come_change_and_go() {
    for (backend, place) in stores() {
        let on = |arguments: &str| place.on(backend, arguments);
        let alice = change(on("user create alice --email Alice@Example.com --json"));
        assert_eq!((&alice["change"], &alice["name"]), (&"created".into(), &"alice".into()));
        let id = alice["id"].as_str().unwrap();
        on("user create alice").refused(&["user.create", "name"]).ended(5);
        // By its name, its address, its id, and the end of that.
        for target in ["alice", "alice@example.com", id, &id[24..]] {
            assert_eq!(on(&format!("user show {target} --json")).ok().json()["id"], id, "{target}");
        }
        on("users show alice").ok().says(&["email", "alice@example.com"]);
        let renamed = change(on("users rename alice anna --json"));
        assert_eq!(renamed["fields"]["name"], serde_json::json!({ "from": "alice", "to": "anna" }));
        on("user edit anna --role it-admin --clear email").ok().says(&[
            "changed user anna",
            "email: alice@example.com -> -",
            "role",
        ]);
        on("user edit anna --role it-admin").ok().warns(&["nothing to do"]);
        on("user edit anna").ended(2);
        on("user edit anna --email a@b.example --clear email").ended(2);
        assert_eq!(ids(&on("list users --role it-admin --json").ok()), [id]);
        assert_eq!(ids(&on("user list --role member --json -q").ok()), [""; 0]);
        on("user destroy anna --yes").ok().says(&["deleted user anna"]);
        on("user show anna").ended(4);

        let trail = on("audit list --subject nobody --json -q").ok().items();
        assert!(trail.is_empty());
        let trail = on(&format!("list audit --subject {id} --json")).ok().items();
        let actions: Vec<_> = trail.iter().map(|line| line["action"].as_str().unwrap()).collect();
        assert_eq!(actions, ["user.create", "user.update", "user.update", "user.delete"]);
        assert!(trail.iter().all(|line| line["actor"].as_str().unwrap().starts_with("cli:")));
        let newest = on("audit list --newest-first --limit 1 --json -q").ok().items();
        assert_eq!(newest[0], trail[3]);
    }
}

#[test]
fn nodes_come_change_and_go() {
    for (backend, place) in stores() {
        network(&place, backend);
        let on = |arguments: &str| place.on(backend, arguments);
        let laptop = on("node show laptop --json").ok().json();
        assert_eq!((&laptop["user_name"], &laptop["online"]), (&"alice".into(), &false.into()));
        let [ipv4, id] = ["ipv4", "id"].map(|name| laptop[name].as_str().unwrap());
        let machine = laptop["machine_key"].as_str().unwrap();
        for target in [ipv4, id, &id[20..], machine] {
            assert_eq!(on(&format!("node show {target} --json")).ok().json(), laptop, "{target}");
        }
        on("node rename laptop traveller").ok().says(&["label: laptop -> traveller"]);
        on("node rename traveller desk").refused(&["label"]).ended(5);
        on("node move traveller bob").ok();
        on("node move -i traveller --user alice@example.com").ok();
        on("node tag traveller tag:a tag:b").ok();
        on("node tag traveller --add tag:c").ok();
        on("node tag traveller --remove tag:a").ok();
        let tags = |target: &str| on(&format!("node show {target} --json")).json()["tags"].clone();
        assert_eq!(tags("traveller"), serde_json::json!(["tag:b", "tag:c"]));
        on("node tag -i traveller -t tag:x,tag:y").ok();
        assert_eq!(tags("traveller"), serde_json::json!(["tag:x", "tag:y"]));
        on("node tag traveller").ended(2);
        on("node tag traveller --clear").ok();
        let edit = "node edit traveller --mtu 1280 --exit-node server --accept-dns false --json";
        let settings = change(on(edit))["item"]["settings"].clone();
        assert_eq!((&settings["mtu"], &settings["accept_dns"]), (&1280.into(), &false.into()));
        on("node edit traveller --clear mtu,exit-node --expiration 2h").ok();
        assert_eq!(ids(&on("node list --expired --json -q").ok()).len(), 0);
        on("node expire traveller").ok().says(&["expires_at"]);
        assert_eq!(ids(&on("node list --expired --json -q").ok()), [id]);
        on("node edit traveller --expiration never").ok();
        on("node renumber traveller --ipv4 100.64.9.9").ok();
        assert_eq!(on("node show 100.64.9.9 --json").ok().json()["id"], id);
        on("node renumber traveller --ipv4 192.0.2.1").refused(&["192.0.2.1"]);
        on("node backfillips").ok().warns(&["nothing to do"]);

        on("node approve-routes server 10.0.0.0/8 192.168.0.0/24").ok();
        on("route list --node server --columns prefix,approved")
            .ok()
            .says(&["10.0.0.0/8      yes"]);
        on("node approve-routes -i server -r 172.16.0.0/12").ok();
        let routes = on("node list-routes --node server --json").ok().items();
        assert_eq!(routes.len(), 1);
        assert_eq!(routes[0]["node_label"], "server");
        on("route edit 172.16.0.0/12 --metric 7 --description lift").ok();
        on("route show server").ended(4).warns(&["--node"]);
        on("route unapprove --node server 172.16.0.0/12").ok().says(&["deleted route"]);

        on("node delete traveller desk --yes").ok();
        assert_eq!(ids(&on("nodes ls --json").ok()).len(), 1);
    }
}

#[test]
fn a_secret_stands_alone() {
    for (backend, place) in stores() {
        network(&place, backend);
        let on = |arguments: &str| place.on(backend, arguments);
        for (noun, create, mark) in [
            ("preauthkey", "--user alice --reusable --ephemeral --expiration 24h", "gwauth-"),
            ("preauthkeys", "--tags tag:ci,tag:build", "gwauth-"),
            ("apikey", "--expiration 90d --description ci --permission read", "gwapi-"),
            ("key api", "--user bob --expiration never", "gwapi-"),
            ("session", "--user alice --node laptop --expiration 1h", "gwsession-"),
        ] {
            let dry_run = on(&format!("{noun} create {create} --dry-run")).ok();
            assert!(!format!("{dry_run:?}").contains(mark), "{dry_run:#?}");
            let made = on(&format!("{noun} create {create}")).ok();
            let secret = made.out.strip_suffix('\n').unwrap();
            assert!(secret.starts_with(mark) && !secret.contains(char::is_whitespace), "{made:#?}");
            assert!(!made.err.contains(secret), "{made:#?}");
            let object = on(&format!("{noun} create {create} --json")).ok().json();
            assert!(object["secret"].as_str().unwrap().starts_with(mark), "{object}");
            let secret_part = secret.rsplit('-').next().unwrap();
            for form in ["", "--json"] {
                let listed = on(&format!("{noun} list {form}")).ok();
                assert!(!listed.out.contains(secret_part), "{listed:#?}");
            }
        }
        on("preauthkey create").ended(2);
        let secret = on("apikey create -q").ok();
        assert!(secret.err.is_empty());
        let secret = secret.out.trim();
        let is_known = || {
            let config = place.config(backend);
            tokio::runtime::Runtime::new().unwrap().block_on(async {
                let store = Opener::new(&config).open().await.unwrap();
                let found = store.api_keys().authenticate(secret).await;
                store.close().await.unwrap();
                found.map_err(|error| error.kind().clone())
            })
        };
        let key = is_known().unwrap();
        assert!(key.created_by.as_ref().unwrap().as_str().starts_with("cli:"));
        on(&format!("apikey expire --prefix {}", key.prefix)).ok().says(&["revoked_at"]);
        assert_eq!(is_known().unwrap_err(), ErrorKind::PermissionDenied);
        assert_eq!(ids(&on("apikey list --revoked --json").ok()), [key.id.to_string()]);
        assert_eq!(ids(&on("apikey list --active --json").ok()).len(), 4);
        on(&format!("apikey revoke {}", key.id)).ok().warns(&["nothing to do"]);
        on(&format!("apikey delete {} --yes", key.prefix)).ok();
        on("preauthkey expire --user alice").ok();
        assert_eq!(ids(&on("preauthkey list --active=false --json").ok()).len(), 2);
        assert_eq!(ids(&on("preauthkey list --ephemeral --json").ok()).len(), 2);
        let session = ids(&on("session list --node laptop --json").ok()).remove(0);
        on(&format!("session edit {session} --expiration 2h")).ok().says(&["expires_at"]);
        on("session end --user alice --yes").ok();
        on("session list").ok().warns(&["nothing to list"]);
    }
}

#[test]
fn policies_records_and_settings() {
    for (backend, place) in stores() {
        let on = |arguments: &str| place.on(backend, arguments);
        place.write("one", "// one\n{\"acls\": [],}\n");
        place.write("two", "{}");
        place.write("bad", "{\"acls\" []}");
        on("policy get").ended(4);
        on("policy set one --expect-revision 1").ended(5);
        on("policy set one --expect-revision 0").ok().says(&["created policy version 1"]);
        assert_eq!(on("policy get").ok().out.as_bytes(), place.read("one"));
        on("policy set one").ok().warns(&["nothing to do"]);
        on("policy set -f bad").refused(&["no HuJSON", "line: 1"]);
        on("policy set --file two").ok();
        on("policy rollback").ok().says(&["version 3"]);
        assert_eq!(on("policy show").ok().out.as_bytes(), place.read("one"));
        assert_eq!(on("policy get 2").ok().out, "{}");
        on("policy list --columns version,in-force").ok().says(&["3        yes", "2        no"]);
        on("policy rollback 9").ended(4);
        on("policy prune --keep 1 --yes").ok();
        assert_eq!(on("policies history --json").ok().items().len(), 1);

        on("dns add wiki.example.com A 10.0.0.1").ok();
        on("dns create wiki.example.com a 10.0.0.2 --ttl 60").ok();
        on("dns create wiki.example.com A fd00::1").refused(&["IPv4"]);
        on("dns show wiki.example.com").ended(7).warns(&["10.0.0.1", "10.0.0.2"]);
        on("dns put wiki.example.com A 10.0.0.2 10.0.0.3 --ttl 60").ok();
        assert_eq!(ids(&on("dns list --name wiki.example.com --kind A --json").ok()).len(), 2);
        let set = |what: &str| on(what).ok().items()[0]["set"].as_str().unwrap().to_owned();
        let read = set("dns list --name wiki.example.com --kind A --json");
        on("dns put wiki.example.com A 10.0.0.3 --expect-revision 0").ended(5);
        on("dns put wiki.example.com A 10.0.0.3 --expect-revision 1").ended(2);
        on(&format!("dns put wiki.example.com A 10.0.0.3 --expect-revision {read}")).ok();
        on(&format!("dns put wiki.example.com A 10.0.0.9 --expect-revision {read}")).ended(5);
        on("dns put new.example.com A 10.0.0.3 --expect-revision 0").ok();
        on("dns rm new.example.com --yes").ok();
        on("dns edit wiki.example.com --value 10.0.0.4 --ttl 5").ok().says(&["ttl: - -> 5"]);
        on("dns edit WIKI.example.com. --clear ttl").ok();
        on("dns rm wiki.example.com --yes").ok();
        on("dns list").ok().warns(&["nothing to list"]);

        on("setting get network ephemeral_cutoff_seconds").ok().says(&["1800"]);
        on("setting set network ephemeral_cutoff_seconds=600 name=Example").ok();
        on("setting set network name=null --expect-revision 2").ended(5);
        on("setting set network name=null --expect-revision 1").ok();
        let network = on("settings show network").ok().json();
        assert_eq!(
            (&network["ephemeral_cutoff_seconds"], &network["name"]),
            (&600.into(), &Value::Null)
        );
        on("setting set network colour=red").refused(&["no settings document"]);
        on("setting set network ipv4=").ended(2);
        place.write("dns.json", r#"{"magic_dns":true,"nameservers":["9.9.9.9"]}"#);
        on("setting set dns --file dns.json").ok();
        on("setting get dns magic_dns").ok().says(&["true"]);
        on("setting reset dns --yes --save saved").ok().says(&["changed", "dns"]);
        on("setting reset dns --yes").ended(4);
        // Whoever read the first document has to read again, and what was saved comes back.
        on("setting set dns magic_dns=true --expect-revision 1").ended(5);
        on("import portable saved").ok();
        on("setting get dns magic_dns").ok().says(&["true"]);
    }
}

#[test]
fn a_derp_map_goes_in_as_the_field_writes_it() {
    for (backend, place) in stores() {
        let on = |arguments: &str| place.on(backend, arguments);
        place.write(
            "derp.json",
            r#"{ // As in a policy of Tailscale.
              "OmitDefaultRegions": true,
              "Regions": {"1": null, "900": {"RegionID": 900, "RegionCode": "Home", "RegionName": "Home",
                "Nodes": [{"Name": "900a", "RegionID": 900, "HostName": "derp.example.com",
                           "DERPPort": 8443, "STUNPort": -1}]}},
            }"#,
        );
        let told = on("setting set derp-map --file derp.json --expect-revision 0").ok();
        told.warns(&["region 1 is null", "the code", "home"]);
        let map = on("setting get derp-map").ok().json();
        let region = &map["regions"]["900"];
        assert_eq!((&region["code"], &region["RegionCode"]), (&"home".into(), &"Home".into()));
        let server = &region["servers"][0];
        assert_eq!((&server["derp_port"], &server["no_stun"]), (&8443.into(), &true.into()));
        assert_eq!((&server["Name"], &map["OmitDefaultRegions"]), (&"900a".into(), &true.into()));
        // What it prints goes in again, without a word.
        place.write("own.json", map.to_string());
        on("setting set derp-map --file own.json").ok().warns(&["nothing to do"]);
        place.write(
            "bad.json",
            r#"{"Regions": {"900": {"Nodes": [{"HostName": "a.example", "STUNPort": -2}]}}}"#,
        );
        on("setting set derp-map --file bad.json").refused(&["a.example", "STUNPort"]);
    }
}

#[test]
fn groups_are_an_administrators_where_no_provider_says_them() {
    for (backend, place) in stores() {
        let on = |arguments: &str| place.on(backend, arguments);
        on("user create alice --role billing-admin").ok();
        on("user edit alice --groups staff,admins").ok().says(&["groups"]);
        assert_eq!(ids(&on("user list --group staff --json").ok()).len(), 1);
        on("user edit alice --clear groups").ok();
        on("user edit alice --clear groups --groups staff").ended(2);
        on("user list --group staff").ok().warns(&["nothing to list"]);
        on("user create bob --provider https://id.example --subject 7").ok();
        on("user edit bob --groups staff").refused(&["provider"]);
    }
}

#[test]
fn what_is_not_there_is_missing_before_anybody_is_asked() {
    for (backend, place) in stores() {
        for command in ["user delete nobody", "node delete nobody", "session end nobody --json"] {
            place.on(backend, command).ended(4).omits("confirmation");
        }
        place.on(backend, "node delete --expired").ok().warns(&["nothing to do"]);
    }
}

#[test]
fn under_cron_the_trail_names_the_users_number() {
    let place = Place::new();
    place.init("libsql");
    let arguments = ["--backend", "libsql", "--path", "libsql.db", "user", "create", "ann"];
    let mut command = command_in(&place.file(""), &arguments);
    for variable in ["SUDO_USER", "USER", "LOGNAME"] {
        command.env_remove(variable);
    }
    Ran::of(command.output().unwrap()).ok();
    place.on("libsql", "list audit").ok().says(&["cli:uid-"]);
}

#[test]
fn mistakes_are_told_in_the_words_of_the_command_line() {
    let place = Place::new();
    place.init("libsql");
    place
        .on("libsql", "user create ann --role king")
        .ended(2)
        .warns(&["write one of owner, admin, network-admin"])
        .omits("variant");
    place
        .on("libsql", "dns create web.example 100.64.0.9")
        .ended(2)
        .warns(&["the kind comes before the value: write A 100.64.0.9"]);
    place.on("libsql", "key list").ended(2).warns(&["key preauth list", "key api list"]);
    place.on("libsql", "apikey show 1234").ended(4).warns(&["API key does not exist"]);
    place.run("version").ok().says(&["gwstore "]);
    place.run("user list --version").ended(2);
}

#[test]
fn a_policy_is_checked_without_a_store() {
    let place = Place::new();
    place.write("good", "{} // a policy");
    place.write("bad", "[]");
    let said = place.run("policy check good").ok().says(&["HuJSON", "rules were not looked at"]);
    assert!(said.err.is_empty(), "{said:#?}");
    place.write("misspelt", "{\"acl\": []}");
    place.run("policy check misspelt").ok().warns(&["note: `acl`", "nearest is `acls`"]);
    place.write("empty", "");
    place.run("policy check empty").ok().says(&["denies everything"]);
    place.run("policy check bad").refused(&["no HuJSON"]);
    place.run("policy check nowhere").ended(4);
    place.run_with("policy check -", Some(b"{\"acls\": [],}")).ok();
    place.run("policy check good --path x.db").ended(2);
}

/// Each of these says what it would do, does nothing, and is refused where nobody confirms it.
#[test]
fn dry_runs_and_refusals_change_nothing() {
    let edits = [
        "user create carol",
        "user edit alice --role owner",
        "user rename alice anna",
        "node edit laptop --hostname x",
        "node rename laptop traveller",
        "node expire laptop",
        "node expire --user alice",
        "node move laptop bob",
        "node tag laptop tag:a",
        "node approve-routes laptop 10.0.0.0/8",
        "node renumber laptop",
        "preauthkey create --user alice",
        "preauthkey expire --user alice",
        "apikey create",
        "apikey revoke --active",
        "session create --user alice",
        "dns create a.example A 10.0.0.1",
        "dns put a.example A 10.0.0.1",
        "policy set policy",
        "setting set network mtu=1280",
    ];
    let deletions = [
        "user delete alice --cascade",
        "node delete laptop",
        "node delete --user alice --online=false",
        "preauthkey delete --user alice",
        "apikey delete --active",
        "session end --user alice",
        "route delete --node server",
        "dns delete --name wiki.example",
        "setting reset dns",
        "policy prune --keep 1",
    ];
    for (backend, place) in stores() {
        network(&place, backend);
        place.write("policy", "{}");
        place.write("dns.json", "{\"magic_dns\":true}");
        for command in [
            "preauthkey create --user alice",
            "apikey create",
            "session create --user alice",
            "node approve-routes server 10.0.0.0/8",
            "dns create wiki.example A 10.0.0.9",
            "setting set dns -f dns.json",
            "policy set policy",
        ] {
            place.on(backend, command).ok();
        }
        place.write("policy", "{\"acls\": []}");
        let before = place.digest(backend);
        for edit in edits.iter().chain(&deletions) {
            let dry_run = place.on(backend, &format!("{edit} --dry-run")).ok();
            dry_run.warns(&["dry run"]);
            let json = place.on(backend, &format!("{edit} --dry-run -o json")).ok().json();
            let is_prune = edit.starts_with("policy prune");
            assert_eq!(json.as_array().unwrap().is_empty(), is_prune, "{edit}");
            assert_eq!(place.digest(backend), before, "{edit}");
        }
        for deletion in deletions {
            if deletion.starts_with("policy prune") {
                place.on(backend, deletion).ok().warns(&["nothing to do"]);
                continue;
            }
            let refused = place.on(backend, deletion).ended(5).warns(&["confirmation", "--yes"]);
            assert!(refused.out.is_empty(), "{refused:#?}");
            place.on(backend, &format!("{deletion} --yes --save dns.json")).ended(5);
            assert_eq!(place.digest(backend), before, "{deletion}");
        }
        place.on(backend, "node delete laptop --yes --dry-run").ended(2);
        place.on(backend, "user delete alice --yes").refused(&["user.delete"]).ended(5);
        for stale in [
            "node rename laptop x --expect-revision 9",
            "user delete bob --cascade --yes --expect-revision 9",
            "apikey expire --active --expect-revision 9",
            "route approve 10.0.0.0/8 --expect-revision 9",
        ] {
            place.on(backend, stale).ended(5).warns(&["changed by somebody else"]);
        }
        place.on(backend, "node expire laptop desk --expect-revision 1").ended(2);
        place.on(backend, "session end --user alice --yes --expect-revision 1").ended(2);
        assert_eq!(place.digest(backend), before);
        place.on(backend, "node rename laptop x --expect-revision 1").ok();
    }
}

#[test]
fn what_is_saved_can_be_brought_back() {
    for (backend, place) in stores() {
        network(&place, backend);
        for command in [
            "preauthkey create --user alice --tags tag:a",
            "apikey create --user alice",
            "session create --user alice --node laptop",
            "node approve-routes laptop 10.0.0.0/8 fd00::/8",
            "dns create wiki.example TXT words",
            "setting set network mtu=1280",
        ] {
            place.on(backend, command).ok();
        }
        for (number, deletion) in [
            "user delete alice --cascade",
            "node delete --user alice",
            "route delete --node laptop",
            "preauthkey delete --user alice",
            "apikey delete --user alice",
            "session end --user alice",
            "dns delete wiki.example",
            "setting reset network",
        ]
        .into_iter()
        .enumerate()
        {
            let before = place.digest(backend)["state"].clone();
            place.on(backend, &format!("{deletion} --yes --save gone-{number}")).ok();
            assert_ne!(place.digest(backend)["state"], before, "{deletion}");
            place.on(backend, &format!("import portable gone-{number}")).ok();
            assert_eq!(place.digest(backend)["state"], before, "{deletion}");
            // Again it would be in the way of itself.
            let again = format!("{deletion} --yes --save gone-{number}");
            place.on(backend, &again).ended(5).warns(&["gone-"]);
        }
    }
}

/// The traffic of a node that goes is taken over by another, and stays there.
#[test]
fn a_node_whose_routes_were_taken_over_can_be_brought_back() {
    for backend in BACKENDS {
        let place = Place::new();
        place.filled(backend);
        let on = |arguments: &str| place.on(backend, arguments);
        let primaries = || on("route list --primary --prefix 10.20.0.0/16 --json").ok().items();
        let first = primaries().remove(0);
        let node = first["node"].as_str().unwrap();
        on(&format!("node delete {node} --yes --save gone")).ok();
        assert_ne!(primaries()[0]["node"], node);
        on("import portable gone").ok();
        assert_ne!(primaries()[0]["node"], node);
        let back = on(&format!("route list --node {node} --prefix 10.20.0.0/16 --json")).ok();
        assert_eq!(back.items()[0]["id"], first["id"]);
        on("doctor").says(&["rows and blocks are whole"]);
    }
}

#[test]
fn many_are_changed_at_once() {
    for backend in BACKENDS {
        let place = Place::new();
        place.filled(backend);
        let on = |arguments: &str| place.on(backend, arguments);
        let gone = on("node list --not-seen-since 1d --json").ok().items();
        assert!(gone.iter().all(|node| node["online"] == false));
        on("node list --not-seen-since 100y --json -q").ok();
        on("node expire --online=false --at now").ok();
        let expired = ids(&on("node list --expired --online=false --json").ok());
        assert_eq!(expired.len(), ids(&on("node list --online=false --json").ok()).len());
        on("node delete --expired --not-seen-since 1d --yes").ok();
        let left = ids(&on("node list --json").ok());
        assert!(expired.iter().all(|id| !left.contains(id)));
        on("node delete --expired --not-seen-since 1d --yes").ok().warns(&["nothing to do"]);
        on("route approve --approved=false").ok();
        on("route list --approved=false").ok().warns(&["nothing to list"]);
        on("doctor").says(&["rows and blocks are whole"]);
    }
}

#[test]
fn nobody_guesses() {
    for (backend, place) in stores() {
        network(&place, backend);
        let on = |arguments: &str| place.on(backend, arguments);
        let provider = "--provider https://id.example.com --subject";
        on(&format!("user create alice {provider} 7")).ok();
        let before = place.digest(backend);
        let twins = ids(&on("user list --name alice --json").ok());
        assert_eq!(twins.len(), 2);
        for command in [
            "user show alice",
            "user rename alice anna",
            "user delete alice --cascade --yes",
            "node list --user alice",
            "node move server alice",
            "preauthkey create --user alice",
        ] {
            on(command).ended(7).warns(&[twins[0].as_str(), &twins[1], "id"]);
        }
        let error = on("user show alice --json").ended(7).error();
        assert!(error["context"]["candidates"].as_str().unwrap().contains(&twins[1]), "{error}");
        // The time at the beginning of an id is that of others, too.
        on(&format!("user show {}", &twins[0][..6])).ended(7);
        on("user show bo").ended(4);
        for command in [
            "user show",
            "user show alice bob",
            "user show -i bob alice",
            "user rename bob",
            "user rename bob a b",
            "node delete --yes",
            "node expire",
            "node move laptop",
            "node move laptop bob --user bob",
            "node edit laptop",
            "route approve",
            "apikey delete --yes",
            "dns put a.example A",
            "list nodes --user",
            "list users --tag tag:a",
            "node list --columns colour",
            "node list --columns id --json",
        ] {
            on(command).ended(2);
        }
        let directory = place.file("");
        let path = format!("{backend}.db");
        let on = ["--backend", backend, "--path", &path];
        for command in [
            ["user", "show", ""].as_slice(),
            &["user", "create", ""],
            &["node", "list", "--user", ""],
            &["user", "edit", "bob", "--display-name", ""],
            &["node", "rename", "laptop", ""],
        ] {
            run_in(&directory, &[on.as_slice(), command].concat(), None).ended(2);
        }
        assert_eq!(place.digest(backend), before);
    }
}

#[test]
fn a_listing_in_a_pipe_is_whole() {
    let place = Place::new();
    place.filled("libsql");
    let on = |arguments: &str| place.on("libsql", arguments);
    for command in ["list nodes --json -q", "node list --json", "nodes list -o jsonl"] {
        assert_eq!(on(command).ok().items().len(), 150, "{command}");
    }
    assert_eq!(on("node ls -o json").ok().json().as_array().unwrap().len(), 150);
    assert_eq!(on("node list --tag tag:nobody -o json -q").ok().json(), serde_json::json!([]));
    assert_eq!(on("node list --user ada -q").ok().out.lines().count(), {
        on("node list --user ada --json").ok().items().len() + 1
    });
    let part = on("node list --limit 60 -o json").ok().warns(&["--cursor"]);
    assert_eq!(part.json().as_array().unwrap().len(), 60);
    on("node list --json -o json").ended(2);
    on("-o json node show nobody").ended(4).error();
    on("-o json node show").ended(2).error();
    // Every column of a table has its field.
    for (listing, names) in [
        ("nodes", ["user_name", "online", "last_seen", "expired"]),
        ("routes", ["node_label", "primary", "metric", "description"]),
        ("preauth-keys", ["user_name", "state", "expires_at", "reusable"]),
        ("sessions", ["owner_name", "client", "expires_at", "node_label"]),
        ("policies", ["in_force", "bytes", "author", "version"]),
    ] {
        let items = on(&format!("list {listing} --limit 1 --json")).ok().items();
        for name in names {
            assert!(items[0].as_object().unwrap().contains_key(name), "{listing}: {}", items[0]);
        }
    }
    let table = on("node list --columns label,last-seen").ok();
    assert!(table.out.starts_with("LABEL") && table.out.contains(" ago"), "{table:#?}");
    let exact = on("node list --columns last-seen --absolute-times").ok();
    assert!(exact.out.contains("Z\n") && !exact.out.contains(" ago"), "{exact:#?}");
    assert!(!table.out.contains('\u{1b}'));
}

/// Runs the program on a terminal, where somebody types this answer. What it prints has both outputs.
fn on_terminal(place: &Place, variables: &str, arguments: &str, answer: &str) -> Ran {
    let program = env!("CARGO_BIN_EXE_gwstore");
    let line = format!("env {variables} '{program}' {arguments}");
    let mut script = std::process::Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    script.current_dir(place.file("")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = script.stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
    Ran::of(child.wait_with_output().unwrap())
}

#[test]
fn a_person_is_asked() {
    for (backend, place) in stores() {
        network(&place, backend);
        let answered = |arguments: &str, answer: &str| {
            let on = format!("--backend {backend} --path {backend}.db {arguments}");
            on_terminal(&place, "TERM=xterm", &on, answer)
        };
        let before = place.digest(backend);
        for no in ["n\n", "\n", "what\n"] {
            let declined = answered("node delete laptop", no).ended(5);
            declined.says(&["would delete node laptop", "[y/N]", "Nothing was changed"]);
            assert_eq!(place.digest(backend), before);
        }
        // A program does not answer.
        answered("node delete laptop --json", "y\n").ended(5).says(&["confirmation"]);
        assert_eq!(place.digest(backend), before);
        answered("node delete laptop", "y\n").ok().says(&["deleted node laptop"]);
        assert_ne!(place.digest(backend), before);
    }
}

#[test]
fn a_terminal_gets_colours_and_a_page() {
    let place = Place::new();
    place.filled("libsql");
    let list = "--backend libsql --path libsql.db node list";
    let table = on_terminal(&place, "-u NO_COLOR TERM=xterm", list, "").ok();
    assert!(table.out.starts_with("\u{1b}[1mID"), "{table:#?}");
    let table = table.says(&["there is more", "--cursor"]);
    // The titles, a page, and that there is more.
    assert_eq!(table.out.lines().count(), 102, "{table:#?}");
    let plain = on_terminal(&place, "NO_COLOR=1 TERM=xterm", list, "").ok();
    assert!(!plain.out.contains('\u{1b}'), "{plain:#?}");
    let whole = on_terminal(&place, "TERM=dumb", &format!("{list} --all"), "").ok();
    assert!(!whole.out.contains('\u{1b}'), "{whole:#?}");
    assert_eq!(whole.out.lines().count(), 151);
}

#[test]
fn completions_and_manual_pages() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        place.run(&format!("completions {shell}")).ok().says(&["preauthkey", "approve-routes"]);
    }
    place.run("completions tcsh").ended(2);
    place.run("man pages").ok();
    place.run("man pages").ok();
    place.run("man nowhere/pages").ended(4).warns(&["nowhere/pages"]);
    assert!(!place.file("nowhere").exists());
    let page = String::from_utf8(place.read("pages/gwstore-node-tag.1")).unwrap();
    assert!(page.contains("Replaces"), "{page}");
    for (verb, words) in [
        ("node tag", "Replaces a node's tags"),
        ("node approve-routes", "Replaces what is approved"),
        ("route approve", "Adds to what is approved"),
        ("dns put", "Replaces what a name has"),
        ("dns create", "Adds a record"),
        ("setting set", "Replaces the fields"),
    ] {
        let help = place.run(&format!("{verb} --help")).ok();
        assert!(help.out.lines().next().unwrap().starts_with(words), "{help:#?}");
    }
}

#[test]
fn an_import_of_what_was_saved_needs_no_more_than_the_stores_key() {
    let place = Place::new();
    place.write("old.jsonl", portable(&[&crate::support::user(1, "ann")]));
    place.on("libsql", "import portable old.jsonl --create").ok();
    fs::rename(place.file("libsql.db.key"), place.file("key")).unwrap();
    place.on("libsql", "user delete ann --yes --save gone").ok().warns(&["who wrote it"]);
    fs::rename(place.file("key"), place.file("libsql.db.key")).unwrap();
    place.on("libsql", "import portable gone").ok();
    place.on("libsql", "user show ann").ok();
}
