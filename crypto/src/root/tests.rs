#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
use std::fs;
use std::path::Path;

use super::*;
use crate::random::SystemRandom;

struct Fixture {
    directory: tempfile::TempDir,
    identity: Identity,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    Fixture { directory, identity: Identity::draw(&SystemRandom).unwrap() }
}

impl Fixture {
    fn file(&self, content: impl AsRef<[u8]>, mode: u32) -> Place {
        let path = self.directory.path().join("root");
        let _ = fs::remove_file(&path);
        fs::write(&path, content).unwrap();
        set_mode(&path, mode);
        Place::File(path)
    }

    fn line(&self) -> String {
        self.identity.to_text().to_string()
    }

    #[track_caller]
    fn opens(&self, place: &Place) {
        match place.read().unwrap() {
            RootSecret::Identity(found) => assert_eq!(found.to_text(), self.identity.to_text()),
            RootSecret::Passphrase(_) => panic!("not a passphrase"),
        }
    }

    /// Gives the error's text, which must not have the secret.
    #[track_caller]
    fn refused(&self, place: &Place) -> (RootFault, String) {
        let error = place.read().unwrap_err();
        let (shown, debugged) = (error.to_string(), format!("{error:?}"));
        for text in [&shown, &debugged] {
            assert!(!text.contains(&self.line()[25..50]), "{text}");
        }
        match error {
            Error::Root { fault, .. } => (fault, shown),
            other => panic!("{other:?}"),
        }
    }
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(not(unix))]
fn set_mode(_: &Path, _: u32) {}

#[test]
fn an_identity_in_a_file_as_age_keygen_writes_it() {
    let fixture = fixture();
    let line = fixture.line();
    for content in [
        line.clone(),
        format!("{line}\n"),
        format!("{line}\r\n\n"),
        format!("# created: today\n#public key: age1pq1\n\n{line}\n# and that was it"),
        format!("  {line}  "),
    ] {
        fixture.opens(&fixture.file(content, 0o600));
        assert_eq!(line.len(), Identity::TEXT_LENGTH);
    }
    fixture.opens(&fixture.file(&line, 0o400));
}

#[test]
fn anything_else_is_malformed_and_not_shown() {
    let fixture = fixture();
    let line = fixture.line();
    let mut altered = line.clone().into_bytes();
    altered[40] = if altered[40] == b'Q' { b'P' } else { b'Q' };
    for content in [
        Vec::new(),
        b"\n\n".to_vec(),
        b"# only a comment".to_vec(),
        line.to_lowercase().into_bytes(),
        line[1..].to_owned().into_bytes(),
        line[..line.len() - 1].to_owned().into_bytes(),
        format!("{line}Q").into_bytes(),
        format!("{line}\n{line}").into_bytes(),
        format!("{line} {line}").into_bytes(),
        altered,
        vec![0; 32],
        vec![b'\n'; LONGEST],
        vec![0xff; LONGEST + 1],
    ] {
        let (fault, shown) = fixture.refused(&fixture.file(content, 0o600));
        assert!(matches!(fault, RootFault::Malformed { .. }), "{shown}");
    }
    let directory = Place::File(fixture.directory.path().to_owned());
    assert!(matches!(fixture.refused(&directory).0, RootFault::Malformed { .. }));
}

