//! Bodies and keys come back byte for byte.

use std::sync::LazyLock;

use bytes::Bytes;
use ghostwire_store_core::schema::{Column, ColumnKind, MAX_BODY, MAX_KEY, Value};

use super::fixtures::*;

cases! {
    stored_unopened {
        "backend-rows" => [
            every_column_comes_back_as_it_was,
            nothing_is_not_the_same_as_empty,
            whole_numbers_and_times_keep_every_digit,
            fractions_keep_every_bit,
            text_in_any_script_comes_back,
            bodies_of_every_size_come_back,
            bodies_of_megabytes_come_back,
            keys_of_every_shape_come_back,
        ],
    }
}

/// Stores `rows`, and reads them after the reload.
async fn come_back(env: &mut TestEnv, rows: Vec<RowChange>) {
    let backend = env.open_backend().await;
    let mut wanted: BTreeMap<Table, BTreeMap<RowKey, Bytes>> = BTreeMap::new();
    for row in &rows {
        let body = row.body.clone().unwrap();
        let former = wanted.entry(row.table).or_default().insert(row.key.clone(), body);
        assert_eq!(former, None, "the keys are all different");
    }
    commit_block(&backend, rows).await;
    compare(&backend, &wanted).await;
    let backend = env.reload_backend(backend).await;
    compare(&backend, &wanted).await;
}

async fn compare(backend: &OpenedBackend, wanted: &BTreeMap<Table, BTreeMap<RowKey, Bytes>>) {
    for (&table, wanted) in wanted {
        let found = rows_of(backend, table).await;
        let keys: Vec<_> = found.iter().map(|row| &row.key).collect();
        assert_eq!(keys, Vec::from_iter(wanted.keys()), "{table:?}");
        for Row { key, body } in &found {
            let wanted = &wanted[key];
            if body.len().max(wanted.len()) < 2_000 {
                assert_eq!(body, wanted, "{table:?} {key:?}");
            }
            assert!(body == wanted, "{table:?} {key:?}: {} bytes", body.len());
        }
    }
}

/// A plain value of every kind, to stand beside the one that is looked at.
fn plain(kind: ColumnKind) -> Value<'static> {
    match kind {
        ColumnKind::Bool => Value::Integer(1),
        ColumnKind::Integer | ColumnKind::Time => Value::Integer(12),
        ColumnKind::Real => Value::Real(1.25),
        ColumnKind::Text => Value::Text("plain"),
        ColumnKind::Json => Value::Text("{}"),
        ColumnKind::Id => Value::Bytes(&[3; 16]),
        ColumnKind::Key(_) => Value::Bytes(&[4; 32]),
        ColumnKind::Bytes => Value::Bytes(b"plain"),
    }
}

/// One row for each column that `values` has values for and each of these values.
fn one_at_a_time(values: impl Fn(&Column) -> Vec<Value<'static>>) -> Vec<RowChange> {
    let mut rows = Vec::new();
    for table in Table::ALL {
        let mut number = 0;
        for looked_at in Schema::current().columns(table) {
            for value in values(looked_at) {
                let is_it = |column: &Column| column.name == looked_at.name;
                let body =
                    body_of(table, |column| if is_it(column) { value } else { plain(column.kind) });
                rows.push(image(table, key(table, number), body));
                number += 1;
            }
        }
    }
    assert!(rows.len() > 5);
    rows
}

async fn every_column_comes_back_as_it_was(env: &mut TestEnv) {
    const LOW: [u8; 32] = [0; 32];
    const HIGH: [u8; 32] = [0xff; 32];
    const MIXED: [u8; 32] = *b"\0\xff\x01\xfe'\"\\;--%_\n\r\t\x7f\x80\xc3\x28 \0abc \xff\0.last";
    let rows = one_at_a_time(|column| match column.kind {
        ColumnKind::Bool => vec![Value::Integer(0), Value::Integer(1)],
        ColumnKind::Id => [&LOW, &HIGH, &MIXED].map(|bytes| Value::Bytes(&bytes[..16])).to_vec(),
        ColumnKind::Key(_) => [&LOW, &HIGH, &MIXED].map(|bytes| Value::Bytes(bytes)).to_vec(),
        ColumnKind::Bytes => [&LOW[..], &HIGH, &MIXED, &[0], b"x'00'", TEXTS[11].as_bytes()]
            .map(Value::Bytes)
            .to_vec(),
        ColumnKind::Json => ["{}", "[]", "{\"a\": [1, 2.50, null]}", "[ 1 ,2]", "\"\\u0041\""]
            .map(Value::Text)
            .to_vec(),
        kind => vec![plain(kind)],
    });
    come_back(env, rows).await;
}

