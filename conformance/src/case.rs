//! What is run: cases, and checks that take longer.

use std::pin::Pin;
use std::sync::Arc;

use crate::factory::Factory;
use crate::suite::Effort;
use crate::world::World;

/// How a case ended, unless it panicked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everything was as it has to be.
    Passed,
    /// The backend cannot do what this is about; the file of exceptions has to say so.
    Skipped(&'static str),
}

impl From<()> for Verdict {
    fn from((): ()) -> Self {
        Self::Passed
    }
}

pub(crate) type Judged<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// A short proof of one line of the contract. It fails by panicking.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    /// The line.
    pub(crate) rule: &'static str,
    /// What is shown of it.
    pub(crate) name: &'static str,
    /// Whether it is about what is stored: then it runs in every mode, and has to pass through
    /// [`World::pass`].
    pub(crate) stored: bool,
    pub(crate) run: fn(&mut World) -> Judged<'_>,
}

/// A longer proof, which makes its own places. It runs once for each backend.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Check {
    pub(crate) rule: &'static str,
    pub(crate) name: &'static str,
    pub(crate) run: fn(Arc<dyn Factory>, Effort) -> Judged<'static>,
}

/// Declares the `CASES` of a module. Those that are `stored` run in every mode, and call
/// [`World::pass`] between what they do and what they check; the others run once.
macro_rules! cases {
    ($($kind:ident { $($rule:literal => [$($name:ident),* $(,)?]),* $(,)? })*) => {
        pub(in $crate::cases) const CASES: &[$crate::case::Case] = &[
            $($($($crate::case::Case {
                rule: $rule,
                name: stringify!($name),
                stored: cases!(@ $kind),
                run: |world| Box::pin(async move { $name(world).await.into() }),
            },)*)*)*
        ];
    };
    (@ stored) => { true };
    (@ once) => { false };
}
pub(crate) use cases;
