//! The id that identifies nothing.

use std::str::FromStr;

use crate::prelude::*;

cases! {
    stored {
        "nil-id" => [nothing_is_stored_under_the_nil_id],
    }
    once_unopened {
        "nil-id" => [no_text_gives_the_nil_id],
    }
}

const NIL: [u8; 16] = [0; 16];

fn assert_refused<T: Debug>(result: Result<T>) -> Error {
    let error = fails(result, InvalidArgument);
    assert!(error.to_string().contains("nil UUID"), "{error}");
    error
}

/// The same entity under the nil id; `None` for those that have none.
fn under_nil(image: &EntityRecord) -> Option<EntityRecord> {
    macro_rules! with_nil {
        ($($kind:ident($entity:ident . $id:ident)),*) => {
            match image {
                $(EntityRecord::$kind(found) => {
                    let $id = Id::from_bytes(NIL);
                    Some(EntityRecord::$kind($entity { $id, ..$entity::clone(found) }.into()))
                })*
                EntityRecord::Policy(_) | EntityRecord::Setting(_) => None,
            }
        };
    }
    with_nil!(
        User(User.id),
        Node(Node.id),
        Instance(Instance.id),
        Presence(Presence.node),
        Route(Route.id),
        ApiKey(ApiKey.id),
        PreAuthKey(PreAuthKey.id),
        DnsRecord(DnsRecord.id),
        Session(Session.id),
        SignIn(SignIn.id)
    )
}

async fn nothing_is_stored_under_the_nil_id(env: &mut TestEnv, store: Opened) {
    let made = OneOfEach::make(&store).await;
    let point = |node| point(node, "load", at(0), f64::from(u8::from(node.is_some())));
    store.metrics().record(point(None)).await.unwrap();
    let store = env.reload(store).await;
    let before = store.digests().await.unwrap();

    // Whole entities, as an import brings them.
    let images: Vec<_> = store.view().images().filter_map(|image| under_nil(&image)).collect();
    assert_eq!(images.len(), 9);
    for image in &images {
        let restore = |skip_invalid| Restore { images: vec![image.clone()], skip_invalid };
        let error = assert_refused(store.restore(restore(false)).await);
        assert_eq!(error.entity(), Some(image.entity()));
        let restored = store.restore(restore(true)).await.unwrap().value;
        assert_eq!((restored.restored, restored.skipped.len()), (0, 1));
    }
    let preauth_key = Some(PreAuthKeyId::from_bytes(NIL));
    let node = Node {
        id: NodeId::from_bytes([9; 16]),
        machine_key: MachineKey::from_bytes([9; 32]).unwrap(),
        node_key: NodeKey::from_bytes([9; 32]).unwrap(),
        label: "other".parse().unwrap(),
        ipv4: None,
        ipv6: None,
        preauth_key,
        ..Node::clone(&made.node)
    };
    let images = vec![EntityRecord::from(node)];
    assert_refused(store.restore(Restore { images, skip_invalid: false }).await);

    // Commands with an id that the caller chose.
    let create = UserCommand::Create { id: UserId::from_bytes(NIL), user: local("nobody") };
    let error = assert_refused(store.transact(Transaction::new().then(create).unwrap()).await);
    assert!(error.to_string().contains("step=0"), "{error}");

    // Series. In a metric's key the nil id would be the network as a whole.
    let nobody = Some(NodeId::from_bytes(NIL));
    assert_refused(store.metrics().record(point(nobody)).await);
    assert_refused(store.metrics().record_many(vec![point(None), point(nobody)]).await);
    let writer = WriterId::from_bytes(NIL);
    assert_refused(store.metrics().record_batch(writer, 1, vec![point(None)]).await);
    let query = MetricQuery { node: Some(nobody), ..all_points() };
    assert_refused(store.metrics().range(&query, &PageRequest::default()).await);
    assert_refused(store.metrics().aggregate(&query).await);
    let query = MetricQuery { from: at(0), to: at(60), ..query };
    assert_refused(store.metrics().rollup(&query, Rollup::Minute).await);
    let entry = AuditEntry { id: AuditId::from_bytes(NIL), ..entry(1, at(0)) };
    assert_refused(store.audit().append(vec![entry]).await);

    assert_eq!(store.digests().await.unwrap(), before);
    let store = env.reload(store).await;
    assert_eq!(store.digests().await.unwrap(), before);
    made.check(&store).await;
}

async fn no_text_gives_the_nil_id(_: &mut TestEnv) {
    fn check<I: Id + FromStr<Err = Error>>() {
        for text in ["00000000-0000-0000-0000-000000000000", "00000000000000000000000000000000"] {
            assert_refused(text.parse::<I>());
            serde_json::from_str::<I>(&format!("\"{text}\"")).unwrap_err();
        }
        let least = "00000000-0000-0000-0000-000000000001";
        assert_eq!(least.parse::<I>().unwrap().to_string(), least);
    }
    check::<UserId>();
    check::<NodeId>();
    check::<RouteId>();
    check::<ApiKeyId>();
    check::<PreAuthKeyId>();
    check::<DnsRecordId>();
    check::<SessionId>();
    check::<AuditId>();
    check::<StoreId>();
    check::<WriterId>();
}