async fn nothing_is_not_the_same_as_empty(env: &mut TestEnv) {
    let mut rows = one_at_a_time(|column| {
        let nothing = column.nullable.then_some(Value::Null);
        let empty = match column.kind {
            ColumnKind::Integer | ColumnKind::Time => Value::Integer(0),
            ColumnKind::Real => Value::Real(0.0),
            ColumnKind::Text => Value::Text(""),
            ColumnKind::Json => Value::Text("\"\""),
            ColumnKind::Id => Value::Bytes(&[0; 16]),
            ColumnKind::Bytes => Value::Bytes(&[]),
            ColumnKind::Bool | ColumnKind::Key(_) => plain(column.kind),
        };
        nothing.into_iter().chain([empty]).collect()
    });
    // All columns at once.
    for table in Table::ALL {
        let nothing =
            body_of(table, |column| if column.nullable { Value::Null } else { plain(column.kind) });
        rows.push(image(table, key(table, 1_000), nothing));
    }
    come_back(env, rows).await;
}

async fn whole_numbers_and_times_keep_every_digit(env: &mut TestEnv) {
    let numbers = |column: &Column| match column.kind {
        ColumnKind::Integer => {
            let edges = [7, 8, 15, 16, 23, 24, 31, 32, 47, 48, 53, 63];
            let around = |bits: u32| {
                let power = 1i64.checked_shl(bits).unwrap_or(i64::MIN);
                [power.wrapping_sub(1), power, power.wrapping_add(1), power.wrapping_neg()]
            };
            let edges = edges.into_iter().flat_map(around);
            edges.chain([0, 1, -1, i64::MIN, i64::MAX]).map(Value::Integer).collect()
        }
        ColumnKind::Time => [
            0,
            1,
            999,
            1_000,
            999_999,
            1_000_001,
            1_700_000_000_123_456,
            1_700_000_000_999_999,
            253_402_300_799_999_999,
        ]
        .map(Value::Integer)
        .to_vec(),
        _ => Vec::new(),
    };
    come_back(env, one_at_a_time(numbers)).await;
}

async fn fractions_keep_every_bit(env: &mut TestEnv) {
    let bits = [
        0.0,
        0.1,
        0.1 + 0.2,
        1.0,
        -1.0,
        3.0,
        1e15,
        1e16,
        9_007_199_254_740_991.0,
        9_007_199_254_740_993.0,
        9_223_372_036_854_775_807.0,
        -9_223_372_036_854_775_808.0,
        1.797_693_134_862_315_7e308,
        f64::MIN,
        f64::MAX,
        f64::MIN_POSITIVE,
        f64::EPSILON,
        5e-324,
        -5e-324,
        std::f64::consts::PI,
        123_456.789,
    ];
    let rows = one_at_a_time(|column| match column.kind {
        ColumnKind::Real => bits.map(Value::Real).to_vec(),
        _ => Vec::new(),
    });
    come_back(env, rows).await;
}

const TEXTS: [&str; 22] = [
    "",
    " ",
    "  leading and trailing  ",
    "NULL",
    "0",
    "007",
    "1e3",
    "x'00'",
    "it's \"quoted\" `here`; -- and [there]",
    "back\\slash % _ * ?",
    "line\nbreak\r\n\ttab\u{1}\u{7f}",
    "Zoë Ünïcödé ß ẞ İı",
    "e\u{301} and é are two",
    "Ωμέγα кириллица Հայերեն",
    "漢字かなカナ 한국어",
    "עברית العربية فارسی",
    "हिन्दी বাংলা தமிழ் ไทย",
    "\u{1f980}\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467} \u{1f1e9}\u{1f1ea}",
    "\u{feff}mark \u{202e}backwards\u{202c} \u{a0}\u{3000}",
    "\u{80}\u{7ff}\u{800}\u{d7ff}\u{e000}\u{fffd}\u{ffff}\u{10000}\u{10ffff}",
    "UPPER lower MiXeD",
    "upper LOWER mIxEd",
];

