//! A directory of its own, and a short way to run the program in it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ghostwire_store::config::{self, Config, LoadRequest};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const BACKENDS: [&str; 2] = ["libsql", "zqlite"];

/// Each backend, with a working directory.
pub(crate) fn places() -> impl Iterator<Item = (&'static str, Place)> {
    BACKENDS.into_iter().map(|backend| (backend, Place::new()))
}

/// Each backend, with a working directory in which its store was made.
pub(crate) fn stores() -> impl Iterator<Item = (&'static str, Place)> {
    places().inspect(|(backend, place)| place.init(backend))
}

/// The file without which a store's credentials cannot be checked, by what is appended to the store's.
pub(crate) fn key_file(backend: &str) -> &'static str {
    if backend == "zqlite" { ".keyring" } else { ".key" }
}

/// What the program did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.ended(0)
    }

    #[track_caller]
    pub(crate) fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Each of `words` is on standard output.
    #[track_caller]
    pub(crate) fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.out.contains(word), "{word:?} is not on standard output: {self:#?}");
        }
        self
    }

    /// Each of `words` is on standard error.
    #[track_caller]
    pub(crate) fn warns(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not on standard error: {self:#?}");
        }
        self
    }

    /// `word` is not on standard error.
    #[track_caller]
    pub(crate) fn omits(self, word: &str) -> Self {
        assert!(!self.err.contains(word), "{word:?} is on standard error: {self:#?}");
        self
    }

    /// None of `words` is on either output.
    #[track_caller]
    pub(crate) fn hides(self, words: &[&str]) -> Self {
        for word in words {
            let is_there = self.out.contains(word) || self.err.contains(word);
            assert!(!is_there, "{word:?} is to be seen: {self:#?}");
        }
        self
    }

    /// It failed as it should, with a code for something that was not done. Standard error says each of
    /// `words`, and nothing panicked.
    #[track_caller]
    pub(crate) fn refused(self, words: &[&str]) -> Self {
        assert!(matches!(self.code, 1..=5 | 75), "{self:#?}");
        self.omits("panicked").warns(words)
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// A listing as JSON, one item a line.
    #[track_caller]
    pub(crate) fn items(&self) -> Vec<Value> {
        let item = |line| serde_json::from_str(line);
        let items = self.out.lines().map(item).collect::<Result<_, _>>();
        items.unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    #[track_caller]
    pub(crate) fn error(&self) -> Value {
        serde_json::from_str(&self.err).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// A working directory in which nobody else works.
pub(crate) struct Place {
    directory: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.file(name);
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.file(name)).unwrap()
    }

    /// Runs the program with these arguments, split at blanks.
    pub(crate) fn run(&self, arguments: &str) -> Ran {
        self.run_with(arguments, None)
    }

    pub(crate) fn run_with(&self, arguments: &str, input: Option<&[u8]>) -> Ran {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        run_in(self.directory.path(), &arguments, input)
    }

    /// Runs it on the store of a backend, which lies in `<backend>.db`.
    pub(crate) fn on(&self, backend: &str, arguments: &str) -> Ran {
        self.run(&format!("--backend {backend} --path {backend}.db {arguments}"))
    }

    #[track_caller]
    pub(crate) fn init(&self, backend: &str) {
        self.on(backend, "init").ok();
    }

    /// The digests of what is stored, as JSON.
    #[track_caller]
    pub(crate) fn digest(&self, backend: &str) -> Value {
        self.on(backend, "digest --json").ok().json()
    }

    /// Makes the sample network that the demonstration uses: every kind of entity and series.
    #[track_caller]
    pub(crate) fn sample(&self) -> PathBuf {
        self.run("demo --write-sample sample.jsonl").ok();
        self.file("sample.jsonl")
    }

    /// Makes a store that holds the sample network.
    #[track_caller]
    pub(crate) fn filled(&self, backend: &str) {
        self.sample();
        self.on(backend, "import portable sample.jsonl --create").ok();
    }

    /// The configuration that `on` gives the program.
    pub(crate) fn config(&self, backend: &str) -> Config {
        let path = self.file(&format!("{backend}.db")).to_str().unwrap().to_owned();
        let overrides =
            vec![("backend".to_owned(), backend.to_owned()), (format!("{backend}.path"), path)];
        let request = LoadRequest { overrides, ..LoadRequest::default() };
        config::load(&request, &BTreeMap::new()).unwrap()
    }

    /// What `act` does must be refused, and must not change what the store of `backend` holds.
    #[track_caller]
    pub(crate) fn unchanged(
        &self,
        backend: &str,
        words: &[&str],
        act: impl FnOnce() -> Ran,
    ) -> Ran {
        let before = self.digest(backend);
        let ran = act().refused(words);
        assert_eq!(self.digest(backend), before);
        ran
    }
}

/// The program with these arguments, without input.
pub(crate) fn command_in(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gwstore"));
    command.args(arguments).current_dir(directory).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GHOSTWIRE") {
            command.env_remove(name);
        }
    }
    command
}

