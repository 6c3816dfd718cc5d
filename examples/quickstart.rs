//! A store from the first call to the last: open, write, read, close.
#![allow(clippy::print_stdout)]

use std::error::Error;

use ghostwire_store::Opener;
use ghostwire_store::config::{BackendChoice, Config, LibsqlOptions};
use ghostwire_store::domain::{
    Admission, MachineKey, NewPreAuthKey, NewUser, NodeKey, Registration, SessionNumber, Update,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A deployment reads this from feature-flags.toml: see `ghostwire_store::config::load`.
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("ghostwire.db");
    let libsql = LibsqlOptions { path, ..LibsqlOptions::default() };
    let config = Config { backend: BackendChoice::Libsql(libsql), ..Config::default() };
    let store = Opener::new(&config).open().await?;

    // Presence is stored: whoever was online when the program ended is not any more.
    store.presence().disconnect_all().await?;

    let alice = store.users().create(NewUser::local("alice".parse()?)).await?;
    // The secret is shown once. Alice types it on her machine.
    let new = NewPreAuthKey { user: Some(alice.id), ..NewPreAuthKey::default() };
    let (_, secret) = store.preauth_keys().create(new).await?;

    // What the machine sends: the secret and its keys.
    let key = store.preauth_keys().authenticate(secret.expose()).await?;
    let (machine_key, node_key) = (MachineKey::from_bytes([1; 32])?, NodeKey::from_bytes([2; 32])?);
    let admission = Admission::PreAuthKey(key.id);
    let laptop = Registration::new(machine_key, node_key, "laptop".parse()?, admission);
    // Uses the key up, allocates addresses and leaves a line in the audit trail: all or nothing.
    let node = store.nodes().register(laptop).await?;
    store.presence().connect(node.id, SessionNumber::new(1)?, Update::Keep).await?;

    // Reads are plain functions on a snapshot: no await, no lock, no disk.
    let view = store.view();
    for node in view.nodes().iter() {
        let state = if view.presence().is_online(node.id) { "online" } else { "offline" };
        let owner = node.user.and_then(|id| view.users().get(id));
        let owner = owner.map_or("nobody", |user| user.name.as_str());
        let addresses: Vec<_> =
            [node.ipv4.map(|a| a.to_string()), node.ipv6.map(|a| a.to_string())]
                .into_iter()
                .flatten()
                .collect();
        println!("{} of {owner}, {state}: {}", node.label, addresses.join(", "));
    }

    // The key admits one machine.
    let key = view.preauth_keys().get(key.id).ok_or("the key is gone")?;
    println!("the key can be used again: {}", key.is_usable(store.clock().now()?));

    // Everything that was acknowledged is durable already; this releases the files.
    store.close().await?;
    Ok(())
}
