//! Two slots that are written in turn, so that a torn write leaves the other one.

use crate::error::{Error, Result};
use crate::pin::mark::{Mark, PinKey};

/// The length of a slot, which no disk writes half of a neighbour with.
pub const SLOT: usize = 4096;

/// Both slots, as they were read.
pub type Slots = [[u8; SLOT]; 2];

/// What to do to advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Write these bytes over the slot with this number, and sync.
    Write {
        /// 0 or 1.
        slot: usize,
        /// All of it.
        bytes: [u8; SLOT],
    },
    /// Nothing: the pin is there.
    Done,
}

/// The newest mark in two slots and where it is. A slot of zeros holds none; one that is torn does
/// not count.
///
/// # Errors
/// `Corrupt` if there is something in them, and nothing that is a mark; `OtherPinKey` if there is one by
/// another key, and none by this.
pub fn newest(key: &PinKey, slots: &Slots) -> Result<Option<(usize, Mark)>> {
    let [first, second] = slots.each_ref().map(|slot| read(key, slot));
    match (first, second) {
        (Ok(Some(first)), Ok(Some(second))) => {
            Ok(Some(if first.follows(&second) { (0, first) } else { (1, second) }))
        }
        (Ok(Some(first)), _) => Ok(Some((0, first))),
        (_, Ok(Some(second))) => Ok(Some((1, second))),
        (Ok(None), Ok(None)) => Ok(None),
        (Err(Error::OtherPinKey { mark: first }), Err(Error::OtherPinKey { mark: second })) => {
            let mark = if first.follows(&second) { first } else { second };
            Err(Error::OtherPinKey { mark })
        }
        (Err(error @ Error::OtherPinKey { .. }), _) => Err(error),
        // The first mark ever was torn: nobody was told of the commit that it is of.
        (Err(error), Ok(None)) | (Ok(None) | Err(_), Err(error)) => Err(error),
    }
}

/// Moves the mark from `from` to `to`. Compares with what the slots hold, and goes nowhere but
/// forward.
///
/// # Errors
/// `Fenced` if they hold another mark than `from`; `Invalid` if `to` does not follow it; as
/// [`newest`].
pub fn advance(key: &PinKey, slots: &Slots, from: Option<&Mark>, to: &Mark) -> Result<Step> {
    let newest = newest(key, slots)?;
    let holds = newest.as_ref().map(|(_, mark)| mark);
    if holds == Some(to) {
        return Ok(Step::Done);
    }
    if holds != from {
        let commit = |mark: Option<&Mark>| mark.map(|mark| mark.commit);
        return Err(Error::Fenced { holds: commit(holds), expected: commit(from) });
    }
    if from.is_some_and(|from| !to.follows(from)) {
        return Err(Error::invalid(
            "pin",
            "the mark to advance to does not follow the one to advance from",
        ));
    }
    // Never over the newest: whatever happens while it is written, that stays.
    let slot = newest.map_or(0, |(place, _)| 1 - place);
    Ok(Step::Write { slot, bytes: filled(key, to) })
}

/// The line of a mark and its end, then zeros.
pub(crate) fn filled(key: &PinKey, mark: &Mark) -> [u8; SLOT] {
    let mut bytes = [0; SLOT];
    let line = key.line(mark).into_bytes();
    bytes.iter_mut().zip(line.into_iter().chain([b'\n'])).for_each(|(to, from)| *to = from);
    bytes
}

fn read(key: &PinKey, slot: &[u8; SLOT]) -> Result<Option<Mark>> {
    if slot.iter().all(|&byte| byte == 0) {
        return Ok(None);
    }
    const MISSHAPEN: Error = Error::corrupt("pin", "neither of its slots holds a mark");
    let end = slot.iter().position(|&byte| byte == b'\n').ok_or(MISSHAPEN)?;
    let (line, filling) = slot.split_at_checked(end).ok_or(MISSHAPEN)?;
    if filling.iter().skip(1).any(|&byte| byte != 0) {
        return Err(MISSHAPEN);
    }
    key.parse(std::str::from_utf8(line).map_err(|_| MISSHAPEN)?).map(Some)
}
