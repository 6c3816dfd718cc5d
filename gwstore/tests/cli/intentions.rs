//! What operators of Headscale, Tailscale and NetBird type without having read anything.

use crate::support::Place;

/// Each does what it says, or with `--dry-run` would.
const INTENTIONS: &[&str] = &[
    // Headscale.
    "users list",
    "users create dave",
    "users create dave --display-name Dave --email dave@example.com",
    "users rename alice anna",
    "users rename -i alice --new-name anna",
    "users destroy dave2 --yes",
    "users destroy --name dave2 --force",
    "nodes list",
    "nodes list -u alice",
    "nodes list --user alice -o json",
    "nodes list --tag tag:web",
    "nodes list --tags",
    "nodes list -t",
    "nodes expire -i laptop --disable",
    "nodes routes",
    "nodes routes -i server",
    "nodes list-routes -i server",
    "nodes approve-routes -i server --routes=",
    "nodes tag -i server -t=",
    "routes list -i server",
    "list routes -i server",
    "users list -n alice",
    "users list --name alice",
    "users rename -n alice -r anna",
    "users rename --name alice --new-name anna",
    "users destroy -n dave2 --force",
    "policy get --version 1",
    "verify",
    "backup copy.jsonl",
    "nodes register printer --user alice --machine-key MKEY --key NKEY",
    "nodes expire -i laptop",
    "nodes expire --identifier laptop --expiry 2030-01-01T00:00:00Z",
    "nodes delete -i laptop --force",
    "nodes rename -i laptop traveller",
    "nodes move -i laptop -u bob",
    "nodes tag -i laptop -t tag:web",
    "nodes tag -i laptop --tags tag:web,tag:db",
    "nodes list-routes",
    "nodes list-routes --node server",
    "nodes approve-routes -i server --routes 10.0.0.0/8,192.168.0.0/24",
    "nodes approve-routes --identifier server --routes 0.0.0.0/0,::/0",
    "nodes backfillips",
    "routes list",
    "routes enable 10.1.0.0/16",
    "routes disable 10.1.0.0/16",
    "routes delete 10.1.0.0/16 --yes",
    "preauthkeys create -u alice",
    "preauthkeys create --user alice --reusable --ephemeral --expiration 24h",
    "preauthkeys create -e 24h --tags tag:ci --reusable -u alice",
    "preauthkeys list",
    "preauthkeys list --user alice",
    "preauthkeys expire --user alice",
    "preauthkeys delete --user alice --yes",
    "apikeys create",
    "apikeys create --expiration 90d",
    "apikeys list",
    "apikeys expire --active",
    "apikeys delete --active --yes",
    "policy get",
    "policy set -f policy",
    "policy set policy",
    "policy check -f policy",
    // Tailscale.
    "node show 100.64.0.1",
    "route approve --node server",
    "dns list",
    "key preauth create --user alice --ephemeral",
    "key api create --description terraform",
    "auth-keys list",
    "machines list --online=false",
    // NetBird.
    "peers list",
    "setup-keys create --user alice --reusable --expires 24h",
    "setup-keys revoke --active",
    "user create robot --role auditor",
    "user edit alice --role admin",
    "user edit alice --metadata {\"plan\":1}",
    "user edit alice --metadata @policy",
    "user edit alice --clear metadata",
    "setting set dns nameservers=9.9.9.9,1.1.1.1",
    "setting set dns internal_domains=a.example,b.example",
    "session list --user alice",
    "session end --expired --yes",
    "setting get network",
    "settings list",
    "setting set network keepalive_seconds=25",
    "setting set dns magic_dns=true",
    "dns add wiki.example.com A 10.0.0.7 --ttl 300",
    "audit list --since 24h",
    "audit list --action user.create --actor somebody",
    "list audit --entity user --result success --until now",
    "node delete --expired --not-seen-since 90d --yes",
    "node delete --ephemeral --not-seen-since 1d --save saved --yes",
    "list preauthkeys --active",
    "list users --columns name,role",
];

