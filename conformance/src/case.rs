//! What is run: cases, and checks that take longer.

use crate::prelude::*;
use std::pin::Pin;

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

/// What a panic said.
pub(crate) fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let message = panic.downcast_ref::<String>().cloned();
    let message = message.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
    message.unwrap_or_else(|| "panicked without a message".to_owned())
}

pub(crate) type CaseFuture<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// A short proof of one line of the contract. It fails by panicking.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    /// The line.
    pub(crate) rule: &'static str,
    /// What is shown of it.
    pub(crate) name: &'static str,
    /// Whether it is about what is stored: then it runs in every mode, and has to go through
    /// [`TestEnv::reload`].
    pub(crate) stored: bool,
    pub(crate) run: fn(&mut TestEnv) -> CaseFuture<'_>,
}

/// A longer proof, which makes its own places. It runs once for each backend.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Check {
    pub(crate) rule: &'static str,
    pub(crate) name: &'static str,
    pub(crate) run: fn(Arc<dyn Factory>, Effort) -> CaseFuture<'static>,
}

/// Declares the `CASES` of a module. Those that are `stored` run in every mode, and call
/// [`TestEnv::reload`] between what they do and what they check; those that run `once` do not. A
/// case is given an open store, an open backend, or, if it opens one itself, neither.
macro_rules! cases {
    ($($kind:ident { $($rule:literal => [$($name:ident),* $(,)?]),* $(,)? })*) => {
        pub(in $crate::cases) const CASES: &[$crate::case::Case] = &[
            $($($($crate::case::Case {
                rule: $rule,
                name: stringify!($name),
                stored: cases!(@stored $kind),
                run: |env| Box::pin(async move { cases!(@run $kind $name env) }),
            },)*)*)*
        ];
    };
    (@stored stored) => { true };
    (@stored stored_backend) => { true };
    (@stored stored_unopened) => { true };
    (@stored $once:ident) => { false };
    (@run stored $name:ident $env:ident) => {{
        let store = $env.open().await;
        $name($env, store).await.into()
    }};
    (@run once $name:ident $env:ident) => { cases!(@run stored $name $env) };
    (@run stored_backend $name:ident $env:ident) => {{
        let backend = $env.open_backend().await;
        $name($env, backend).await.into()
    }};
    (@run once_backend $name:ident $env:ident) => { cases!(@run stored_backend $name $env) };
    (@run $unopened:ident $name:ident $env:ident) => { $name($env).await.into() };
}
pub(crate) use cases;

/// Declares a check that is a function of a factory and an effort. More arguments of it may follow.
macro_rules! check {
    ($rule:literal, $name:ident, $run:expr $(, $more:expr)*) => {
        $crate::case::Check {
            rule: $rule,
            name: stringify!($name),
            run: |factory, effort| Box::pin($run(factory, effort $(, $more)*)),
        }
    };
    ($rule:literal, $module:ident :: $name:ident) => {
        check!($rule, $name, $module::$name)
    };
}
pub(crate) use check;
