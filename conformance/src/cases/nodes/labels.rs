//! DNS labels of nodes.

use crate::prelude::*;

cases! {
    stored {
        "labels" => [
            a_label_is_made_of_the_host_name,
            a_taken_label_gets_digits_of_the_id,
            more_digits_follow_while_those_are_taken_too,
            a_long_label_is_cut_for_its_digits,
            sixty_four_machines_of_one_name_get_a_label_each,
            update_renames,
            update_to_a_taken_label_is_refused,
            a_label_is_free_again_after_a_delete_or_a_rename,
        ],
    }
    once_unopened {
        "labels" => [what_is_no_host_name_is_refused],
    }
}

/// Host names, and the labels that a person would make of them by the rule.
fn samples() -> Vec<(String, String)> {
    let given = [
        ("web", "web"),
        ("DESKTOP-7", "desktop-7"),
        ("Ann's MacBook Pro.lan.example", "ann-s-macbook-pro"),
        ("a__b +c", "a-b-c"),
        ("-edge--case-", "edge-case"),
        ("日本", "node"),
        ("日本-tokyo", "tokyo"),
        ("Äpfel", "pfel"),
        ("straße", "stra-e"),
        ("İstanbul", "stanbul"),
        ("\u{212a}", "node"), // KELVIN SIGN, whose lower case is an ASCII letter.
        ("٣x", "x"),          // A digit, but none of DNS.
        ("🦀🦀", "node"),
        ("_", "node"),
        (".hidden", "node"),
        ("!", "node"),
        ("xn--bcher-kva", "xn-bcher-kva"),
        ("10.0.0.1", "10"),
    ];
    let mut samples: Vec<_> =
        given.iter().map(|(name, label)| ((*name).to_owned(), (*label).to_owned())).collect();
    samples.push(("y".repeat(63), "y".repeat(63)));
    samples.push(("z".repeat(255), "z".repeat(63)));
    samples.push((format!("{}--end", "w".repeat(62)), "w".repeat(62)));
    samples.push((format!("{}é", "v".repeat(253)), "v".repeat(63)));
    samples
}

async fn a_label_is_made_of_the_host_name(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let mut nodes = Vec::new();
    for (number, (hostname, label)) in (1..).zip(samples()) {
        let node = register(&store, alice, number, &hostname).await;
        // Some of the samples make the same label; the first one holds it.
        if node.label.as_str() != label {
            let suffix = format!("-{}", ending(node.id, 4));
            assert_eq!(node.label.as_str(), label.clone() + &suffix, "of {hostname:?}");
            assert!(nodes.iter().any(|(_, other): &(Arc<Node>, String)| *other == label));
        }
        assert_eq!(node.hostname.as_str(), hostname);
        nodes.push((node, label));
    }
    let store = env.reload(store).await;
    for (node, _) in nodes {
        let found = store.nodes().get_by_label(&node.label).await.unwrap();
        assert_eq!(found, Some(node));
    }
}

async fn a_taken_label_gets_digits_of_the_id(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let first = register(&store, alice, 1, "web.a").await;
    let store = env.reload(store).await;
    let second = register(&store, alice, 2, "WEB.b").await;
    assert_eq!(first.label.as_str(), "web");
    assert_eq!(second.label.as_str(), format!("web-{}", ending(second.id, 4)));
    let store = env.reload(store).await;
    for node in [first, second] {
        assert_eq!(store.nodes().get_by_label(&node.label).await.unwrap(), Some(node));
    }
}

async fn more_digits_follow_while_those_are_taken_too(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let id: NodeId = "018bcfe5-6800-7000-8000-0123456789ab".parse().unwrap();
    let labels = ["web", "web-89ab", "web-456789ab", "web-80000123456789ab"].map(str::to_owned);
    let longest = "web-018bcfe56800700080000123456789ab";
    let holders = labels.into_iter().chain([longest.to_owned()]);
    let mut store = store;
    for (number, label) in (1..).zip(holders) {
        // What this id would get now, and does not keep.
        let registered = register_as(&store, id, alice, "web").await.unwrap();
        assert_eq!(registered.as_str(), label);
        store.nodes().delete(id).await.unwrap();
        let holder = register(&store, alice, number, &label).await;
        assert_eq!(holder.label.as_str(), label);
        store = env.reload(store).await;
    }
    // All of them are taken.
    let kind = AlreadyExists { constraint: "label" };
    refused(&store, register_as(&store, id, alice, "web"), kind).await;
}

async fn a_long_label_is_cut_for_its_digits(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    register(&store, alice, 1, &"x".repeat(63)).await;
    let hyphened = format!("{}-yyyy", "w".repeat(57));
    register(&store, alice, 2, &hyphened).await;
    let store = env.reload(store).await;
    let cut = register(&store, alice, 3, &"x".repeat(80)).await;
    assert_eq!(cut.label.as_str(), format!("{}-{}", "x".repeat(58), ending(cut.id, 4)));
    let cut = register(&store, alice, 4, &hyphened).await;
    assert_eq!(cut.label.as_str(), format!("{}-{}", "w".repeat(57), ending(cut.id, 4)));
    let store = env.reload(store).await;
    assert_eq!(store.nodes().get_by_label(&cut.label).await.unwrap(), Some(cut));
}

