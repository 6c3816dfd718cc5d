//! What turns a refusal into help: the nearest known name, and the recognition of secrets.

/// Said wherever a secret is found.
pub(super) const NO_SECRETS: &str = "secrets do not belong in the configuration: put this one into \
     a file and name the file (postgres.password_file, secret_key_file, zqlite.root_secret_file), or into \
     the environment variable that postgres.password_variable or zqlite.root_secret_variable names";

/// Enough to recognise a misspelling; keeps hostile keys from costing time.
const LONGEST_COMPARED: usize = 96;

/// A misspelling this small is taken for one even if the key sounds like a secret.
const SMALL_MISSPELLING: usize = 2;

/// The known name that is nearest to `unknown`. Both may be dotted paths: a right last part in the
/// wrong section is near, since a forgotten section is the commonest mistake of all.
pub(super) fn nearest<N: AsRef<str>>(
    unknown: &str,
    known: impl IntoIterator<Item = N>,
) -> Option<String> {
    nearest_with_distance(unknown, known).map(|(_, name)| name)
}

/// The known name that `unknown` is likely to be a misspelling of.
pub(super) fn misspelt<N: AsRef<str>>(
    unknown: &str,
    known: impl IntoIterator<Item = N>,
) -> Option<String> {
    let (distance, name) = nearest_with_distance(unknown, known)?;
    (distance.saturating_mul(2) <= name.len()).then_some(name)
}

fn nearest_with_distance<N: AsRef<str>>(
    unknown: &str,
    known: impl IntoIterator<Item = N>,
) -> Option<(usize, String)> {
    let unknown: String = unknown.chars().take(LONGEST_COMPARED).collect();
    let unknown = unknown.to_lowercase();
    known
        .into_iter()
        .map(|name| (distance(&unknown, &name.as_ref().to_lowercase()), name))
        .min_by_key(|(distance, _)| *distance)
        .map(|(distance, name)| (distance, name.as_ref().to_owned()))
}

fn distance(unknown: &str, known: &str) -> usize {
    // Counts a swap of two neighbours as one mistake, as Levenshtein's own measure does not.
    let mut distance = strsim::osa_distance(unknown, known);
    let last_parts = strsim::osa_distance(last_part(unknown), last_part(known));
    // Of two short words that have nothing in common, the distance is small too.
    if last_parts.saturating_mul(3) <= last_part(known).len() {
        distance = distance.min(last_parts + 1);
    }
    if unknown.len() > SMALL_MISSPELLING && known.starts_with(unknown) {
        distance = distance.min(SMALL_MISSPELLING + 1);
    }
    distance
}

fn last_part(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// Whether an unknown key sounds like a secret and is not just a misspelling of a known key.
pub(super) fn names_a_secret<N: AsRef<str>>(
    path: &str,
    known: impl IntoIterator<Item = N>,
) -> bool {
    const PARTS: [&str; 10] = [
        "password",
        "passwd",
        "passphrase",
        "token",
        "secret",
        "credential",
        "privatekey",
        "apikey",
        "authkey",
        "connectionstring",
    ];
    const ENDS: [&str; 4] = ["url", "uri", "dsn", "pwd"];
    let mut name: String = last_part(path).chars().take(LONGEST_COMPARED).collect();
    name.retain(|c| c.is_ascii_alphanumeric());
    name.make_ascii_lowercase();
    let sounds_like_one =
        PARTS.iter().any(|part| name.contains(part)) || ENDS.iter().any(|end| name.ends_with(end));
    sounds_like_one
        && nearest_with_distance(path, known).is_none_or(|(found, _)| found > SMALL_MISSPELLING)
}

/// Whether a value carries a credential: a URL with a password, a parameter that is one, a PEM block.
pub(super) fn looks_like_secret(value: &str) -> bool {
    const MARKS: [&str; 10] = [
        "password=",
        "passwd=",
        "pwd=",
        "token=",
        "secret=",
        "apikey=",
        "api_key=",
        "-----begin",
        "age-secret-key-",
        "bearer ",
    ];
    let lowercase = value.to_ascii_lowercase();
    // The last '@', because an unescaped password may hold one, or a slash.
    let password_in_url = lowercase
        .split_once("://")
        .and_then(|(_, rest)| rest.rsplit_once('@'))
        .is_some_and(|(user, _)| user.contains(':'));
    password_in_url || MARKS.iter().any(|mark| lowercase.contains(mark))
}

/// Whether a value that should name a file is rather the key itself, in hexadecimal or base64.
pub(super) fn looks_like_key_material(value: &str) -> bool {
    let hexadecimal = value.len() >= 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    // 32 bytes are 43 characters and a '='; without it, a path has to be ruled out.
    let base64 = match value.strip_suffix('=') {
        Some(digits) => digits.len() == 43 && digits.bytes().all(is_base64),
        None => value.len() == 43 && value.bytes().all(|byte| byte.is_ascii_alphanumeric()),
    };
    hexadecimal || base64
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 5] =
        ["backend", "writer", "writer.max_group", "postgres.password_file", "secret_key_file"];

    #[test]
    fn the_nearest_name() {
        for (unknown, expected) in [
            ("bakcend", "backend"),
            ("Backend", "backend"),
            ("writter", "writer"),
            ("writer.max_gruop", "writer.max_group"),
            ("writer.maxGroup", "writer.max_group"),
            ("max_group", "writer.max_group"),
            ("writre.max_group", "writer.max_group"),
            ("postgres.password", "postgres.password_file"),
        ] {
            assert_eq!(nearest(unknown, KNOWN).as_deref(), Some(expected), "{unknown}");
        }
        assert_eq!(nearest("anything", [""; 0]), None);
        assert!(nearest(&"ä".repeat(1 << 20), KNOWN).is_some());
    }

    #[test]
    fn keys_that_sound_like_secrets() {
        for secret in ["password", "libsql.auth_token", "postgres.url", "DB_URL", "privateKey"] {
            assert!(names_a_secret(secret, KNOWN), "{secret}");
        }
        for harmless in ["colour", "secret_key_fil", "postgres.pasword_file", "backend"] {
            assert!(!names_a_secret(harmless, KNOWN), "{harmless}");
        }
    }

    #[test]
    fn values_that_look_like_secrets() {
        for secret in [
            "postgres://me:hunter2@db/net",
            "postgres://me:pa/s@s@db/net",
            "host=db password=hunter2",
            "libsql://db.example?authToken=abc",
            "-----BEGIN PRIVATE KEY-----",
        ] {
            assert!(looks_like_secret(secret), "{secret}");
        }
        for harmless in ["./data/ghostwire.db", "https://db:80/net", "postgres://me@db/net", ""] {
            assert!(!looks_like_secret(harmless), "{harmless}");
        }
    }

    #[test]
    fn key_material() {
        assert!(looks_like_key_material(&"0f".repeat(32)));
        assert!(looks_like_key_material("qL8R4QIcQ/ZsRqOAbeRfcZhilN/MksRtDaErMA+7Zm0="));
        for path in ["deploy/Production/ghostwire-store-key-2026ab", "ghostwire.key", "cafe"] {
            assert!(!looks_like_key_material(path), "{path}");
        }
    }
}
