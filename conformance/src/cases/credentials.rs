//! API keys, pre-auth keys and sessions.

use ghostwire_store_core::ErrorKind;
use ghostwire_store_core::domain::{NewApiKey, NewUser};

use crate::case::cases;
use crate::world::World;

cases! {
    stored {
        "secrets" => [a_secret_is_shown_once_and_still_checks],
    }
}

async fn a_secret_is_shown_once_and_still_checks(world: &mut World) {
    let store = world.open().await;
    let alice = store.users().create(NewUser::local("alice".parse().unwrap())).await.unwrap();
    let new = NewApiKey { user: Some(alice.id), ..NewApiKey::default() };
    let (key, secret) = store.api_keys().create(new).await.unwrap();
    let store = world.pass(store).await;
    let found = store.api_keys().authenticate(secret.expose()).await.unwrap();
    assert_eq!(found.id, key.id);
    let wrong = format!("{}0", secret.expose().strip_suffix(|_: char| true).unwrap());
    let error = store.api_keys().authenticate(&wrong).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::PermissionDenied);
}