#[test]
fn what_is_not_there_is_missing() {
    let fixture = fixture();
    for place in [
        Place::File(fixture.directory.path().join("nowhere")),
        Place::PassphraseFile(fixture.directory.path().join("nowhere")),
        Place::Variable("GHOSTWIRE_TEST_NO_SUCH_VARIABLE".to_owned()),
    ] {
        let (fault, shown) = fixture.refused(&place);
        assert!(matches!(fault, RootFault::Missing), "{shown}");
        assert!(shown.contains(&place.name()), "{shown}");
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_others_may_read_is_refused_with_its_mode_and_what_to_do() {
    let fixture = fixture();
    for mode in [0o644, 0o604, 0o620, 0o660, 0o601, 0o610] {
        for place in [
            fixture.file(fixture.line(), mode),
            Place::PassphraseFile(fixture.directory.path().join("root")),
        ] {
            let (fault, shown) = fixture.refused(&place);
            assert!(matches!(fault, RootFault::Exposed { mode: found, .. } if found == mode));
            assert!(shown.contains(&format!("{mode:04o}")), "{shown}");
            assert!(shown.contains("chmod 600 "), "{shown}");
        }
    }
}

/// What Kubernetes mounts for a pod with `fsGroup`. Only root can make such a file.
#[cfg(unix)]
#[test]
fn a_file_of_roots_for_our_group_is_taken() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let fixture = fixture();
    let place = fixture.file(fixture.line(), 0o440);
    let Place::File(path) = &place else { panic!() };
    if fs::metadata(path).unwrap().uid() != 0 {
        assert!(matches!(fixture.refused(&place).0, RootFault::Exposed { .. }));
        return;
    }
    fixture.opens(&place);
    let other = 54_321;
    chown(path, None, Some(other)).unwrap();
    assert!(matches!(fixture.refused(&place).0, RootFault::Exposed { .. }), "another group");
    chown(path, Some(other), Some(rustix::process::getegid().as_raw())).unwrap();
    assert!(matches!(fixture.refused(&place).0, RootFault::Exposed { .. }), "not root's");
}

#[test]
fn a_passphrase_is_all_but_the_line_ends() {
    let fixture = fixture();
    let read = |content: &[u8]| {
        let Place::File(path) = fixture.file(content, 0o600) else { panic!() };
        Place::PassphraseFile(path).read()
    };
    for (content, expected) in [
        (&b"correct horse"[..], &b"correct horse"[..]),
        (b"correct horse\n", b"correct horse"),
        (b" spaces stay \r\n\n", b" spaces stay "),
        ("größe\n".as_bytes(), "größe".as_bytes()),
    ] {
        match read(content).unwrap() {
            RootSecret::Passphrase(found) => assert_eq!(found.expose(), expected),
            RootSecret::Identity(_) => panic!("not an identity"),
        }
    }
    for empty in [&b""[..], b"\n", b"\r\n\n"] {
        assert!(matches!(read(empty), Err(Error::Root { fault: RootFault::Malformed { .. }, .. })));
    }
    assert_eq!(format!("{:?}", read(b"hunter2").unwrap()), "Unlock(Passphrase(..))");
}

/// The names of credentials come from a configuration.
#[test]
fn a_credential_is_named_without_a_directory() {
    let fixture = fixture();
    for name in ["", ".", "..", "a/b", "/etc/passwd", "../root", "root/", "./root"] {
        let (fault, shown) = fixture.refused(&Place::Credential(name.to_owned()));
        assert!(matches!(fault, RootFault::Malformed { .. }), "{name}: {shown}");
    }
}

#[cfg(unix)]
#[test]
fn variables_and_credentials_of_this_process() {
    use std::process::Command;
    const CHILD: &str = "GHOSTWIRE_TEST_ROOT_CHILD";
    if std::env::var_os(CHILD).is_some() {
        for place in
            [Place::Variable("ROOT".to_owned()), Place::Credential("ghostwire-root".to_owned())]
        {
            match place.read() {
                Ok(RootSecret::Identity(found)) => {
                    println!("found {}", found.recipient().fingerprint());
                }
                other => println!("{other:?}"),
            }
        }
        return;
    }
    let fixture = fixture();
    let path = fixture.directory.path().join("ghostwire-root");
    fs::write(&path, fixture.line()).unwrap();
    let run = |mode, directory: Option<&Path>| {
        set_mode(&path, mode);
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "root::tests::variables_and_credentials_of_this_process"]);
        child.args(["--nocapture"]).env(CHILD, "1").env("ROOT", fixture.line());
        child.env_remove("CREDENTIALS_DIRECTORY");
        child.envs(directory.map(|directory| ("CREDENTIALS_DIRECTORY", directory)));
        String::from_utf8(child.output().unwrap().stdout).unwrap()
    };
    let directory = Some(fixture.directory.path());
    let found = format!("found {}", fixture.identity.recipient().fingerprint());
    // An access list shows as the group's permission.
    for mode in [0o400, 0o440] {
        assert_eq!(run(mode, directory).matches(&found).count(), 2);
    }
    assert!(run(0o444, directory).contains("Exposed"));
    assert!(run(0o400, None).contains("CREDENTIALS_DIRECTORY is not set"));
    let elsewhere = tempfile::tempdir().unwrap();
    assert!(run(0o400, Some(elsewhere.path())).contains("Missing"));
}
