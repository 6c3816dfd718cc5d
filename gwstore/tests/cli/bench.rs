//! `gwstore bench`.

use serde_json::Value;

use crate::support::Place;

/// Two subjects and two operations, so that it takes no time.
const SOME: &str = "bench --quick --seconds 0.02 --subject memory --subject libsql-crate \
                    --operation register --operation node-by-id --callers 2";

#[test]
fn a_program_that_is_not_the_others_is_named_with_a_reason() {
    let place = Place::new();
    let others = |program: &str, words: &[&str]| {
        place.run(&format!("{SOME} --others {program}")).refused(words);
    };
    others("/bin/false", &["/bin/false list", "exit status: 1", "benches/others"]);
    others("/bin/true", &["/bin/true answers", "cannot be read", "benches/others"]);
    others("/nonexistent", &["/nonexistent", "No such file"]);
}

#[test]
fn it_prints_tables_and_writes_results_and_a_page() {
    let place = Place::new();
    let dir = place.file("");
    let ran = place
        .run(&format!("{SOME} --dir {} --html page.html --json results.json", dir.display()))
        .ok();
    assert!(ran.out.contains("Register a node") && ran.out.contains("Reach ["), "{}", ran.out);
    let results: Value = serde_json::from_slice(&place.read("results.json")).unwrap();
    assert!(results["machine"]["fdatasync_us"]["median"].as_f64().unwrap() > 0.0);
    assert!(!results["machine"]["file_system"].as_str().unwrap().is_empty());
    let tables = results["tables"].as_array().unwrap();
    let operation = |table: &Value| table["case"]["operation"].as_str().unwrap().to_owned();
    assert!(tables.iter().any(|table| operation(table) == "register"));
    for table in tables {
        let names: Vec<_> =
            table["subjects"].as_array().unwrap().iter().map(|of| &of["about"]["name"]).collect();
        assert_eq!(names, ["memory", "libsql-crate"]);
        assert!(table["subjects"][1]["runs"][0]["count"].as_u64().unwrap() > 0);
    }
    assert!(results["reach"].as_array().unwrap().len() >= 12);
    let page = String::from_utf8(place.read("page.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("libsql-crate") && page.ends_with("</html>\n"));
    for outside in ["http:", "https:", "//", "src=", "href=", "url(", "@import", "<script"] {
        assert!(!page.contains(outside), "{outside} in the page");
    }
    let left: Vec<_> = std::fs::read_dir(dir).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left.len(), 2, "only results and page are left: {left:?}");
}

#[test]
fn results_go_to_standard_output_for_programs() {
    let place = Place::new();
    let ran = place.run(&format!("--json {SOME} --operation nothing")).ok();
    assert_eq!(ran.json()["settings"]["effort"], "quick");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let place = Place::new();
    for (arguments, words) in [
        ("--callers 0", ["--callers", "0"]),
        ("--rounds 0", ["--rounds", "0"]),
        ("--seconds 0", ["--seconds", "0.01"]),
        ("--seconds NaN", ["--seconds", "NaN"]),
        ("--subject zqlit", ["\"zqlit\"", "\"zqlite\""]),
        ("--operation regsiter", ["regsiter", "register"]),
        ("--full", ["--quick", "--full"]),
        ("--dir /no/such/directory", ["/no/such/directory", "directory"]),
        ("--others /no/such/program", ["/no/such/program", "directory"]),
        ("results.json", ["results.json", "--json"]),
        ("--html /no/such/page.html", ["page", "/no/such/page.html"]),
    ] {
        place.run(&format!("bench --quick {arguments}")).refused(&words);
    }
}