pub(crate) fn run_in(directory: &Path, arguments: &[&str], input: Option<&[u8]>) -> Ran {
    let mut command = command_in(directory, arguments);
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().unwrap();
    if let Some(input) = input {
        // Whoever refuses the beginning does not read the rest.
        let _ = child.stdin.take().unwrap().write_all(input);
    }
    Ran::of(child.wait_with_output().unwrap())
}

pub(crate) fn dump(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/headscale").join(name);
    path.to_str().unwrap().to_owned()
}

/// A portable file with these lines between its first and its last, and a right last line.
pub(crate) fn portable(lines: &[&str]) -> Vec<u8> {
    let schema = ghostwire_store_core::schema::Schema::current().version().version;
    let mut text = format!("{{\"ghostwire_store\":1,\"schema\":{schema}}}\n");
    let mut counts = serde_json::Map::new();
    for line in lines {
        text.push_str(line);
        text.push('\n');
        let kind = line.trim_start_matches("{\"").split('"').next().unwrap().to_owned();
        let count = counts.entry(kind).or_insert_with(|| 0.into());
        *count = (count.as_u64().unwrap() + 1).into();
    }
    let sha256 = sha256(text.as_bytes());
    let end = serde_json::json!({ "end": { "counts": counts, "sha256": sha256 } });
    text.push_str(&format!("{end}\n"));
    text.into_bytes()
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    data_encoding::HEXLOWER.encode(&<[u8; 32]>::from(Sha256::digest(bytes)))
}

/// An export with these lines put in at its end, and all that its editor can put right.
pub(crate) fn edited(export: &str, more: &[&str]) -> Vec<u8> {
    let (items, end) = export.split_at(export.rfind("{\"end\"").unwrap());
    let mut end: Value = serde_json::from_str(end).unwrap();
    let mut text = items.to_owned();
    for line in more {
        let kind = line.trim_start_matches("{\"").split('"').next().unwrap();
        text.push_str(line);
        text.push('\n');
        let count = end["end"]["counts"][kind].as_u64().unwrap_or(0);
        end["end"]["counts"][kind] = (count + 1).into();
    }
    let trailer = end["end"].as_object_mut().unwrap();
    trailer.remove("state_digest");
    trailer.insert("sha256".to_owned(), sha256(text.as_bytes()).into());
    (text + &format!("{end}\n")).into_bytes()
}

/// The line of a user.
pub(crate) fn user(number: u32, name: &str) -> String {
    serde_json::json!({ "user": {
        "id": format!("0190a5c8-7e1f-7000-8000-{number:012x}"),
        "name": name,
        "identity": { "kind": "local" },
        "created_at": "2024-02-29T12:00:00.000000Z",
        "updated_at": "2024-02-29T12:00:00.000000Z",
        "revision": 1,
    }})
    .to_string()
}

/// Whether a file without any permission cannot be read: not so for root.
pub(crate) fn permissions_hold() -> bool {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("closed");
    fs::write(&file, "x").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    fs::read(&file).is_err()
}
