//! Policies, DNS records and settings.

use serde_json::Value;

use super::ids;
use crate::support::{Place, stores};

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
