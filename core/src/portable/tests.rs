#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use data_encoding::HEXLOWER;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::domain::{DocumentText, Policy, Sample};
use crate::error::{ErrorKind, Result};

const ID: &str = "0190a5c8-7e1f-7000-8000-000000000001";
const AT: &str = "2024-02-29T12:00:00.000000Z";

fn image(json: &str) -> Item {
    Item::Entity(serde_json::from_str(json).unwrap())
}

fn user() -> Item {
    image(&format!(
        r#"{{"user":{{"id":"{ID}","name":"ann","identity":{{"kind":"local"}},"created_at":"{AT}","updated_at":"{AT}","revision":1}}}}"#
    ))
}

fn api_key() -> Item {
    let hash = format!("hmac-sha256:00000001:{}", "5e".repeat(32));
    image(&format!(
        r#"{{"api_key":{{"id":"{ID}","prefix":"abc","hash":"{hash}","created_at":"{AT}","revision":1}}}}"#
    ))
}

fn metric(value: f64) -> Item {
    Item::Metric(MetricPoint {
        node: None,
        metric: "rx_bytes_total".parse().unwrap(),
        at: AT.parse().unwrap(),
        value: Sample::new(value).unwrap(),
    })
}

fn audit() -> Item {
    Item::Audit(AuditEntry::new(
        (AT.parse().unwrap(), ID.parse().unwrap()),
        "ann \u{1f600}".parse().unwrap(),
        "user.create".parse().unwrap(),
        EntityKind::User,
        ID.parse().unwrap(),
    ))
}

fn written(items: &[Item]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new()).unwrap();
    for item in items {
        writer.item(item).unwrap();
    }
    writer.finish(Some([7; 32])).unwrap().0
}

fn read(bytes: &[u8]) -> Result<(Vec<Item>, Summary)> {
    let mut reader = Reader::new(bytes)?;
    let items = (&mut reader).collect::<Result<Vec<_>>>()?;
    Ok((items, reader.summary().unwrap().clone()))
}

fn text_of(item: &Item) -> String {
    let text = String::from_utf8(written(std::slice::from_ref(item))).unwrap();
    text.lines().nth(1).unwrap().to_owned()
}

fn refused(bytes: &[u8]) -> String {
    read(bytes).unwrap_err().to_string()
}

/// The lines between the first and the last, with a first and a last line that fit them.
fn framed(lines: &str) -> Vec<u8> {
    [&b"{\"ghostwire_store\":1,\"schema\":2}\n"[..], lines.as_bytes()].concat()
}

#[test]
fn what_is_written_can_be_read() {
    let items = [user(), api_key(), metric(-1.5e-300), audit(), metric(f64::MAX)];
    let bytes = written(&items);
    let (back, summary) = read(&bytes).unwrap();
    assert_eq!(back, items);
    assert_eq!(summary.total(), 5);
    assert_eq!(summary.counts[&EntityKind::Metric], 2);
    assert_eq!(summary.state_digest, Some([7; 32]));
    assert_eq!(written(&back), bytes, "the same items give the same bytes");
    assert_eq!(Reader::new(bytes.as_slice()).unwrap().verify().unwrap(), summary);
}

