use ghostwire_store_bench_workload::machine::scratch;
use ghostwire_store_bench_workload::results::Case;
use ghostwire_store_bench_workload::subject::Result;
use ghostwire_store_bench_workload::transcript::compare;
use ghostwire_store_bench_workload::{Content, Operation, run_once};

use super::*;

/// The first candidate is what the others are compared with.
#[tokio::test(flavor = "multi_thread")]
async fn every_subject_stores_and_answers_the_same() -> Result<()> {
    compare(&candidates()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_there_after_reopening() -> Result<()> {
    use ghostwire_store_bench_workload::{Answer, Read, data};
    for candidate in candidates().iter().filter(|one| one.about.backend != "memory") {
        let directory = scratch(&std::env::temp_dir())?;
        for number in [0, 1] {
            let subject = candidate.open(directory.path().to_owned()).await?;
            let content = Content { preauth_keys: 2, ..Content::default() };
            if number == 0 {
                ghostwire_store_bench_workload::subject::load(subject.as_ref(), content).await?;
            }
            let targets = ghostwire_store_bench_workload::targets::Targets::new(content);
            let write = targets.write(Operation::Register, number).ok_or("no machine")?;
            subject.write(write).await?;
            for known in 0..=number {
                let label = data::label(known);
                let found = subject.answer(&Read::NodeByLabel(&label)).await?;
                let Answer::Node(Some(node)) = found else {
                    return Err(format!("{label} is not there").into());
                };
                assert_eq!(node.ipv4, Some(data::addresses(known).0), "{}", candidate.about.name);
            }
            subject.close().await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn registering_is_counted_between_checkpoints_and_beside_a_plain_file() -> Result<()> {
    let zqlite = candidates().into_iter().next().ok_or("nobody takes part")?;
    let content = Content { preauth_keys: 100_000, ..Content::default() };
    let mut case = Case {
        operation: Operation::Register,
        callers: 64,
        content,
        seconds: 0.05,
        checkpoints: 0,
    };
    let run = run_once(&zqlite, &case, &std::env::temp_dir()).await?;
    assert!(run.count > 0 && run.groups() > 0 && run.count >= run.groups(), "{run:?}");
    // What was put off was done by the end, and its time counts.
    assert_eq!(run.progress.map(|(_, last)| last.debt), Some(0));
    assert!(run.block_bytes.is_some_and(|bytes| bytes > 500.0), "{run:?}");
    assert!(run.bare_sync_us.is_some_and(|us| us > 0.0), "{run:?}");
    case.content.preauth_keys = 10;
    let run = run_once(&zqlite, &case, &std::env::temp_dir()).await?;
    assert!(run.ran_out, "{run:?}");
    Ok(())
}
