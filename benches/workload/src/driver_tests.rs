use std::sync::atomic::AtomicU64;

use async_trait::async_trait;

use super::*;
use crate::subject::{Answer, Read, Write};
use crate::{Content, Operation};

/// Does nothing but count, and puts every write off until it settles or ten wait.
#[derive(Default)]
struct Counting {
    written: AtomicU64,
    flushed: AtomicU64,
    checkpoints: AtomicU64,
    fails_after: Option<u64>,
    /// What waits at one checkpoint after the other, in turn, instead of what was counted.
    backlogs: &'static [u64],
}

#[async_trait]
impl Subject for Counting {
    async fn write(&self, _: Write) -> Result<()> {
        let written = self.written.fetch_add(1, Ordering::SeqCst) + 1;
        if self.fails_after.is_some_and(|most| written > most) {
            return Err("the disk is full".into());
        }
        if written.is_multiple_of(1_000) {
            self.settle().await?;
        }
        tokio::time::sleep(Duration::from_micros(50)).await;
        Ok(())
    }

    async fn read(&self, _: &Read<'_>) -> Result<u64> {
        Ok(3)
    }

    async fn answer(&self, _: &Read<'_>) -> Result<Answer> {
        Ok(Answer::Nothing)
    }

    fn progress(&self) -> Option<Progress> {
        let (written, flushed) =
            (self.written.load(Ordering::SeqCst), self.flushed.load(Ordering::SeqCst));
        let checkpoints = self.checkpoints.load(Ordering::SeqCst);
        let backlog = self.backlogs.iter().cycle().nth(checkpoints as usize % 1_000);
        let debt = backlog.copied().unwrap_or_else(|| written.saturating_sub(flushed));
        Some(Progress { groups: written, checkpoints, debt })
    }

    async fn settle(&self) -> Result<()> {
        self.flushed.store(self.written.load(Ordering::SeqCst), Ordering::SeqCst);
        self.checkpoints.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

fn case(operation: Operation, callers: usize) -> Case {
    let content = Content { nodes: 10, ..Content::default() };
    Case { operation, callers, content, seconds: 0.05, checkpoints: 0 }
}

async fn written(subject: Counting, case: &Case) -> (Arc<Counting>, Result<Run>) {
    let counting = Arc::new(subject);
    let subject: Arc<dyn Subject> = counting.clone();
    let targets = Arc::new(Targets::new(case.content));
    let run = writes(&subject, &targets, case).await;
    (counting, run)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_between_the_readings_counts_once() -> Result<()> {
    let (subject, run) = written(Counting::default(), &case(Operation::Heartbeat, 8)).await;
    let run = run?;
    let all = subject.written.load(Ordering::SeqCst);
    assert!(run.count > 0 && run.count < all, "the warm-up does not count: {run:?}, {all}");
    assert_eq!(run.progress.map(|(_, last)| last.debt), Some(0));
    assert!(run.seconds >= 0.05 && run.p50_us.is_some_and(|us| us >= 50.0), "{run:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_from_checkpoint_to_checkpoint_leaves_no_more_than_it_found() -> Result<()> {
    // So long that it does not end for having taken too long.
    let case = Case { checkpoints: 2, seconds: 0.5, ..case(Operation::SignIn, 64) };
    let subject = Counting { backlogs: &[3, 7, 5, 9], ..Counting::default() };
    let (_, run) = written(subject, &case).await;
    let run = run?;
    assert!(run.checkpoints() >= 2, "{run:?}");
    assert!(run.progress.is_some_and(|(first, last)| last.debt <= first.debt), "{run:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_points_counts_as_its_points() -> Result<()> {
    let (subject, run) = written(Counting::default(), &case(Operation::Metrics, 1)).await;
    assert!(run?.count <= subject.written.load(Ordering::SeqCst) * 1_000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_ends_the_run() {
    let subject = Counting { fails_after: Some(20), ..Counting::default() };
    let (_, run) = written(subject, &case(Operation::Audit, 4)).await;
    assert!(run.is_err_and(|error| error.to_string().contains("disk is full")));
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_counted_on_all_threads() -> Result<()> {
    let subject: Arc<dyn Subject> = Arc::new(Counting::default());
    let case = case(Operation::NodeById, 2);
    let targets = Arc::new(Targets::new(case.content));
    let run = reads(&subject, &targets, &case).await?;
    assert!(run.count > 1_000, "{run:?}");
    assert_eq!(run.items, 3.0);
    assert_eq!(run.p99_us, None, "reads as short as these are not timed one by one");
    let empty = Arc::new(Targets::new(Content::default()));
    assert!(reads(&subject, &empty, &case).await.is_err());
    Ok(())
}