/// What came after the first schema is in a line only where it was given.
#[test]
fn a_user_with_everything_comes_back() {
    let more = format!(
        r#""role":"it_admin","groups":["admins","staff"],"metadata":"{{ }}","metadata_revision":3,"created_at":"{AT}""#
    );
    let plain = text_of(&user());
    let line = plain.replacen(&format!(r#""created_at":"{AT}""#), &more, 1).replacen(
        r#""revision":1"#,
        &format!(r#""last_sign_in_at":"{AT}","revision":1"#),
        1,
    );
    assert_eq!(text_of(&image(&line)), line);
    let spelled = line.replace(r#""it_admin""#, r#""member""#);
    assert!(!text_of(&image(&spelled)).contains("role"));
    for absent in ["role", "groups", "metadata", "last_sign_in_at"] {
        assert!(!plain.contains(absent), "{plain}");
    }
}

#[test]
fn the_bytes_are_these() {
    let text = String::from_utf8(written(&[user(), metric(1.0)])).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], r#"{"ghostwire_store":1,"schema":5}"#);
    assert!(lines[1].starts_with(r#"{"user":{"id":"#));
    assert_eq!(
        lines[2],
        r#"{"metric":{"metric":"rx_bytes_total","at":"2024-02-29T12:00:00.000000Z","value":1.0}}"#
    );
    let start = format!(
        r#"{{"end":{{"counts":{{"user":1,"metric":1}},"state_digest":"{}","sha256":""#,
        "07".repeat(32)
    );
    assert!(lines[3].starts_with(&start), "{}", lines[3]);
    assert!(text.ends_with("\"}}\n"));
}

fn key(byte: u8) -> Arc<HashKey> {
    Arc::new(HashKey::new([byte; 32]))
}

/// As [`written`], by a holder of a key.
fn written_with(key: Arc<HashKey>, items: &[Item]) -> String {
    let mut writer = Writer::authenticated(Vec::new(), key).unwrap();
    items.iter().for_each(|item| writer.item(item).unwrap());
    String::from_utf8(writer.finish(None).unwrap().0).unwrap()
}

/// With the SHA-256 that fits what was edited, which anybody can compute.
fn hashed_anew(text: &str) -> String {
    let end = text.find("{\"end\"").unwrap();
    let sha256 = HEXLOWER.encode(&Sha256::digest(&text.as_bytes()[..end]));
    let at = text.rfind("\"sha256\":\"").unwrap() + 10;
    [&text[..at], &sha256, &text[at + 64..]].concat()
}

#[test]
fn a_holder_of_the_key_wrote_it_or_nobody_known() {
    let text = written_with(key(7), &[user(), api_key()]);
    assert!(text.starts_with("{\"ghostwire_store\":2,"), "{text}");
    let id = HEXLOWER.encode(&key(7).id());
    assert!(text.contains(&format!("\"mac\":{{\"key_id\":\"{id}\",\"hmac_sha256\":\"")), "{text}");
    let (items, summary) = read(text.as_bytes()).unwrap();
    assert_eq!(items, [user(), api_key()]);
    assert!(summary.is_by_holder_of(&key(7)).unwrap());
    assert!(
        !summary.is_by_holder_of(&key(8)).unwrap(),
        "it says who wrote it, and that is another"
    );
    let (_, unsigned) = read(&written(&[user()])).unwrap();
    assert_eq!(unsigned.mac, None);
    assert!(!unsigned.is_by_holder_of(&key(7)).unwrap());
}

#[test]
fn whoever_edits_it_without_the_key_is_found_out() {
    let text = written_with(key(7), &[user(), api_key()]);
    let edited = hashed_anew(&text.replacen("\"ann\"", "\"eve\"", 1));
    let (_, summary) = read(edited.as_bytes()).unwrap();
    let error = summary.is_by_holder_of(&key(7)).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("was edited"), "{error}");
    // Nor does a code for another purpose pass, or one of another key that claims to be this one.
    for code in [key(7).code("api_key", &summary.sha256), key(8).code(MAC_PURPOSE, &summary.sha256)]
    {
        let mac = Mac { key_id: key(7).id(), hmac_sha256: code };
        let claimed = Summary { mac: Some(mac), ..summary.clone() };
        assert!(claimed.is_by_holder_of(&key(7)).is_err());
    }
}

#[test]
fn a_version_has_a_mac_or_has_none() {
    let with = written_with(key(7), &[user()]);
    let older = hashed_anew(&with.replacen("store\":2", "store\":1", 1));
    assert!(refused(older.as_bytes()).contains("`mac`"));
    let without = String::from_utf8(written(&[user()])).unwrap();
    let newer = hashed_anew(&without.replacen("store\":1", "store\":2", 1));
    assert!(refused(newer.as_bytes()).contains("`mac`"));
    let at = with.find("\"hmac_sha256\":\"").unwrap() + 15;
    let cut = [&with[..at], &with[at + 2..]].concat();
    assert!(refused(cut.as_bytes()).contains("64 lower-case hex digits"));
}

#[test]
fn an_empty_store_has_a_form_too() {
    let (items, summary) = read(&written(&[])).unwrap();
    assert!(items.is_empty() && summary.counts.is_empty());
}

#[test]
fn floats_come_back_exactly() {
    // Needs the feature `float_roundtrip` of serde_json.
    for value in [0.1, 1.0 / 3.0, 5e-324, 2.2250738585072014e-308, 9007199254740993.0, 1.1e23] {
        assert_eq!(read(&written(&[metric(value)])).unwrap().0, [metric(value)]);
    }
    let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
    let items: Vec<_> = std::iter::repeat_with(|| {
        bits = bits.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        f64::from_bits(bits)
    })
    .filter(|value| value.is_finite())
    .take(2000)
    .map(metric)
    .collect();
    assert_eq!(read(&written(&items)).unwrap().0, items);
}

#[test]
fn every_cut_is_noticed() {
    let bytes = written(&[user(), api_key(), metric(2.0), audit()]);
    // Only the very last line feed may be missing.
    for end in 0..bytes.len() - 1 {
        let error = read(&bytes[..end]).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{end}: {error}");
        assert!(error.to_string().contains("line="), "{error}");
    }
    assert!(read(&bytes[..bytes.len() - 1]).is_ok());
    let error = refused(&bytes[..bytes.len() - 9]);
    assert!(error.contains("cut off") && error.contains("line=6"), "{error}");
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = written(&[user(), metric(2.0)]);
    for at in 0..bytes.len() - 1 {
        for bit in [0, 1, 5] {
            let mut altered = bytes.clone();
            altered[at] ^= 1 << bit;
            let Ok((items, summary)) = read(&altered) else { continue };
            // The digest of the state is the exporter's word; whoever imports compares it.
            assert_ne!(summary.state_digest, Some([7; 32]), "at {at}");
            assert_eq!(items.len(), 2);
        }
    }
}

#[test]
fn lines_that_are_missing_or_too_many_are_noticed() {
    let bytes = written(&[user(), audit()]);
    let text = String::from_utf8(bytes).unwrap();
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let error = refused([lines[0], lines[1], lines[3]].concat().as_bytes());
    assert!(error.contains("audit") && error.contains("counted=1, found=0"), "{error}");
    let error = refused([lines[0], lines[2], lines[1], lines[3]].concat().as_bytes());
    assert!(error.contains("SHA-256") && error.contains("line=4"), "{error}");
    let error = refused((text.clone() + lines[1]).as_bytes());
    assert!(error.contains("after the last line") && error.contains("line=5"), "{error}");
}

#[test]
fn the_first_line_decides() {
    assert!(refused(b"").contains("nothing to read"));
    assert!(refused(b"PRAGMA foreign_keys=OFF;\n").contains("not the portable form"));
    assert!(refused(b"{\"users\":[]}\n").contains("not the portable form"));
    for version in ["0", "3"] {
        let line = format!("{{\"ghostwire_store\":{version},\"novel\":true}}\n");
        let error = Reader::new(line.as_bytes()).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unsupported);
    }
    let error = Reader::new(&b"{\"ghostwire_store\":1,\"schema\":900}\n"[..]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::SchemaMismatch { found: 900, .. }));
    assert!(error.to_string().contains("line=1"), "{error}");
    assert!(refused(b"{\"ghostwire_store\":1,\"schema\":0}\n").contains("line=1"));
    assert!(refused(b"{\"ghostwire_store\":1,\"schema\":1,\"x\":1}\n").contains("unknown field"));
}

#[test]
fn broken_lines_are_explained_by_number() {
    let user = String::from_utf8(written(&[user()])).unwrap();
    let user = user.lines().nth(1).unwrap();
    for (line, problem) in [
        ("\n".to_owned(), "EOF"),
        ("{\n".to_owned(), "EOF"),
        ("nonsense\n".to_owned(), "expected"),
        ("{}\n".to_owned(), "one key"),
        ("[]\n".to_owned(), "one key"),
        ("{\"robot\":{}}\n".to_owned(), "unknown variant `robot`"),
        (user.replace("\"name\"", "\"nam\"") + "\n", "unknown field `nam`"),
        (user.replace("\"revision\":1", "\"revision\":1,\"revision\":2") + "\n", "twice"),
        (user.replace("\"kind\":\"local\"", "\"kind\":\"local\",\"x\":1") + "\n", "unknown field"),
        (format!("{},{}\n", &user[..user.len() - 1], "\"user\":{}}"), "twice"),
        (format!("{},{}\n", &user[..user.len() - 1], "\"node\":{}}"), "one key"),
        (user.replace(ID, "7") + "\n", "UUID"),
        ("[".repeat(500) + "\n", "recursion"),
    ] {
        let error = refused(&framed(&line));
        assert!(error.contains("line=2"), "{line:?}: {error}");
        assert!(error.contains(problem), "{line:?}: {error}");
    }
}

#[test]
fn keys_of_maps_must_differ() {
    let line = "{\"setting\":{\"document\":{\"dns\":{\"split\":{\"a.b\":[],\"a.b\":[\"x\"]}}},\
                \"revision\":1,\"updated_at\":\"2024-02-29T12:00:00Z\"}}\n";
    assert!(refused(&framed(line)).contains("same key twice"));
}

#[test]
fn errors_show_no_hashes() {
    let line = text_of(&api_key());
    let hash = "5e5e5e5e";
    for (from, to) in [
        ("\"revision\":1", format!("\"revision\":\"{}\"", hash.repeat(8))),
        ("\"abc\"", format!("\"{} {}\"", hash, hash)),
        ("hmac-sha256:", "hmac:".to_owned()),
    ] {
        let error = refused(&framed(&(line.replace(from, &to) + "\n")));
        assert!(error.contains("line=2") && !error.contains(hash), "{error}");
    }
    let bcrypt = "bcrypt:$2b$04$ABCDEFGHIJKLMNOPQRSTUu5pUYnC0pESokJLt705oY3/ycNDD4BIW";
    let keyed = format!("hmac-sha256:00000001:{}", hash.repeat(8));
    let user = text_of(&user());
    for line in [
        // Written otherwise, but a key all the same.
        line.replace("{\"api_key\"", "{ \"api_key\"").replace("\"abc\"", &format!("[\"{hash}\"]")),
        line.replace("api_key", "\\u0061pi_key").replace("\"abc\"", &format!("\"{hash} x\"")),
        // As the name of a field, or of a kind.
        line.replace("\"prefix\"", &format!("\"{keyed}\"")),
        line.replace("\"prefix\"", &format!("\"{}\"", hash.repeat(3))),
        format!("{{\"{keyed}\":{{}}}}"),
        // In another kind of line.
        user.replace(ID, &keyed),
        user.replace(ID, bcrypt),
        user.replace(ID, &hash.repeat(8)),
        user.replace("\"revision\":1", &format!("\"revision\":\"{}\"", hash.repeat(8))),
        user.replace("\"name\":\"ann\"", &format!("\"name\":[\"\\u0068mac-sha256:{hash}\"]")),
        user.replace("\"name\":\"ann\"", &format!("\"name\":\"x\",\"{bcrypt}\":1")),
    ] {
        let error = refused(&framed(&(line.clone() + "\n")));
        assert!(error.contains("line=2"), "{line}: {error}");
        assert!(!error.contains(hash) && !error.contains("ABCDEFGHIJ"), "{line}: {error}");
    }
    let error = refused(&framed(&(line.replace("\"prefix\"", "\"prefixx\"") + "\n")));
    assert!(error.contains("unknown field `prefixx`"), "{error}");
}

#[test]
fn lines_are_limited() {
    let line = format!("{{\"policy\":\"{}\"}}\n", "x".repeat(MAX_LINE));
    assert!(refused(&framed(&line)).contains("too long"));
}

#[test]
fn the_longest_policy_fits() {
    let policy = Policy {
        version: crate::domain::PolicyVersion::FIRST,
        document: DocumentText::new("\u{1}".repeat(DocumentText::MAX_BYTES)).unwrap(),
        author: "ann".parse().unwrap(),
        created_at: AT.parse().unwrap(),
    };
    let items = [Item::Entity(EntityRecord::Policy(policy.into()))];
    assert!(read(&written(&items)).unwrap().0 == items);
}

#[test]
fn a_reader_ends_after_an_error() {
    let mut reader = Reader::new(&b"{\"ghostwire_store\":1,\"schema\":1}\n{}\n{}\n"[..]).unwrap();
    assert!(reader.next().unwrap().is_err());
    assert!(reader.next().is_none());
    assert_eq!(reader.summary(), None);
    assert_eq!((reader.schema(), reader.line_number()), (1, 2));
}

struct Broken;

impl std::io::Write for Broken {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let error = Writer::new(Broken).map(|_| ()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable);
}

fn consume(bytes: &[u8]) {
    if let Ok(reader) = Reader::new(bytes) {
        for item in reader {
            let _ = item;
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        consume(&bytes);
        consume(&framed(&String::from_utf8_lossy(&bytes)));
    }

    #[test]
    fn altered_files_never_panic(at in any::<prop::sample::Index>(), piece in ".{0,9}") {
        let bytes = written(&[user(), api_key(), metric(3.5), audit()]);
        let at = at.index(bytes.len());
        consume(&[&bytes[..at], piece.as_bytes(), &bytes[at..]].concat());
    }

    #[test]
    fn any_metric_comes_back(bits in any::<u64>()) {
        let value = f64::from_bits(bits);
        prop_assume!(value.is_finite());
        prop_assert_eq!(read(&written(&[metric(value)])).unwrap().0, [metric(value)]);
    }
}
