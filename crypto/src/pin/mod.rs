//! Pins: a mark outside of the store that says how far it has come, so that an older copy of it is
//! noticed.
//!
//! [`Mark`] is the mark and its line of text; [`advance`] moves it within two slots; [`decide`]
//! compares it with a store that is opened. Those do nothing but compute. [`FilePin`] and
//! [`CommandPin`] keep marks.

mod command;
mod decide;
mod file;
mod mark;
mod slots;

use crate::error::Result;

pub use command::{Answer, CommandPin, Request};
pub use decide::{Anchor, Signers, Standing, Verdict, decide};
pub use file::FilePin;
pub use mark::{Mark, PinKey};
pub use slots::{SLOT, Slots, Step, advance, newest};

/// Where a mark is kept.
pub trait Pin: Send {
    /// The mark; `None` if there was never one.
    ///
    /// # Errors
    /// `PinUnavailable` or `Io` if it cannot be asked; `Corrupt` if what it holds is no mark;
    /// `OtherPinKey` if it is one by another key.
    fn read(&mut self) -> Result<Option<Mark>>;

    /// Moves the mark, if it still is `from`, to one that follows it; durable when this returns.
    ///
    /// # Errors
    /// `Fenced` if it is another one: the store then must answer nothing any more. Otherwise as
    /// [`Pin::read`]; the mark then is one of both.
    fn advance(&mut self, from: Option<&Mark>, to: &Mark) -> Result<()>;

    /// Gives up whatever mark it holds, also one by another key, for this one; durable when this returns. For
    /// whom somebody told to.
    ///
    /// # Errors
    /// As [`Pin::read`]; it then holds one of both.
    fn replace(&mut self, to: &Mark) -> Result<()>;

    /// Reads and writes marks by this key from now on. The mark stays as it is.
    fn rekey(&mut self, key: PinKey);
}

#[cfg(test)]
mod tests;
