//! Whether damage to a file is noticed.

use std::fs;
use std::path::{Path, PathBuf};

use ghostwire_store::config::Config;
use ghostwire_store::domain::ManualClock;
use ghostwire_store::{Error, ErrorKind, Result};
use ghostwire_store_core::digest::Digests;
use ghostwire_store_sqlite::{LOCK_FILE, RESERVE_FILE, files_of, with_suffix};
use serde::Serialize;

use super::disk::failed;
use super::stores;

/// Bytes that are flipped in each file, one at a time.
const FLIPS: usize = 12;

/// How flipped bytes came out.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Flips {
    /// How many were tried.
    pub(super) tried: usize,
    /// Opening, verifying or reading the store failed.
    pub(super) detected: usize,
    /// Everything is there as it was: the byte was in unused space.
    pub(super) harmless: usize,
}

/// What a copy of a store with one flipped byte turned out to be.
enum Outcome {
    Detected(Error),
    Harmless,
    /// It opened, verified, and holds something else.
    Different,
}

/// A closed store whose copies are damaged.
pub(super) struct Victim<'a> {
    /// How the closed store is opened.
    pub(super) config: &'a Config,
    pub(super) path: &'a Path,
    pub(super) hash_key: &'a Path,
    pub(super) clock: &'a ManualClock,
    /// What it holds.
    pub(super) expected: Digests,
}

impl Victim<'_> {
    /// Flips bytes spread over the file, each in a fresh copy.
    ///
    /// # Errors
    /// `Corrupt` if one of them silently changed what the store holds, or if none was noticed.
    pub(super) async fn flip_bytes(&self, seed: u64) -> Result<Flips> {
        let content = self.read()?;
        let mut flips = Flips::default();
        let part = content.len() / FLIPS;
        for number in 0..FLIPS {
            // Not always the same place in a page.
            let within = (seed as usize).wrapping_add(number * 2_654_435_761) % part.max(1);
            let at = number * part + within;
            flips.tried += 1;
            let bits = [0x01, 0x80, 0x10, 0x40].into_iter().nth(number % 4).unwrap_or(0x01);
            match self.flip_byte(&content, at, bits).await? {
                Outcome::Detected(_) => flips.detected += 1,
                Outcome::Harmless => flips.harmless += 1,
                Outcome::Different => {
                    return Err(Error::corrupt("a flipped byte silently changed what is stored")
                        .with("store", self.config.backend.kind().name())
                        .with("offset", at));
                }
            }
        }
        if flips.detected == 0 {
            return Err(Error::corrupt("none of the flipped bytes was noticed")
                .with("store", self.config.backend.kind().name())
                .with("tried", flips.tried));
        }
        Ok(flips)
    }

    /// Flips a byte of the file itself, in the row that holds `mark`. Gives its offset.
    ///
    /// The file also has copies of rows that moved, in space that is free now, where damage is
    /// harmless and proves nothing, and the blocks that the row came from. Each place is tried on a
    /// copy first.
    pub(super) async fn corrupt_row(&self, mark: &[u8]) -> Result<usize> {
        let mut content = self.read()?;
        let places = content.windows(mark.len()).enumerate().filter(|(_, bytes)| *bytes == mark);
        let mut places: Vec<_> = places.map(|(at, _)| at + mark.len() / 2).collect();
        if places.is_empty() {
            // A sealed file does not show where anything is. The first page is SQLite's own.
            places.extend((4096..content.len()).step_by(1009));
        }
        for at in places {
            let is_row = match self.flip_byte(&content, at, 0x01).await? {
                Outcome::Harmless => false,
                Outcome::Detected(error) => !is_about_block(&error),
                Outcome::Different => true,
            };
            if is_row {
                flip(&mut content, at, 0x01);
                fs::write(self.path, &content).map_err(|error| failed(self.path, error))?;
                return Ok(at);
            }
        }
        Err(Error::new(ErrorKind::NotFound, "no live row to corrupt was found in the file")
            .with("path", self.path.display()))
    }

    fn read(&self) -> Result<Vec<u8>> {
        fs::read(self.path).map_err(|error| failed(self.path, error))
    }

    async fn flip_byte(&self, content: &[u8], at: usize, bits: u8) -> Result<Outcome> {
        let copy = self.copy_path();
        remove(&copy);
        let mut damaged = content.to_vec();
        flip(&mut damaged, at, bits);
        fs::write(&copy, damaged).map_err(|error| failed(&copy, error))?;
        let outcome = self.examine(&copy).await;
        remove(&copy);
        Ok(outcome)
    }

    fn copy_path(&self) -> PathBuf {
        let extension = self.path.extension().unwrap_or_default();
        self.path.with_file_name("flipped").with_extension(extension)
    }

    async fn examine(&self, copy: &Path) -> Outcome {
        let config = with_path(self.config, copy, self.hash_key);
        let store = match stores::open(&config, false, self.clock, 0).await {
            Ok(store) => store,
            Err(error) => return Outcome::Detected(error),
        };
        let digests = match store.verify().await {
            Ok(()) => store.digests().await,
            Err(error) => Err(error),
        };
        let _ = store.close().await;
        match digests {
            Err(error) => Outcome::Detected(error),
            Ok(digests) if digests == self.expected => Outcome::Harmless,
            Ok(_) => Outcome::Different,
        }
    }
}

fn with_path(config: &Config, path: &Path, hash_key: &Path) -> Config {
    stores::Environment::of(config.clone()).config(config.backend.kind(), path.to_owned(), hash_key)
}

fn flip(content: &mut [u8], at: usize, bits: u8) {
    if let Some(byte) = content.get_mut(at) {
        *byte ^= bits;
    }
}

/// Whether the damage was found in a block rather than in a row.
fn is_about_block(error: &Error) -> bool {
    let mut texts = error.context().iter().map(|(_, value)| value.as_str());
    error.message().contains("block") || texts.any(|text| text == "block")
}

fn remove(store: &Path) {
    for path in files_of(store).chain([LOCK_FILE, RESERVE_FILE].map(|end| with_suffix(store, end)))
    {
        let _ = fs::remove_file(path);
    }
}
