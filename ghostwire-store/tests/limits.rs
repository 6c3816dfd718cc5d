//! Where the system gives no thread or no descriptor, a store cannot be opened, and says so.
//!
//! Limits hold for a process, and root is held to none. So each backend is tried in a child that
//! is this program again, as another user where this one is root.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs)]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use futures_util::future::join_all;
use ghostwire_store::config::{BackendChoice, Config, LibsqlOptions, ZqliteOptions};
use ghostwire_store::domain::NewUser;
use ghostwire_store::{Error, ErrorKind, Opener, Result, Store};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const TASK: &str = "GHOSTWIRE_TEST_LIMITS";
const USERS: usize = 600;

#[test]
fn a_store_without_threads_or_descriptors_is_unavailable() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;

    let directory = tempfile::tempdir().unwrap();
    let everybody = |path: &Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    };
    everybody(directory.path());
    // Where it lies, another user may not get to it.
    let program = directory.path().join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    everybody(&program);
    let mut backends = Vec::new();
    if cfg!(feature = "libsql") {
        backends.push("libsql");
    }
    if cfg!(feature = "zqlite") {
        backends.push("zqlite");
    }
    for (backend, user) in backends.into_iter().zip(54_321..) {
        let mut child = Command::new(&program);
        child.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
        child.env(TASK, backend).current_dir(directory.path());
        if rustix::process::geteuid().is_root() {
            // Nobody else runs as this one: all of its threads are the child's.
            child.uid(user).gid(user);
        }
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let failure = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{backend}: {text}\n{failure}");
        for resource in ["threads", "descriptors"] {
            assert!(text.contains(&format!("no {resource}: refused")), "{backend}: {text}");
            assert!(text.contains(&format!("enough {resource}: opened")), "{backend}: {text}");
        }
    }
}

/// Does nothing, unless it is in the child.
#[test]
fn child() {
    let Ok(backend) = std::env::var(TASK) else { return };
    let directory = std::env::current_dir().unwrap();
    let path = directory.join(format!("{backend}.db"));
    let choice = match backend.as_str() {
        "zqlite" => BackendChoice::Zqlite(ZqliteOptions { path, ..ZqliteOptions::default() }),
        _ => BackendChoice::Libsql(LibsqlOptions { path, ..LibsqlOptions::default() }),
    };
    let config = Config {
        backend: choice,
        secret_key_file: Some(directory.join(format!("{backend}.key"))),
        ..Config::default()
    };
    run(async {
        let store = Opener::new(&config).open().await.unwrap();
        let names = (0..USERS).map(|n| NewUser::local(format!("user{n}").parse().unwrap()));
        let made = join_all(names.map(|new| store.users().create(new))).await;
        assert!(made.iter().all(|user| user.is_ok()));
        store.close().await.unwrap();
    });
    try_with_fewer("threads", Resource::Nproc, "/proc/self/task", &config);
    try_with_fewer("descriptors", Resource::Nofile, "/proc/self/fd", &config);
}

/// Each time with a runtime that has no threads yet.
fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Opens the store with none to spare, with one, and so on until it works.
fn try_with_fewer(name: &str, resource: Resource, in_use: &str, config: &Config) {
    const MORE_THAN_IT_TAKES: usize = 64;
    let Rlimit { current, maximum } = getrlimit(resource);
    let allow = |count| setrlimit(resource, Rlimit { current: count, maximum }).unwrap();
    let count = || std::fs::read_dir(in_use).unwrap().count();
    let at_rest = count();
    for spare in 0..MORE_THAN_IT_TAKES {
        // Threads of the attempt before may be on their way out.
        while count() > at_rest {
            std::thread::yield_now();
        }
        let outcome = run(async {
            allow(Some((at_rest + spare) as u64));
            let outcome = live(config).await;
            allow(current);
            outcome
        });
        match outcome {
            Ok(()) => {
                println!("enough {name}: opened with {spare}");
                return;
            }
            Err(error) => {
                assert_eq!(*error.kind(), ErrorKind::Unavailable, "{spare} {name}: {error}");
                println!("no {name}: refused with {spare}: {error}");
            }
        }
        // Nothing of the attempt is left: the file is free.
        run(async { live(config).await.unwrap() });
    }
    panic!("{MORE_THAN_IT_TAKES} {name} do not suffice");
}

/// A short life of a store, with everything that needs a thread.
async fn live(config: &Config) -> Result<()> {
    let store: Arc<dyn Store> = Opener::new(config).open().await?;
    let lived = async {
        assert_eq!(store.view().users().len(), USERS);
        let digests = store.digests().await?;
        store.verify().await?;
        assert_eq!(store.digests().await?.state, digests.state);
        Ok::<_, Error>(())
    };
    let lived = lived.await;
    store.close().await?;
    lived
}
