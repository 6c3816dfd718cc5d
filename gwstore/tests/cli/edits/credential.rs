//! Keys and sessions.

use ghostwire_store::{ErrorKind, Opener};

use super::{ids, network};
use crate::support::stores;

#[test]
fn a_secret_stands_alone() {
    for (backend, place) in stores() {
        network(&place, backend);
        let on = |arguments: &str| place.on(backend, arguments);
        for (noun, create, mark) in [
            ("preauthkey", "--user alice --reusable --ephemeral --expiration 24h", "gwauth-"),
            ("preauthkeys", "--tags tag:ci,tag:build", "gwauth-"),
            ("apikey", "--expiration 90d --description ci --permission read", "gwapi-"),
            ("key api", "--user bob --expiration never", "gwapi-"),
            ("session", "--user alice --node laptop --expiration 1h", "gwsession-"),
        ] {
            let dry_run = on(&format!("{noun} create {create} --dry-run")).ok();
            assert!(!format!("{dry_run:?}").contains(mark), "{dry_run:#?}");
            let made = on(&format!("{noun} create {create}")).ok();
            let secret = made.out.strip_suffix('\n').unwrap();
            assert!(secret.starts_with(mark) && !secret.contains(char::is_whitespace), "{made:#?}");
            assert!(!made.err.contains(secret), "{made:#?}");
            let object = on(&format!("{noun} create {create} --json")).ok().json();
            assert!(object["secret"].as_str().unwrap().starts_with(mark), "{object}");
            let secret_part = secret.rsplit('-').next().unwrap();
            for form in ["", "--json"] {
                let listed = on(&format!("{noun} list {form}")).ok();
                assert!(!listed.out.contains(secret_part), "{listed:#?}");
            }
        }
        on("preauthkey create").ended(2);
        let secret = on("apikey create -q").ok();
        assert!(secret.err.is_empty());
        let secret = secret.out.trim();
        let is_known = || {
            let config = place.config(backend);
            tokio::runtime::Runtime::new().unwrap().block_on(async {
                let store = Opener::new(&config).open().await.unwrap();
                let found = store.api_keys().authenticate(secret).await;
                store.close().await.unwrap();
                found.map_err(|error| error.kind().clone())
            })
        };
        let key = is_known().unwrap();
        assert!(key.created_by.as_ref().unwrap().as_str().starts_with("cli:"));
        on(&format!("apikey expire --prefix {}", key.prefix)).ok().says(&["revoked_at"]);
        assert_eq!(is_known().unwrap_err(), ErrorKind::PermissionDenied);
        assert_eq!(ids(&on("apikey list --revoked --json").ok()), [key.id.to_string()]);
        assert_eq!(ids(&on("apikey list --active --json").ok()).len(), 4);
        on(&format!("apikey revoke {}", key.id)).ok().warns(&["nothing to do"]);
        on(&format!("apikey delete {} --yes", key.prefix)).ok();
        on("preauthkey expire --user alice").ok();
        assert_eq!(ids(&on("preauthkey list --active=false --json").ok()).len(), 2);
        assert_eq!(ids(&on("preauthkey list --ephemeral --json").ok()).len(), 2);
        let session = ids(&on("session list --node laptop --json").ok()).remove(0);
        on(&format!("session edit {session} --expiration 2h")).ok().says(&["expires_at"]);
        on("session end --user alice --yes").ok();
        on("session list").ok().warns(&["nothing to list"]);
    }
}
