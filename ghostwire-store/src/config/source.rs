//! The flag file: reading it, and parsing TOML or YAML into one tree.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use toml::de::{DeTable, DeValue};

use super::yaml;

/// The largest flag file that is read.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// Deeper than any key; keeps hostile nesting from using up the stack.
pub(super) const MAX_DEPTH: usize = 16;

/// A flag file in memory: what [`resolve`](super::resolve) needs to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagFile {
    /// Its path: the extension decides the format, and relative paths resolve against its directory.
    pub path: PathBuf,
    /// What it holds, as text.
    pub text: String,
}

/// A value of the file, whatever its format.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Null,
    Boolean(bool),
    Integer(i128),
    Text(String),
    Table(Vec<Entry>),
    /// Something no key takes; the text says what.
    Other(&'static str),
}

/// A key of the file and what it holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) line: Option<usize>,
    pub(super) node: Node,
}

impl std::fmt::Display for Node {
    /// The value as messages show it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("nothing"),
            Self::Boolean(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Text(value) => write!(f, "{value:?}"),
            Self::Table(_) | Self::Other(_) => f.write_str(self.what()),
        }
    }
}

impl Node {
    /// What kind of value it is, for messages.
    pub(super) const fn what(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Boolean(_) => "a boolean",
            Self::Integer(_) => "an integer",
            Self::Text(_) => "text",
            Self::Table(_) => "a table",
            Self::Other(what) => what,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Toml,
    Yaml,
}

impl Format {
    fn of(path: &Path) -> Result<Self> {
        let extension = path.extension().map(|extension| extension.to_ascii_lowercase());
        match extension.as_deref().and_then(|extension| extension.to_str()) {
            Some("toml") => Ok(Self::Toml),
            Some("yaml" | "yml") => Ok(Self::Yaml),
            _ => Err(Error::invalid(
                "the flag file's format is unknown: its name has to end in .toml, .yaml or .yml",
            )
            .with("path", path.display())),
        }
    }
}

impl FlagFile {
    /// Reads a flag file. This is the only place of the configuration that touches the file system.
    ///
    /// # Errors
    /// `NotFound` without such a file, `PermissionDenied` for one that may not be read,
    /// `InvalidArgument` for a directory and for a file that is too large, not UTF-8 or of an
    /// unknown format, `Unavailable` if reading fails.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = read_bytes(path)?;
        Format::of(path)?;
        if bytes.len() > MAX_FILE_BYTES {
            return Err(too_large(path));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            Error::invalid("the flag file is not valid UTF-8")
                .with("path", path.display())
                .with("offset", error.utf8_error().valid_up_to())
        })?;
        Ok(Self { path: path.to_owned(), text })
    }

    pub(super) fn parse(&self) -> Result<Vec<Entry>> {
        if self.text.len() > MAX_FILE_BYTES {
            return Err(too_large(&self.path));
        }
        let text = self.text.strip_prefix('\u{feff}').unwrap_or(&self.text);
        match Format::of(&self.path)? {
            Format::Toml => parse_toml(text),
            Format::Yaml => yaml::parse(text),
        }
        .map_err(|error| error.with("path", self.path.display()))
    }
}

fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| {
        let failure = match error.kind() {
            std::io::ErrorKind::NotFound if path.is_symlink() => Error::new(
                ErrorKind::NotFound,
                "the flag file is a link that leads nowhere: put its target back, or remove the link",
            ),
            std::io::ErrorKind::NotFound => Error::new(
                ErrorKind::NotFound,
                "the flag file does not exist: create it, for example with the two lines \
                 `[development]` and `backend = \"libsql\"`, or name no file to run on the defaults",
            ),
            std::io::ErrorKind::PermissionDenied => Error::new(
                ErrorKind::PermissionDenied,
                "the flag file may not be read by this user: check its owner and mode",
            ),
            _ => Error::new(ErrorKind::Unavailable, "the flag file cannot be read"),
        };
        failure.with("path", path.display()).because(error)
    };
    // Asked first, because opening a pipe would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "a directory" } else { "not a regular file" };
        return Err(Error::invalid("the path has to name a flag file")
            .with("path", path.display())
            .with("found", what));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large, also one that is still growing.
    let limit = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(failed)?;
    Ok(bytes)
}

fn too_large(path: &Path) -> Error {
    Error::invalid("the flag file is too large")
        .with("path", path.display())
        .with("allowed_bytes", MAX_FILE_BYTES)
}

fn parse_toml(text: &str) -> Result<Vec<Entry>> {
    let lines = Lines::of(text);
    let document = DeTable::parse(text).map_err(|error| {
        // The parser's own rendering would quote the line, and with it a secret that is in it.
        let failure = Error::invalid("the flag file is not valid TOML")
            .with("reason", error.message().replace('\n', "; "));
        match error.span() {
            Some(span) => failure.with("line", lines.at(span.start)),
            None => failure,
        }
    })?;
    table(document.get_ref(), &lines, 0)
}

