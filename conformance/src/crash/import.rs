//! Imports that are killed and run again.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

use ghostwire_store_core::portable::{Item, Reader};
use ghostwire_store_memory::MemoryBackend;

use super::child::{STORE, at, open, options};
use super::oracle::by_key;
use super::process::{Moment, run_and_kill};
use super::protocol::{Job, Message, Task};
use super::share;
use super::work::NO_LOCATION;
use crate::prelude::*;

/// Items that are brought in at a time.
const BATCH: usize = 50;

/// Imports a file, and reports the number of batches after each.
pub(super) async fn run(store: &Opened, file: impl AsRef<Path>, mut each: impl FnMut(usize)) {
    let file = BufReader::new(File::open(file).expect("the file can be opened"));
    let reader = Reader::new(file).expect("the first line can be read");
    let (mut images, mut points, mut entries) = (Vec::new(), Vec::new(), Vec::new());
    for item in reader {
        match item.expect("the file is whole") {
            Item::Entity(image) => images.push(image),
            Item::Metric(point) => points.push(point),
            Item::Audit(entry) => entries.push(entry),
        }
    }
    let mut batches = 0;
    let mut stored = || {
        batches += 1;
        each(batches);
    };
    for batch in images.chunks(BATCH) {
        let restore = Restore { images: batch.to_vec(), skip_invalid: false };
        store.restore(restore).await.expect("the store admits what another one held");
        stored();
    }
    for batch in points.chunks(BATCH) {
        store.metrics().record_many(batch.to_vec()).await.expect("points are stored");
        stored();
    }
    for batch in entries.chunks(BATCH) {
        store.audit().append(batch.to_vec()).await.expect("lines are stored");
        stored();
    }
}

/// A store in memory.
pub(super) async fn scratch_store() -> Arc<dyn Store> {
    let backend = Arc::new(MemoryBackend::new(STORE));
    let options = options(at(0), Materialize::Checkpoint);
    ghostwire_store_core::open(backend, options).await.expect("a store in memory opens")
}

pub(super) async fn check(factory: Arc<dyn Factory>, effort: Effort) -> Verdict {
    let place = factory.create().await.expect("a place can be made");
    if place.location().is_none() {
        return NO_LOCATION;
    }
    let directory = crate::local_files::scratch().expect("a scratch directory");
    let path = directory.path().join("network.jsonl");
    let network = network().await;
    export(&network, BufWriter::new(File::create(&path).expect("a file"))).await;
    let images = images(&path);
    // The result of an import that is not killed.
    let direct = scratch_store().await;
    let mut batches = 0;
    run(&direct, &path, |count| batches = count).await;
    let expected = direct.digests().await.expect("the digests can be computed");

    let rng = Rng::new(effort.seed);
    let mut kills = share(effort.kills, 3);
    while kills > 0 {
        let place = factory.create().await.expect("a place can be made");
        let location = place.location().expect("as before");
        let task = Task::Import { file: path.to_str().expect("a readable path").to_owned() };
        let job = Job::new(&*factory, &location, rng.one_in(2), effort, task);
        let times = kills.min(1 + u32::from(rng.one_in(2)));
        kills -= times;
        for _ in 0..times {
            let lines = rng.below(batches);
            let moment = Moment { lines, micros: rng.number() % 3_000 };
            let stored = |said: &Message| matches!(said, Message::Imported { .. });
            let said = run_and_kill(job.clone(), moment, stored).await;
            let copy = place.after_crash().await.expect("a place can be copied");
            let store = open(copy.as_ref(), at(0), job.materialize()).await;
            store.verify().await.expect("nothing is wrong with what was rebuilt");
            check_prefix(&store, &images, said.iter().filter(|said| stored(said)).count());
            store.close().await.expect("the store closes");
        }
        let store = open(place.as_ref(), at(0), job.materialize()).await;
        run(&store, &path, |_| ()).await;
        store.verify().await.expect("nothing is wrong with what was imported");
        assert_eq!(store.digests().await.expect("the digests can be computed"), expected);
        store.close().await.expect("the store closes");
    }
    Verdict::Passed
}

/// The store holds a prefix of the file: whole batches, and no fewer than were acknowledged.
fn check_prefix(store: &Opened, images: &[EntityRecord], acknowledged: usize) {
    let found = by_key(&store.view());
    let whole = found.len() == images.len() || found.len().is_multiple_of(BATCH);
    assert!(whole, "{} entities are no whole batches", found.len());
    assert!(found.len() >= images.len().min(acknowledged * BATCH));
    for image in images.iter().take(found.len()) {
        assert_eq!(found.get(&(image.table(), image.key())), Some(image));
    }
}

fn images(path: &Path) -> Vec<EntityRecord> {
    let reader = Reader::new(BufReader::new(File::open(path).expect("the file")));
    let items = reader.expect("the first line can be read").map(|item| item.expect("an item"));
    items
        .filter_map(|item| match item {
            Item::Entity(image) => Some(image),
            _ => None,
        })
        .collect()
}

/// A few hundred of each kind of entity.
async fn network() -> Arc<dyn Store> {
    let store = scratch_store().await;
    for number in 0..150 {
        let user = user(&store, &format!("user-{number}")).await;
        let key = one_time_key(&store, user).await;
        let node = register(&store, number, with(&key)).await.id;
        connect(&store, node, 1).await;
        carry(&store, node, &[&format!("10.{}.0.0/16", number % 50)]).await;
        store.metrics().record(point(Some(node), "load", at(0), number)).await.unwrap();
    }
    store
}
