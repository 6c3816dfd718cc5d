//! Users.

use super::{change, ids};
use crate::support::stores;

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
