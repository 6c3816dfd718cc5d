//! Which handles are alive. A stale one is refused, as from 1.7.0 on.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

static ALIVE: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

/// Gives a value away as a handle.
pub(crate) fn give<T>(value: T) -> *mut T {
    let handle = Box::into_raw(Box::new(value));
    ALIVE.lock().unwrap_or_else(PoisonError::into_inner).insert(handle as usize);
    handle
}

/// The value of a handle, unless it is none.
///
/// # Safety
/// A handle that is alive was given for a `T`, and nobody else uses it meanwhile.
pub(crate) unsafe fn borrow<'h, T>(handle: *mut T) -> Option<&'h mut T> {
    let is_alive =
        ALIVE.lock().unwrap_or_else(PoisonError::into_inner).contains(&(handle as usize));
    // SAFETY: it is alive, and by this function's own contract.
    is_alive.then(|| unsafe { &mut *handle })
}

/// Takes a value back, unless it is none.
///
/// # Safety
/// As [`borrow`].
pub(crate) unsafe fn take<T>(handle: *mut T) -> Option<Box<T>> {
    let was_alive = ALIVE.lock().unwrap_or_else(PoisonError::into_inner).remove(&(handle as usize));
    // SAFETY: it was given by `give`, and nobody else takes it any more.
    was_alive.then(|| unsafe { Box::from_raw(handle) })
}
