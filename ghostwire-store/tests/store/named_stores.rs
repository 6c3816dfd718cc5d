//! Two stores of one kind in one configuration.
#![cfg(any(feature = "libsql", feature = "zqlite"))]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use ghostwire_store::config::{BackendChoice, FlagFile, LoadRequest, resolve};
use ghostwire_store::domain::NewUser;
use ghostwire_store::{COMPILED_BACKENDS, Opener};

#[tokio::test]
async fn two_stores_of_one_kind_are_open_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flags.toml");
    // Those that keep a store in a file.
    let in_files = ["libsql", "zqlite"];
    for kind in COMPILED_BACKENDS.iter().filter(|kind| in_files.contains(&kind.name())) {
        let text = format!(
            "[development]\nstore = 'live'\n\
             [development.stores]\n\
             live = {{ backend = '{kind}', path = '{kind}-live' }}\n\
             next = {{ backend = '{kind}', path = '{kind}-next' }}\n"
        );
        let flags = FlagFile { path: path.clone(), text };
        let live = resolve(Some(&flags), &LoadRequest::default(), &BTreeMap::new()).unwrap();
        let next = live.for_store("next").unwrap();
        assert_ne!(live.secret_key_path(), next.secret_key_path());

        let [one, other] = [&live, &next].map(Opener::new);
        let [one, other] = [one.open().await.unwrap(), other.open().await.unwrap()];
        one.users().create(NewUser::local("alice".parse().unwrap())).await.unwrap();
        assert_eq!((one.view().users().len(), other.view().users().len()), (1, 0));
        one.close().await.unwrap();
        other.close().await.unwrap();
        for config in [&live, &next] {
            assert!(config.backend.path().unwrap().exists());
            let key = match &config.backend {
                BackendChoice::Zqlite(options) => options.keyring_path(),
                _ => config.secret_key_path().unwrap(),
            };
            assert!(key.exists());
        }
    }
}
