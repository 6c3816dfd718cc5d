//! Processes that slept longer than blocks are kept.

use super::{NOT_SHARED, two};
use crate::prelude::*;

cases! {
    stored_unopened {
        "purged-follower" => [a_process_that_slept_loads_anew_and_goes_on],
    }
    once_unopened {
        "purged-follower" => [what_is_kept_is_counted_from_what_is_stored],
    }
}

async fn a_process_that_slept_loads_anew_and_goes_on(env: &mut TestEnv) -> Verdict {
    let forget = |options: &mut StoreOptions| {
        options.writer.retain_block_bytes = 0;
        // Credential checks look for themselves.
        options.max_view_age = Duration::ZERO;
    };
    let Some((awake, asleep)) = two(env, forget).await else { return NOT_SHARED };
    let writer = WriterId::from_bytes([4; 16]);
    let load = |second: i64| vec![point(None, "load", at(second), second as f64)];
    for round in 0..3u32 {
        let alice = user(&awake, &format!("alice-{round}")).await;
        let (revoked, revoked_text) = awake.api_keys().create(api_key_of(alice)).await.unwrap();
        assert!(asleep.api_keys().authenticate(revoked_text.expose()).await.is_ok());
        // Its use is recorded in the background.
        settle(&asleep).await;
        let before = asleep.fresh_view().await.unwrap();
        let mut behind = asleep.watch(before.serial());
        assert!(behind.next().now_or_never().is_none());

        awake.api_keys().revoke(revoked.id).await.unwrap();
        let (_, text) = awake.api_keys().create(api_key_of(alice)).await.unwrap();
        for number in 0..20 {
            create(&awake, &format!("user-{round}-{number}")).await;
        }
        let sequence = u64::from(round) + 1;
        awake.metrics().record_batch(writer, sequence, load(i64::from(round))).await.unwrap();
        awake.checkpoint().await.unwrap();
        let error = awake.watch(before.serial()).next().await.unwrap().unwrap_err();
        assert!(matches!(error.kind(), Compacted { .. }), "{error}");

        match round {
            0 => {
                fails(
                    asleep.api_keys().authenticate(revoked_text.expose()).await,
                    PermissionDenied,
                );
            }
            1 => drop(create(&asleep, "late-1").await),
            _ => asleep.metrics().record_batch(writer, sequence, load(99)).await.unwrap(),
        }
        asleep.api_keys().authenticate(text.expose()).await.unwrap();
        fails(asleep.api_keys().authenticate(revoked_text.expose()).await, PermissionDenied);
        // Decided on what is there now, and a batch that is known does nothing.
        let taken = asleep.users().create(local(&format!("user-{round}-7"))).await;
        fails(taken, AlreadyExists { constraint: "name" });
        asleep.metrics().record_batch(writer, sequence, load(98)).await.unwrap();
        create(&asleep, &format!("mine-{round}")).await;
        let error = behind.next().await.unwrap().unwrap_err();
        assert!(matches!(error.kind(), Compacted { .. }), "{error}");
        assert!(behind.next().await.is_none(), "the stream has ended");
        assert_eq!(
            before.users().len() + 21 + usize::from(round == 1),
            asleep.view().users().len()
        );
        asleep.verify().await.unwrap();
        let (mine, theirs) = (asleep.view(), awake.fresh_view().await.unwrap());
        assert_eq!(mine.log_position(), theirs.log_position());
        assert_eq!(mine.position(), theirs.position());
        assert_eq!(asleep.digests().await.unwrap(), awake.digests().await.unwrap());
    }
    awake.close().await.unwrap();
    let store = env.reload(asleep).await;
    assert_eq!(range(&store, &all_points(), 1000).await.len(), 3);
    assert_eq!(store.view().users().len(), 3 * 22 + 1);
    Verdict::Passed
}

/// Otherwise each process would purge by what it wrote itself.
async fn what_is_kept_is_counted_from_what_is_stored(env: &mut TestEnv) -> Verdict {
    const KEPT: u64 = 40_000;
    let keep = |options: &mut StoreOptions| options.writer.retain_block_bytes = KEPT;
    let Some((a, b)) = two(env, keep).await else { return NOT_SHARED };
    for number in 0..60 {
        let store = if number % 3 == 0 { &a } else { &b };
        let picture_url = Some(text(&"x".repeat(2_000)));
        let name = local(&format!("user-{number}"));
        store.users().create(NewUser { picture_url, ..name }).await.unwrap();
    }
    let backend = env.open_backend().await;
    let head = backend.head().await.unwrap();
    let oldest = Serial::new(head.oldest_block.get() - 1);
    let kept = backend.blocks(oldest, usize::MAX).await.unwrap();
    let bytes: u64 = kept.iter().map(|block| block.bytes.len() as u64).sum();
    let longest = kept.iter().map(|block| block.bytes.len() as u64).max().unwrap();
    let about = KEPT - 2 * longest..=KEPT + 2 * longest;
    assert!(about.contains(&bytes), "{bytes} bytes are kept, of {KEPT}");
    Verdict::Passed
}
