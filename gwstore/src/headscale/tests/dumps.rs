//! The dumps that Headscale ships for its own upgrade tests.

use super::*;

fn shipped(name: &str) -> Import {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/headscale").join(name);
    let import = read_file(&path).unwrap();
    import.assert_restorable();
    import
}

#[test]
fn empty_dumps_of_0_26() {
    for name in ["headscale_0.26.1_dump.sql", "headscale_0.26.1_dump-litestream.sql"] {
        let import = shipped(name);
        assert!(
            import.images.is_empty()
                && import.findings.problems.is_empty()
                && import.said().is_empty()
        );
        assert_eq!(import.origin.release, Some("0.26"));
        assert_eq!((import.origin.kind, import.origin.version), (SourceKind::Dump, None));
    }
}

#[test]
fn requested_tags_are_granted_as_headscale_does() {
    let import = shipped("request_tags_migration_test.sql");
    assert_eq!(import.findings.problems, []);
    assert_eq!(import.origin.release, Some("0.27.1"));
    assert_eq!((import.users().len(), import.policies().len()), (3, 1));
    let tags: Vec<Vec<_>> = import
        .nodes()
        .iter()
        .map(|node| node.tags.iter().map(|tag| tag.name().to_owned()).collect())
        .collect();
    let wanted: [&[&str]; 7] =
        [&["server"], &[], &["client", "existing"], &["server"], &[], &["admin"], &["server"]];
    assert_eq!(tags, wanted);
    let owned: Vec<_> = import.nodes().iter().map(|node| node.user.is_some()).collect();
    assert_eq!(owned, [false, true, false, false, true, false, false]);
    assert!(
        import.has_note("has tags that it asks for and the policy allows (4 rows: 1, 3, 6, 7)")
    );
    for node in import.nodes() {
        assert_eq!(node.expires_at, None, "a zero time is no expiry");
        assert!(node.ipv4.is_some() && node.ipv6.is_some() && node.disco_key.is_some());
    }
    let presences = import.presences();
    assert_eq!(presences.len(), 7);
    assert_eq!(presences[0].last_seen.unwrap().to_string(), "2024-01-01T00:00:00.000000Z");
    assert!(import.policies()[0].document.as_str().contains("tagOwners"));
    let user = &import.users()[0];
    assert_eq!(user.name.as_str(), "user1@example.com");
    assert_eq!(user.display_name.as_ref().unwrap().as_str(), "User One");
}

#[test]
fn reading_twice_gives_the_same() {
    let [one, two] = [(); 2].map(|()| shipped("request_tags_migration_test.sql"));
    assert_eq!(one.images, two.images);
    assert_eq!(one.said(), two.said());
    // Identifiers once given out must not change: a second import would import everything anew.
    assert_eq!(one.nodes()[0].id.to_string(), "018cc251-f400-8204-97c0-5f55bf7224bb");
    assert_eq!(one.users()[0].id.to_string(), "018cc251-f400-8556-a8e4-c76f0c0f4a4f");
}

#[test]
fn a_database_gives_what_its_dump_gives() {
    let name = "tests/data/headscale/request_tags_migration_test.sql";
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db #1?%41 é.sqlite");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(&text).unwrap();
    drop(connection);
    let import = read_file(&path).unwrap();
    assert_eq!(import.origin.kind, SourceKind::Database);
    assert_eq!(import.images, shipped("request_tags_migration_test.sql").images);
    let beside = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(beside, 1, "nothing is written beside the file");
}
