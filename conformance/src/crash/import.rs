//! Imports that are killed and run again.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;
use std::sync::Arc;

use ghostwire_store_core::Store;
use ghostwire_store_core::command::{Image, Restore};
use ghostwire_store_core::domain::*;
use ghostwire_store_core::portable::{Item, Reader};
use ghostwire_store_memory::MemoryBackend;

use super::child::{STORE, at, open, options};
use super::export;
use super::oracle::by_key;
use super::process::{Moment, run_and_kill};
use super::said::{Part, Play, Said};
use super::share;
use super::work::NO_LOCATION;
use crate::case::Verdict;
use crate::dice::Dice;
use crate::factory::Factory;
use crate::suite::Effort;

/// Items that are brought in at a time.
const BATCH: usize = 50;

/// Brings in a file, and tells after each batch how many there were.
pub(super) async fn run(store: &dyn Store, file: impl AsRef<Path>, mut each: impl FnMut(usize)) {
    let file = BufReader::new(File::open(file).expect("the file can be opened"));
    let reader = Reader::new(file).expect("the first line can be read");
    let (mut images, mut points, mut entries) = (Vec::new(), Vec::new(), Vec::new());
    for item in reader {
        match item.expect("the file is whole") {
            Item::Image(image) => images.push(image),
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
    let options = options(at(0), ghostwire_store_core::options::Materialize::Checkpoint);
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
    export::write(network.as_ref(), BufWriter::new(File::create(&path).expect("a file"))).await;
    let images = images(&path);
    // What a direct import comes to.
    let direct = scratch_store().await;
    let mut batches = 0;
    run(direct.as_ref(), &path, |count| batches = count).await;
    let expected = direct.digests().await.expect("the digests can be computed");

    let dice = Dice::new(effort.seed);
    let mut kills = share(effort.kills, 3);
    while kills > 0 {
        let place = factory.create().await.expect("a place can be made");
        let at_once = dice.once_in(2);
        let part = Part {
            factory: factory.name().to_owned(),
            location: place.location().expect("as before"),
            at_once,
            seed: effort.seed,
            play: Play::Import { file: path.to_str().expect("a readable path").to_owned() },
        };
        let times = kills.min(1 + u32::from(dice.once_in(2)));
        kills -= times;
        for _ in 0..times {
            let lines = dice.below(batches);
            let moment = Moment { lines, micros: dice.number() % 3_000 };
            let stored = |said: &Said| matches!(said, Said::Imported { .. });
            let said = run_and_kill(part.clone(), moment, stored).await;
            let copy = place.after_crash().await.expect("a place can be copied");
            let store = open(copy.as_ref(), at(0), part.materialize()).await;
            store.verify().await.expect("nothing is wrong with what was rebuilt");
            check_prefix(store.as_ref(), &images, said.iter().filter(|said| stored(said)).count());
            store.close().await.expect("the store closes");
        }
        let store = open(place.as_ref(), at(0), part.materialize()).await;
        run(store.as_ref(), &path, |_| ()).await;
        store.verify().await.expect("nothing is wrong with what was imported");
        assert_eq!(store.digests().await.expect("the digests can be computed"), expected);
        store.close().await.expect("the store closes");
    }
    Verdict::Passed
}

/// What is there is the beginning of the file: whole batches, and no fewer than were acknowledged.
fn check_prefix(store: &dyn Store, images: &[Image], acknowledged: usize) {
    let found = by_key(&store.view());
    let whole = found.len() == images.len() || found.len().is_multiple_of(BATCH);
    assert!(whole, "{} entities are no whole batches", found.len());
    assert!(found.len() >= images.len().min(acknowledged * BATCH));
    for image in images.iter().take(found.len()) {
        assert_eq!(found.get(&(image.table(), image.key())), Some(image));
    }
}

fn images(path: &Path) -> Vec<Image> {
    let reader = Reader::new(BufReader::new(File::open(path).expect("the file")));
    let items = reader.expect("the first line can be read").map(|item| item.expect("an item"));
    items
        .filter_map(|item| match item {
            Item::Image(image) => Some(image),
            _ => None,
        })
        .collect()
}

/// A few hundred of everything that is not made by a registration alone.
async fn network() -> Arc<dyn Store> {
    let store = scratch_store().await;
    for number in 0..150_u8 {
        let name = format!("user-{number}");
        let user = store.users().create(NewUser::local(name.parse().unwrap())).await.unwrap();
        let key = NewPreAuthKey { user: Some(user.id), ..NewPreAuthKey::default() };
        let (key, _) = store.preauth_keys().create(key).await.unwrap();
        let registration = Registration {
            machine_key: MachineKey::from_bytes([number + 1; 32]).unwrap(),
            node_key: NodeKey::from_bytes([number + 1; 32]).unwrap(),
            disco_key: None,
            hostname: format!("machine-{number}").parse().unwrap(),
            host_info: HostInfo::default(),
            admission: Admission::PreAuthKey(key.id),
            expires_at: None,
        };
        let node = store.nodes().register(registration).await.unwrap();
        let session = SessionNumber::new(1).unwrap();
        store.presence().connect(node.id, session, Change::Keep).await.unwrap();
        let prefixes = vec![format!("10.{}.0.0/16", number % 50).parse().unwrap()];
        store.routes().advertise(node.id, prefixes.clone()).await.unwrap();
        store.routes().approve(node.id, prefixes).await.unwrap();
        let point = MetricPoint {
            node: Some(node.id),
            metric: "load".parse().unwrap(),
            at: at(0),
            value: Sample::new(f64::from(number)).unwrap(),
        };
        store.metrics().record(point).await.unwrap();
    }
    store
}
