//! What `gwstore list` shows of what a control plane keeps beside its nodes, and what it hides.

use std::sync::Arc;
use std::time::Duration;

use ghostwire_store::domain::{
    Admission, Endpoint, EndpointKind, GroupSet, MachineKey, NetworkSettings, NewSignIn, NodeKey,
    NodeSettingsPatch, OidcProfile, Patch, RegisterMethod, Registration, SettingDocument,
    SignInPayload, Update, UserPatch, UserRole,
};
use ghostwire_store::{Opener, Result, Store};

use crate::support::{Place, stores};

const STATE: &str = "af0ifjsldkj-3f7Jx0";
/// What must not be seen over a shoulder.
const NONCE: &str = "n-0S6_WzA2Mj";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r";
const DEVICE_CODE: &str = "GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNh";

/// Does something to the store of a backend, as a server would.
fn served(place: &Place, backend: &str, serve: impl AsyncFnOnce(Arc<dyn Store>) -> Result<()>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Opener::new(&place.config(backend)).open().await.unwrap();
        serve(store.clone()).await.unwrap();
        store.close().await.unwrap();
    });
}

#[test]
fn a_sign_in_is_listed_without_what_completes_it() {
    for (backend, place) in stores() {
        place.on(backend, "list sign-ins").ok().warns(&["nothing to list"]);
        served(&place, backend, async |store| {
            let expires_at = store.clock().now()?.saturating_add(Duration::from_secs(600));
            let oidc = format!(r#"{{"nonce":"{NONCE}","verifier":"{VERIFIER}"}}"#);
            let device = format!(r#"{{"device_code":"{DEVICE_CODE}"}}"#);
            for (purpose, payload) in [("oidc", oidc), ("device", device)] {
                let (purpose, payload) = (purpose.parse()?, SignInPayload::new(payload)?);
                let state = format!("{STATE} {purpose}");
                store.sign_ins().begin(&state, NewSignIn { purpose, payload, expires_at }).await?;
            }
            Ok(())
        });
        let secrets = [NONCE, VERIFIER, DEVICE_CODE, STATE, "payload"];
        let table = place.on(backend, "list sign-ins").ok();
        table.hides(&secrets).says(&["PURPOSE", "oidc", "device"]);
        let listed = place.on(backend, "list sign-ins --json").ok();
        let items = listed.items();
        listed.hides(&secrets[..4]);
        let purposes: Vec<_> = items.iter().map(|item| item["purpose"].as_str()).collect();
        assert_eq!(purposes, [Some("oidc"), Some("device")]);
        for item in &items {
            assert_eq!(item["payload"], "…redacted");
            assert_eq!(item["hash"], "hmac-sha256:…redacted");
        }
        let page = place.on(backend, "list sign-ins --limit 1").ok();
        page.hides(&secrets).warns(&["there is more"]);
        // An export has what an import is to have, but never the state.
        let export = place.on(backend, "export -").ok();
        assert!(!export.out.contains(STATE));
        export.says(&[NONCE, VERIFIER, DEVICE_CODE]);
        place.on(backend, "status").ok().hides(&secrets[..4]);
    }
}

#[test]
fn whatever_a_server_keeps_is_listed() {
    for (backend, place) in stores() {
        served(&place, backend, async |store| {
            let profile = OidcProfile {
                provider: "https://id.example.com".parse()?,
                subject: "7".parse()?,
                name: "ann".parse()?,
                display_name: None,
                email: None,
                email_verified: false,
                picture_url: None,
                groups: GroupSet::new(["staff".parse()?])?,
            };
            let ann = store.users().upsert_oidc(profile).await?.id;
            let role = UserPatch { role: Update::Set(UserRole::Auditor), ..UserPatch::default() };
            store.users().update(ann, role, None).await?;
            store.users().set_metadata(ann, Some(r#"{"team":"net"}"#.parse()?), None).await?;
            let (machine, key) = (MachineKey::from_bytes([1; 32])?, NodeKey::from_bytes([2; 32])?);
            let admission = Admission::User { user: ann, method: RegisterMethod::Oidc };
            let laptop = Registration::new(machine, key, "laptop".parse()?, admission);
            let node = store.nodes().register(laptop).await?.id;
            let settings = NodeSettingsPatch {
                persistent_keepalive_seconds: Patch::Set(17),
                ..NodeSettingsPatch::default()
            };
            store.nodes().update_settings(node, settings, None).await?;
            let instance = store.instances().begin("control-1".parse()?).await?.id;
            let server = store.as_instance(instance);
            let session = server.presence().open(node, Update::Keep).await?.session;
            let seen = Endpoint {
                kind: EndpointKind::Stun,
                preference: 10,
                ..Endpoint::new(([192, 0, 2, 1], 41641).into(), store.clock().now()?)
            };
            server.presence().put_endpoint(node, session, seen).await?;
            let network =
                NetworkSettings { name: Some("Example".parse()?), ..NetworkSettings::default() };
            store.settings().put(SettingDocument::Network(network), None).await?;
            Ok(())
        });
        let list = |what: &str| place.on(backend, &format!("list {what}")).ok();
        list("users").says(&["ann", "auditor", "staff", "https://id.example.com"]);
        list("users --json").says(&[r#"team"#, r#""role":"auditor""#, r#""groups":["staff"]"#]);
        list("nodes").says(&["laptop", r#""persistent_keepalive_seconds":17"#]);
        list("instances").says(&["control-1", "NODES"]);
        list("presence").says(&["control-1", "192.0.2.1:41641 (stun, 10)"]);
        list("settings").says(&["network"]);
        list("settings --json").says(&[r#""name":"Example""#]);
        list("audit").says(&["node.update_settings", "SECOND", "user:"]);
    }
}