#[test]
fn intentions_are_understood() {
    let place = Place::new();
    place.init("libsql");
    place.write("policy", "{\"acls\": []}");
    let hex = |of: &str| of.repeat(32);
    let keys = |one: &str, other: &str| {
        format!("--machine-key mkey:{} --node-key nodekey:{}", hex(one), hex(other))
    };
    for command in [
        "user create alice",
        "user create bob",
        &format!("node create laptop --user alice {}", keys("01", "02")),
        &format!("node create server --user bob {}", keys("03", "04")),
        "node approve-routes server 10.1.0.0/16",
        "preauthkey create --user alice",
        "apikey create",
        "policy set policy",
    ] {
        place.on("libsql", command).ok();
    }
    place.write("store", place.read("libsql.db"));
    for intention in INTENTIONS {
        place.write("libsql.db", place.read("store"));
        if intention.contains("dave2") {
            place.on("libsql", "user create dave2").ok();
        }
        let keys = |text: &str| {
            text.replace("MKEY", &format!("mkey:{}", hex("05")))
                .replace("NKEY", &format!("nodekey:{}", hex("06")))
        };
        let on = if intention.starts_with("policy check") { "" } else { "--path libsql.db" };
        let ran = place.run(&format!("{on} {}", keys(intention)));
        assert_eq!(ran.code, 0, "{intention}: {ran:#?}");
    }
}

#[test]
fn who_types_something_else_is_told_what_is_meant() {
    let place = Place::new();
    for (typed, help) in [
        ("show node laptop", "gwstore node show"),
        ("preauthkey create alice", "--user NAME"),
        ("setting set magic-dns true", "dns magic_dns=true"),
        ("export", "gwstore export FILE"),
        ("log-level debug", "gwstore log level"),
        ("reload", "gwstore config reload"),
        ("shutdown", "SIGTERM"),
        ("audit", "gwstore audit list"),
        ("configtest", "gwstore doctor"),
        ("nodes untag laptop", "--remove"),
        ("import copy.jsonl", "gwstore import portable FILE"),
        ("nodes list laptop", "gwstore node show"),
        ("nodes list -o wide", "--columns"),
        ("node delete --stale 90d", "--not-seen-since"),
        ("audit --since 24h", "gwstore audit list"),
        ("log level", "gwstore config show"),
        ("health live", "health --live"),
    ] {
        place.run(typed).ended(2).warns(&["help: ", help]);
    }
    for actor in ["cli", "cli:*"] {
        place.run(&format!("audit list --actor {actor}")).ended(2).warns(&["cli:alice"]);
    }
    place.run("--backend foo status").refused(&["libsql"]).omits("nearest");
    let error = place.run("reload --json").ended(2).error();
    assert!(error["help"][0].as_str().unwrap().contains("config reload"), "{error}");
    place.run("completion bash").ok();
}

#[test]
fn nodes_that_a_new_prefix_leaves_outside_are_counted() {
    let place = Place::new();
    place.init("libsql");
    place.on("libsql", "user create alice").ok();
    let keys =
        format!("--machine-key mkey:{} --node-key nodekey:{}", "01".repeat(32), "02".repeat(32));
    place.on("libsql", &format!("node create laptop --user alice {keys}")).ok();
    let outside = "outside of the network's prefixes: 1";
    place.on("libsql", "setting set network ipv4=10.9.0.0/16").ok().warns(&[outside]);
    place.on("libsql", "setting set network ipv4=100.64.0.0/10").ok().omits(outside);
}

#[test]
fn a_derp_map_in_another_form_is_told_the_right_one() {
    let place = Place::new();
    place.init("libsql");
    for (name, text) in
        [("map.yaml", "regions:\n  900:\n    regionid: 900\n"), ("map", "{\"Regoins\":{}}")]
    {
        place.write(name, text);
        let ran = place.on("libsql", &format!("setting set derp-map --file {name}"));
        ran.refused(&["`regions`", "`Regions`", "YAML"]);
    }
}