async fn sixty_four_machines_of_one_name_get_a_label_each(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let calls = (1..=64).map(|number| {
        let store = store.clone();
        tokio::spawn(async move { register(&store, alice, number, "localhost").await })
    });
    let calls: Vec<_> = calls.collect();
    for call in calls {
        call.await.unwrap();
    }
    let store = env.reload(store).await;
    let view = store.view();
    let labels: BTreeSet<_> = view.nodes().iter().map(|node| node.label.clone()).collect();
    assert_eq!(labels.len(), 64);
    let plain = view.nodes().iter().filter(|node| node.label.as_str() == "localhost");
    assert_eq!(plain.count(), 1);
    for node in view.nodes().iter().filter(|node| node.label.as_str() != "localhost") {
        let digits = node.label.as_str().strip_prefix("localhost-").unwrap();
        assert_eq!(digits, ending(node.id, digits.len()));
        assert_eq!(view.nodes().by_label(&node.label), Some(node));
    }
}

async fn update_renames(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let first = node(&store, alice, 1).await;
    let renamed = store.nodes().update(first.id, label("WEB-1"), None).await.unwrap();
    let expected = Node {
        label: DnsLabel::new("web-1").unwrap(),
        revision: first.revision.next(),
        ..Node::clone(&first)
    };
    assert_eq!(*renamed, expected);
    let store = env.reload(store).await;
    let found = store.nodes().get_by_label(&expected.label).await.unwrap();
    assert_eq!(found.as_deref(), Some(&expected));
    assert_eq!(store.nodes().get_by_label(&first.label).await.unwrap(), None);
    // The same label once more changes nothing; another host name changes no label.
    assert_eq!(idle(&store, store.nodes().update(first.id, label("web-1"), None)).await, renamed);
    let patch =
        NodePatch { hostname: Update::Set("other".parse().unwrap()), ..NodePatch::default() };
    let node = store.nodes().update(first.id, patch, None).await.unwrap();
    assert_eq!((node.hostname.as_str(), node.label.as_str()), ("other", "web-1"));
    // It is still found by it, and nobody else can have it.
    let second = store.nodes().register(machine(2, by(alice))).await.unwrap();
    let update = store.nodes().update(second.id, label("web-1"), None);
    refused(&store, update, AlreadyExists { constraint: "label" }).await;
    let store = env.reload(store).await;
    assert_eq!(store.nodes().get_by_label(&expected.label).await.unwrap(), Some(node));
}

async fn update_to_a_taken_label_is_refused(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let (first, second) = (node(&store, alice, 1).await, node(&store, alice, 2).await);
    let store = env.reload(store).await;
    for text in [first.label.as_str().to_owned(), first.label.as_str().to_uppercase()] {
        let update = store.nodes().update(second.id, label(&text), None);
        refused(&store, update, AlreadyExists { constraint: "label" }).await;
    }
    for node in [first, second] {
        assert_eq!(store.nodes().get_by_label(&node.label).await.unwrap(), Some(node));
    }
}

async fn a_label_is_free_again_after_a_delete_or_a_rename(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let (first, second) =
        (register(&store, alice, 1, "web").await, register(&store, alice, 2, "db").await);
    store.nodes().delete(first.id).await.unwrap();
    store.nodes().update(second.id, label("archive"), None).await.unwrap();
    let store = env.reload(store).await;
    let web = register(&store, alice, 3, "web").await;
    assert_eq!(web.label.as_str(), "web");
    store.nodes().update(web.id, label("db"), None).await.unwrap();
    let store = env.reload(store).await;
    let found = store.nodes().get_by_label(&second.label).await.unwrap().unwrap();
    assert_eq!(found.id, web.id);
    assert_eq!(store.nodes().get_by_label(&first.label).await.unwrap(), None);
}

async fn what_is_no_host_name_is_refused(_: &mut TestEnv) {
    let too_long = "x".repeat(256);
    let too_many_bytes = "é".repeat(128);
    for bad in ["", "a\nb", "a\0b", "\u{7f}", &too_long, &too_many_bytes] {
        let error = Hostname::new(bad).unwrap_err();
        assert_eq!(*error.kind(), InvalidArgument, "{bad:?}");
    }
    let too_long = "x".repeat(64);
    for bad in ["", "-a", "a-", "a.b", "a_b", "é", " ", &too_long] {
        let error = DnsLabel::new(bad).unwrap_err();
        assert_eq!(*error.kind(), InvalidArgument, "{bad:?}");
    }
}

fn named(number: u32, user: UserId, hostname: &str) -> Registration {
    Registration { hostname: hostname.parse().unwrap(), ..machine(number, by(user)) }
}

async fn register(store: &Opened, user: UserId, number: u32, hostname: &str) -> Arc<Node> {
    store.nodes().register(named(number, user, hostname)).await.unwrap()
}

/// Registers a machine under an id of the caller's choice; gives its label.
async fn register_as(store: &Opened, id: NodeId, user: UserId, hostname: &str) -> Result<DnsLabel> {
    let registration = Box::new(named(999, user, hostname));
    store.transact(Transaction::new().then(NodeCommand::Register { id, registration })?).await?;
    Ok(store.nodes().get(id).await?.unwrap().label.clone())
}

fn label(text: &str) -> NodePatch {
    NodePatch { label: Update::Set(text.parse().unwrap()), ..NodePatch::default() }
}

/// The last hexadecimal digits of an id.
fn ending(id: NodeId, digits: usize) -> String {
    let text = id.to_string().replace('-', "");
    text[text.len() - digits..].to_owned()
}
