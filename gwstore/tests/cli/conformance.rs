//! `gwstore conformance`.

use crate::support::{Place, places};

#[test]
fn a_configured_backend_is_tried_beside_its_store() {
    for (backend, place) in places() {
        let on = format!("--backend {backend} --path {}", place.file("store.db").display());
        let page = place.file("page.html");
        let ran = place.run(&format!("{on} conformance one-time-retry --html {}", page.display()));
        assert!(ran.ok().out.contains(" 0 failed, 0 excepted"));
        let page = String::from_utf8(place.read("page.html")).unwrap();
        assert!(page.contains("one-time-retry") && !page.contains(">failed<"));
        let left: Vec<_> = std::fs::read_dir(place.file("")).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "only the page is left: {left:?}");
        // Other processes are started from this program, to be killed.
        let killed = place.run(&format!("--json {on} conformance what_a_killed --kills 4")).ok();
        let trials = killed.json();
        assert!(trials["trials"].as_array().unwrap().iter().all(|t| t["outcome"] == "passed"));
    }
}

#[test]
fn what_cannot_be_tried_is_refused() {
    let place = Place::new();
    let path = place.file("store.db");
    let missing = place.file("missing/store.db");
    for (arguments, words) in [
        (
            "--backend postgres --set secret_key_file=k --set postgres.host=127.0.0.1 \
             --set postgres.port=1 conformance"
                .to_owned(),
            match cfg!(feature = "postgres") {
                true => ["127.0.0.1:1", "cannot be reached"],
                false => ["postgres", "compiled"],
            },
        ),
        (format!("--path {} conformance", missing.display()), ["missing", "init"]),
        (format!("--path {} conformance no-such-case", path.display()), ["no-such-case", "--list"]),
        (format!("--path {} conformance --kills 0", path.display()), ["kills", "0"]),
        (
            format!("--path {} conformance --html {}", path.display(), missing.display()),
            ["cannot be written", "missing"],
        ),
        ("conformance --list no-such-case".to_owned(), ["no-such-case", "--list"]),
    ] {
        place.run(&arguments).refused(&words);
    }
}