fn table(table: &DeTable<'_>, lines: &Lines, depth: usize) -> Result<Vec<Entry>> {
    let mut entries = Vec::with_capacity(table.len());
    for (key, value) in table {
        let line = lines.at(key.span().start);
        let node = match value.get_ref() {
            DeValue::String(text) => Node::Text(text.to_string()),
            DeValue::Boolean(value) => Node::Boolean(*value),
            DeValue::Integer(integer) => {
                match i128::from_str_radix(integer.as_str(), integer.radix()) {
                    Ok(value) => Node::Integer(value),
                    Err(_) => Node::Other("a number without end"),
                }
            }
            DeValue::Table(_) if depth == MAX_DEPTH => return Err(too_deep().with("line", line)),
            DeValue::Table(inner) => Node::Table(self::table(inner, lines, depth + 1)?),
            DeValue::Float(_) => Node::Other("a number with a fraction"),
            DeValue::Datetime(_) => Node::Other("a date or time"),
            DeValue::Array(_) => Node::Other("a list"),
        };
        entries.push(Entry { name: key.get_ref().to_string(), line: Some(line), node });
    }
    // In the order of the file, so that the first mistake in it is the one reported.
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

pub(super) fn too_deep() -> Error {
    Error::invalid("the flag file is nested too deeply")
}

/// Where the lines start, so that an offset's line is found without counting from the beginning.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(offset, _)| offset).collect())
    }

    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|newline| *newline < offset) + 1
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(name: &str, text: &str) -> Result<Vec<Entry>> {
        FlagFile { path: name.into(), text: text.to_owned() }.parse()
    }

    fn refusal(name: &str, text: &str) -> String {
        parse(name, text).unwrap_err().to_string()
    }

    #[test]
    fn toml_becomes_a_tree_with_lines() {
        let tree = parse("f.toml", "\u{feff}[b]\n\nx = 0x10\n[a]\ny.z = 'q'\n").unwrap();
        let names: Vec<_> = tree.iter().map(|entry| (entry.name.as_str(), entry.line)).collect();
        assert_eq!(names, [("b", Some(1)), ("a", Some(4))]);
        let x = Entry { name: "x".into(), line: Some(3), node: Node::Integer(16) };
        assert_eq!(tree.first().unwrap().node, Node::Table(vec![x]));
    }

    #[test]
    fn broken_toml_is_located_and_not_quoted() {
        let message = refusal("f.toml", "[a]\npassword = \"hunter2\nb = 1");
        assert!(message.contains("not valid TOML") && message.contains("line=2"), "{message}");
        assert!(message.contains("path=f.toml") && !message.contains("hunter2"), "{message}");
    }

    #[test]
    fn duplicate_toml_keys_are_refused() {
        for text in ["[a]\nx = 1\nx = 2\n", "[a]\n[a]\n", "[a]\nb.c = 1\n[a.b]\nd = 1\n"] {
            assert!(refusal("f.toml", text).contains("duplicate"), "{text}");
        }
    }

    #[test]
    fn hostile_toml_ends_in_an_error() {
        let deep_keys = format!("{}a = 1", "a.".repeat(60));
        let deep_tables = format!("a = {}1{}", "{a.a.a.a = ".repeat(60), "}".repeat(60));
        let deeper = format!("{}a = 1", "a.".repeat(500_000));
        let brackets = "a = ".to_owned() + &"[".repeat(1_000_000);
        for text in [deep_keys, deep_tables, deeper, brackets] {
            assert!(parse("f.toml", &text).is_err());
        }
        assert!(refusal("f.toml", &"#".repeat(MAX_FILE_BYTES + 1)).contains("too large"));
    }

    #[test]
    fn the_extension_decides() {
        assert_eq!(Format::of(Path::new("x.TOML")).unwrap(), Format::Toml);
        assert_eq!(Format::of(Path::new("x.yml")).unwrap(), Format::Yaml);
        for name in ["x.json", "x", "toml", ".yaml", ""] {
            assert!(refusal(name, "").contains(".toml, .yaml or .yml"), "{name}");
        }
    }

    #[test]
    fn files_that_cannot_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let missing = FlagFile::read(&directory.path().join("none.toml")).unwrap_err();
        assert_eq!(missing.kind(), &ErrorKind::NotFound);
        assert!(missing.to_string().contains("none.toml"));
        assert!(missing.to_string().contains("create it"));

        let folder = directory.path().join("folder.toml");
        std::fs::create_dir(&folder).unwrap();
        let error = FlagFile::read(&folder).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("a directory"));

        let binary = directory.path().join("binary.toml");
        std::fs::write(&binary, b"a = \"\xff\"").unwrap();
        let error = FlagFile::read(&binary).unwrap_err().to_string();
        assert!(error.contains("not valid UTF-8") && error.contains("offset=5"), "{error}");

        let large = directory.path().join("large.yaml");
        std::fs::write(&large, vec![b'#'; MAX_FILE_BYTES + 1]).unwrap();
        assert!(FlagFile::read(&large).unwrap_err().to_string().contains("too large"));
        std::fs::write(&large, vec![b'#'; MAX_FILE_BYTES]).unwrap();
        assert_eq!(FlagFile::read(&large).unwrap().text.len(), MAX_FILE_BYTES);

        for folder in [directory.path(), Path::new("/")] {
            assert!(FlagFile::read(folder).unwrap_err().to_string().contains("a directory"));
        }
        let null = Path::new("nul\0.toml");
        assert!(FlagFile::read(null).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn special_and_forbidden_files() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("device.toml");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        let nowhere = directory.path().join("nowhere.toml");
        std::os::unix::fs::symlink("/nonexistent", &nowhere).unwrap();
        assert!(FlagFile::read(&nowhere).unwrap_err().to_string().contains("leads nowhere"));
        assert!(FlagFile::read(&link).unwrap_err().to_string().contains("not a regular file"));

        let secret = directory.path().join("secret.toml");
        std::fs::write(&secret, "").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o000)).unwrap();
        // A superuser may read it all the same.
        if File::open(&secret).is_err() {
            let error = FlagFile::read(&secret).unwrap_err();
            assert_eq!(error.kind(), &ErrorKind::PermissionDenied);
        }
    }
}
