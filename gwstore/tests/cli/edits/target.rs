//! What is named, and mistakes in that.

use super::{ids, network};
use crate::support::{Place, run_in, stores};

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
fn what_is_not_there_is_missing_before_anybody_is_asked() {
    for (backend, place) in stores() {
        for command in ["user delete nobody", "node delete nobody", "session end nobody --json"] {
            place.on(backend, command).ended(4).omits("confirmation");
        }
        place.on(backend, "node delete --expired").ok().warns(&["nothing to do"]);
    }
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
