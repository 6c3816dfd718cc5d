//! Both files have what is answered, and one goes on when the other one is lost.

use std::path::PathBuf;

use ghostwire_store::domain::DocumentText;

use super::*;

fn synchronous(directory: &Path) -> Config {
    let mut config = config(directory);
    config.migration.synchronous = true;
    config
}

async fn in_step(migrations: &Migrations) -> Status {
    until(migrations, |status| status.in_step).await
}

async fn until(migrations: &Migrations, holds: impl Fn(&Status) -> bool) -> Status {
    const MOST: usize = 12_000;
    for _ in 0..MOST {
        let status = migrations.status().await.unwrap();
        if holds(&status) {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{:#?}", migrations.status().await);
}

/// Takes every file of a store away. Gives where they are then.
fn lose(directory: &Path, name: &str) -> Vec<(PathBuf, PathBuf)> {
    let away = directory.join("away");
    std::fs::create_dir(&away).unwrap();
    let move_away = |file: PathBuf| {
        let to = away.join(file.file_name().unwrap());
        std::fs::rename(&file, &to).unwrap();
        (file, to)
    };
    // The database goes first and comes back last: without it the others are nothing.
    let mut files = files_of(directory, name);
    files.sort();
    files.into_iter().map(move_away).collect()
}

fn bring_back(directory: &Path, lost: Vec<(PathBuf, PathBuf)>) {
    for (file, at) in lost.into_iter().rev() {
        std::fs::rename(at, file).unwrap();
    }
    std::fs::remove_dir(directory.join("away")).unwrap();
}

async fn in_step_with_some(config: &Config) -> (Arc<dyn Store>, Migrations) {
    let (store, migrations) = open(config).await;
    filled(store.as_ref()).await;
    migrations.start(BY).await.unwrap();
    in_step(&migrations).await;
    (store, migrations)
}

fn follows(status: &Status) -> bool {
    status.stage == Stage::Mirror && status.lag == Some(0)
}

/// The target has what there is so far.
async fn followed(config: &Config) -> (Arc<dyn Store>, Migrations) {
    let (store, migrations) = open(config).await;
    filled(store.as_ref()).await;
    migrations.start(BY).await.unwrap();
    until(&migrations, follows).await;
    (store, migrations)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_in_step_moves_under_load_and_back() {
    let directory = tempfile::tempdir().unwrap();
    let config = synchronous(directory.path());
    let (store, migrations) = in_step_with_some(&config).await;
    let writing = Writing::begin(&store);
    for stage in [Stage::TargetReads, Stage::Mirror, Stage::TargetReads] {
        let status = match stage {
            Stage::TargetReads => migrations.advance(BY).await.unwrap(),
            _ => migrations.back(BY).await.unwrap(),
        };
        assert_eq!(status.stage, stage);
        let status = in_step(&migrations).await;
        assert_eq!(status.fallbacks, 0);
    }
    let written = writing.end().await;
    store.verify().await.unwrap();
    let digests = store.digests().await.unwrap();
    store.close().await.unwrap();
    // Either side alone is no store that could be written, and both are one.
    let (store, migrations) = open(&config).await;
    in_step(&migrations).await;
    assert_eq!(store.digests().await.unwrap(), digests);
    assert!(written.iter().all(|name| has(store.as_ref(), name)));
    migrations.finish(BY).await.unwrap();
    add(store.as_ref(), "alone").await;
    store.close().await.unwrap();
}

/// With everything that lies beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_away_for_too_long_is_set_aside_and_copied_anew() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    config.migration.max_kept_mib = 1;
    let (store, migrations) = followed(&config).await;
    let files = lose(directory.path(), "target.db");
    let mut version = None;
    loop {
        let text = DocumentText::new(format!("// {}", "a".repeat(300_000))).unwrap();
        version = Some(store.policies().swap(version, text).await.unwrap().version);
        if store.consumers().list().await.unwrap().iter().any(|consumer| consumer.resync) {
            break;
        }
    }
    let digests = store.digests().await.unwrap();
    bring_back(directory.path(), files);
    until(&migrations, follows).await;
    assert!(directory.path().join("target.db.superseded-0").exists());
    assert_eq!(migrations.advance(BY).await.unwrap().stage, Stage::TargetReads);
    assert_eq!(store.digests().await.unwrap(), digests);
    store.verify().await.unwrap();
    store.close().await.unwrap();
    let (store, _) = open(&config).await;
    assert_eq!(store.digests().await.unwrap(), digests);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_follows_is_opened_again_when_its_file_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let (store, migrations) = followed(&config).await;
    let files = lose(directory.path(), "target.db");
    add(store.as_ref(), "meanwhile").await;
    let is_away = |status: &Status| {
        status
            .last_error
            .as_ref()
            .is_some_and(|error| error.contains("opened again once it is back"))
    };
    until(&migrations, is_away).await;
    bring_back(directory.path(), files);
    until(&migrations, |status| follows(status) && status.last_error.is_none()).await;
    migrations.advance(BY).await.unwrap();
    add(store.as_ref(), "there").await;
    assert!(has(store.as_ref(), "meanwhile"));
    store.verify().await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_file_is_lost_the_other_one_goes_on_and_is_copied_when_it_is_back() {
    for (lost, backend) in [("target.db", "libsql"), ("source.db", "zqlite")] {
        let directory = tempfile::tempdir().unwrap();
        let config = synchronous(directory.path());
        let (store, migrations) = in_step_with_some(&config).await;
        let files = lose(directory.path(), lost);
        // Whether this one is stored its caller may not be told: a file that is gone may have it.
        let first = store.users().create(NewUser::local("first".parse().unwrap())).await;
        assert!(
            first.as_ref().err().is_none_or(|error| {
                matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown)
            }),
            "{first:?}"
        );
        until(&migrations, |status| status.fallbacks == 1).await;
        add(store.as_ref(), "without").await;
        assert_eq!(store.info().backend.name, backend, "{lost}");
        let digests = store.digests().await.unwrap();
        bring_back(directory.path(), files);
        let status = in_step(&migrations).await;
        assert_eq!(status.lag, Some(0));
        // What it was is beside it.
        assert!(directory.path().join(format!("{lost}.superseded-0")).exists(), "{lost}");
        assert_eq!(store.digests().await.unwrap(), digests);
        store.verify().await.unwrap();
        store.close().await.unwrap();
        let (store, migrations) = open(&config).await;
        in_step(&migrations).await;
        assert_eq!(store.digests().await.unwrap(), digests);
        assert_eq!(store.info().backend.name, backend, "{lost}");
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_ended_before_it_made_room_for_the_copy_is_followed_by_one_that_does() {
    for lost in ["target.db", "source.db"] {
        let directory = tempfile::tempdir().unwrap();
        let config = synchronous(directory.path());
        let (store, migrations) = in_step_with_some(&config).await;
        let files = lose(directory.path(), lost);
        let _ = store.users().create(NewUser::local("first".parse().unwrap())).await;
        until(&migrations, |status| status.fallbacks == 1).await;
        add(store.as_ref(), "without").await;
        let digests = store.digests().await.unwrap();
        store.close().await.unwrap();
        // It came back and was set aside, and that is all that was done.
        for (file, at) in files {
            let name = file.file_name().unwrap().to_str().unwrap().replacen(lost, "", 1);
            std::fs::rename(at, directory.path().join(format!("{lost}.superseded-0{name}")))
                .unwrap();
        }
        let (store, migrations) = open(&config).await;
        in_step(&migrations).await;
        assert_eq!(store.digests().await.unwrap(), digests, "{lost}");
        store.verify().await.unwrap();
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_both_is_served_without_the_other_one_only_by_command() {
    for (lost, backend) in [("target.db", "libsql"), ("source.db", "zqlite")] {
        let directory = tempfile::tempdir().unwrap();
        let config = synchronous(directory.path());
        let (store, migrations) = in_step_with_some(&config).await;
        let status = migrations.status().await.unwrap();
        let side = if lost == "target.db" { &status.target } else { &status.source };
        let side: ghostwire_store::domain::SideId = side.side.parse().unwrap();
        let digests = store.digests().await.unwrap();
        // Nobody goes on without one that is there.
        store.close().await.unwrap();
        let opener = Opener::new(&config).create(false);
        refused(opener.survivor(side).await, ErrorKind::Restricted, "is there");
        let files = lose(directory.path(), lost);
        let error = Opener::new(&config).open().await.unwrap_err();
        assert!(error.to_string().contains("go-on"), "{lost}: {error}");
        assert!(error.to_string().contains(&side.to_string()), "{lost}: {error}");
        let reader = Opener::new(&config).read_only(true).open().await.unwrap();
        assert_eq!(reader.digests().await.unwrap(), digests);
        reader.close().await.unwrap();
        let other = ghostwire_store::domain::SideId::from_bytes([9; 16]);
        refused(opener.survivor(other).await, ErrorKind::NotFound, "");
        let survivor = opener.survivor(side).await.unwrap();
        assert!(!survivor.may_lack());
        survivor.go_on().await.unwrap();
        let opener = Opener::new(&config).admin_socket_served(false);
        let (store, migrations) = opener.open_movable().await.unwrap();
        assert_eq!(store.info().backend.name, backend, "{lost}");
        add(store.as_ref(), "without").await;
        let digests = store.digests().await.unwrap();
        bring_back(directory.path(), files);
        in_step(&migrations).await;
        assert_eq!(store.digests().await.unwrap(), digests);
        store.close().await.unwrap();
    }
}
