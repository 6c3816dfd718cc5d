//! Random choices that a seed repeats.

use ghostwire_store_core::entropy::{Entropy, SeededEntropy};

/// Equal seeds give equal choices.
#[derive(Debug)]
pub(crate) struct Rng(SeededEntropy);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SeededEntropy::new(seed))
    }

    pub(crate) fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill(&mut bytes).expect("a seeded sequence does not end");
        bytes
    }

    pub(crate) fn number(&self) -> u64 {
        u64::from_be_bytes(self.bytes())
    }

    /// One of the numbers below `bound`; 0 if there is none.
    pub(crate) fn below(&self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("a length").max(1);
        usize::try_from(self.number() % bound).expect("less than a length")
    }

    /// Once in `times`.
    pub(crate) fn one_in(&self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of these, unless there are none.
    pub(crate) fn choose<'a, T>(&self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }
}
