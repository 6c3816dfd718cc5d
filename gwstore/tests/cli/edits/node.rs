//! Nodes and their routes.

use super::{change, ids, network};
use crate::support::{BACKENDS, Place, stores};

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