async fn text_in_any_script_comes_back(env: &mut TestEnv) {
    static DOCUMENTS: LazyLock<Vec<String>> = LazyLock::new(|| {
        TEXTS.iter().filter_map(|text| serde_json::to_string(text).ok()).collect()
    });
    let rows = one_at_a_time(|column| match column.kind {
        ColumnKind::Text => TEXTS.map(Value::Text).to_vec(),
        ColumnKind::Json => DOCUMENTS.iter().map(|text| Value::Text(text)).collect(),
        _ => Vec::new(),
    });
    come_back(env, rows).await;
}

/// A policy whose text has this many bytes.
fn long(number: u32, length: usize) -> RowChange {
    let mut text = "0123456789abcdef-".repeat(length / 17 + 1);
    text.truncate(length);
    let body = body_of(Table::Policies, |column| match column.name {
        "document" => Value::Text(&text),
        _ => plain(column.kind),
    });
    image(Table::Policies, key(Table::Policies, number), body)
}

async fn bodies_of_every_size_come_back(env: &mut TestEnv) {
    let powers = (0..17).map(|bits| 1usize << bits);
    let sizes = powers.flat_map(|power| [power - 1, power, power + 1]);
    let pages = [4_000, 4_050, 4_061, 4_080, 8_150, 12_288, 65_000, 100_000];
    let mut sizes: Vec<_> = sizes.chain(pages).collect();
    sizes.sort_unstable();
    sizes.dedup();
    come_back(env, (0..).zip(sizes).map(|(number, size)| long(number, size)).collect()).await;
}

async fn bodies_of_megabytes_come_back(env: &mut TestEnv) {
    let mib = 1024 * 1024;
    let long_one = long(2, 3 * mib + 5);
    let beside = long_one.body.as_ref().unwrap().len() - (3 * mib + 5);
    let largest = long(3, MAX_BODY - beside);
    assert_eq!(largest.body.as_ref().unwrap().len(), MAX_BODY);
    come_back(env, vec![long(1, mib), long_one, largest]).await;
}

async fn keys_of_every_shape_come_back(env: &mut TestEnv) {
    let ids: [[u8; 16]; 8] = [
        [0; 16],
        [0xff; 16],
        *b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01",
        *b"\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        *b"\xff\0\xff\0\xff\0\xff\0\xff\0\xff\0\xff\0\xff\0",
        *b"aaaaaaaaaaaaaaaa",
        *b"AAAAAAAAAAAAAAAA",
        *b"aaaaaaaaaaaaaaa\0",
    ];
    let longest = "n".repeat(MAX_KEY - 1);
    let names = TEXTS.into_iter().chain([longest.as_str()]);
    let mut rows: Vec<_> = names
        .map(|name| image(Table::Settings, RowKey::new().text(name), body(Table::Settings, 1)))
        .collect();
    let integers = [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xff_ffff, 1 << 53, i64::MAX - 1, i64::MAX];
    for integer in integers {
        rows.push(image(Table::Policies, RowKey::new().integer(integer), body(Table::Policies, 2)));
    }
    for (number, id) in (0..).zip(&ids) {
        for table in [Table::Nodes, Table::WriterPositions] {
            rows.push(image(table, RowKey::new().id(id), body(table, number)));
        }
        for integer in [0, 1_700_000_000_123_456, i64::MAX] {
            let key = RowKey::new().integer(integer).id(id);
            rows.push(image(Table::Audit, key, body(Table::Audit, number)));
            for name in ["", "a", "rx_bytes_total", TEXTS[17]] {
                let key = RowKey::new().id(id).text(name).integer(integer);
                rows.push(image(Table::Metrics, key, body(Table::Metrics, number)));
            }
        }
    }
    let longest = RowKey::new().id(&ids[1]).text(&"n".repeat(MAX_KEY - 25)).integer(i64::MAX);
    assert_eq!(longest.as_bytes().len(), MAX_KEY);
    rows.push(image(Table::Metrics, longest, body(Table::Metrics, 77)));
    come_back(env, rows).await;
}
