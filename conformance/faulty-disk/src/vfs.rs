//! The one unsafe part: SQLite's operating system interface (<https://sqlite.org/vfs.html>), put
//! on top of the default one.
//!
//! A file outside every watched directory is the default interface's own. One inside is ours: in
//! the memory that SQLite sets aside for it there is an [`Ours`], and behind that the default
//! interface's file, to which everything is passed on.

#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Once, OnceLock};

use libsql_ffi as ffi;

use crate::plan::{self, Failure, Plan};

/// A file in a watched directory. SQLite sees its first field.
#[repr(C)]
struct Ours {
    base: ffi::sqlite3_file,
    watched: *mut Watched,
}

struct Watched {
    plan: Arc<Plan>,
    file: usize,
    /// The first synchronisation is one of the directory, too.
    syncs_directory: bool,
}

/// Where the default interface's file begins, aligned as memory that SQLite sets aside.
const INNER: usize = size_of::<Ours>().next_multiple_of(8);

/// The interface that was the default before. It is never unregistered and never changed.
struct Default(*mut ffi::sqlite3_vfs);
// SAFETY: SQLite lets every thread call a registered interface, and it stays where it is.
unsafe impl Send for Default {}
// SAFETY: as above.
unsafe impl Sync for Default {}

static DEFAULT: OnceLock<Default> = OnceLock::new();
static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    // Version 3 would let files be read as memory, which is off by default.
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// Makes every connection that is opened from now on go through this crate. Doing so again does
/// nothing. It initialises SQLite; set up what has to come before that first.
///
/// # Panics
/// If SQLite has no default interface, or refuses another one.
pub fn install() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        // SAFETY: both may be called at any time, and only take or give pointers.
        let default = unsafe {
            ffi::sqlite3_initialize();
            ffi::sqlite3_vfs_find(std::ptr::null())
        };
        assert!(!default.is_null(), "SQLite has no default VFS");
        // Before ours can be called.
        let Default(default) = *DEFAULT.get_or_init(|| Default(default));
        // SAFETY: it is not null, so it is a registered interface, which stays valid. Its other
        // methods are taken over with it: those of SQLite's Unix interface do not look at which
        // interface they are called for, and `pAppData` is the same.
        let mut ours = unsafe { *default };
        ours.szOsFile += c_int::try_from(INNER).unwrap_or(0);
        ours.pNext = std::ptr::null_mut();
        ours.zName = c"ghostwire-faulty-disk".as_ptr();
        ours.xOpen = Some(open);
        ours.xDelete = Some(delete);
        // Open files refer to it until the process ends.
        let ours = Box::leak(Box::new(ours));
        // SAFETY: it stays valid for ever, and nobody else changes it.
        let code = unsafe { ffi::sqlite3_vfs_register(ours, 1) };
        assert!(code == ffi::SQLITE_OK, "SQLite refuses the VFS: {code}");
    });
}

fn code_of(failure: Failure) -> c_int {
    match failure {
        Failure::Write => ffi::SQLITE_IOERR_WRITE,
        Failure::Sync => ffi::SQLITE_IOERR_FSYNC,
        Failure::Truncate => ffi::SQLITE_IOERR_TRUNCATE,
        Failure::Full => ffi::SQLITE_FULL,
    }
}

/// A byte count or offset as SQLite gives it; never negative.
fn size(number: impl TryInto<usize>) -> usize {
    number.try_into().unwrap_or(0)
}

/// # Safety
/// `name` is null or ends in a NUL, and lives as long as the result.
unsafe fn path_of<'a>(name: *const c_char) -> Option<&'a Path> {
    if name.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) };
    Some(Path::new(OsStr::from_bytes(name.to_bytes())))
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let Some(&Default(vfs)) = DEFAULT.get() else { return ffi::SQLITE_MISUSE };
    // SAFETY: SQLite gives null or a path that ends in a NUL.
    let path = unsafe { path_of(name) };
    let found = path.and_then(plan::find);
    let Some((plan, below)) = found else {
        // SAFETY: SQLite's own arguments; the memory for the file is larger than is needed.
        return unsafe { (*vfs).xOpen }.map_or(ffi::SQLITE_CANTOPEN, |open| {
            // SAFETY: as above.
            unsafe { open(vfs, name, file, flags, out_flags) }
        });
    };
    // It asks for a file's properties and does not open it: closing it would drop SQLite's locks.
    let existed = path.is_some_and(Path::exists);
    let ours = file.cast::<Ours>();
    // SAFETY: SQLite set `szOsFile` bytes aside, which is `INNER` more than the default needs.
    let inner = unsafe { file.cast::<u8>().add(INNER) }.cast::<ffi::sqlite3_file>();
    // SAFETY: the memory is ours to write; without methods SQLite takes the file for not open.
    unsafe { (*ours).base.pMethods = std::ptr::null() };
    // SAFETY: SQLite's own arguments, and memory of the size that the default asks for.
    let code = unsafe { (*vfs).xOpen }.map_or(ffi::SQLITE_CANTOPEN, |open| {
        // SAFETY: as above.
        unsafe { open(vfs, name, inner, flags, out_flags) }
    });
    if code != ffi::SQLITE_OK {
        // SAFETY: the default has set its methods to null, unless it wants to be closed.
        let methods = unsafe { (*inner).pMethods };
        if !methods.is_null()
            // SAFETY: methods that are not null are valid.
            && let Some(close) = unsafe { (*methods).xClose }
        {
            // SAFETY: a file that has methods may be closed.
            unsafe { close(inner) };
        }
        return code;
    }
    // SAFETY: it was opened just now.
    let content = || unsafe { whole_content(inner) };
    let number = plan.log().opened(&below, existed, content);
    const SYNCS_DIRECTORY: c_int =
        ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL;
    let syncs_directory = flags & SYNCS_DIRECTORY != 0 && flags & ffi::SQLITE_OPEN_CREATE != 0;
    let watched = Box::new(Watched { plan, file: number, syncs_directory });
    // SAFETY: the memory is ours to write. `close` takes the box back.
    unsafe { (*ours).watched = Box::into_raw(watched) };
    // SAFETY: as above.
    unsafe { (*ours).base.pMethods = &METHODS };
    ffi::SQLITE_OK
}

/// # Safety
/// `inner` is an open file of the default interface.
unsafe fn whole_content(inner: *mut ffi::sqlite3_file) -> Vec<u8> {
    let mut length = 0;
    // SAFETY: an open file has methods.
    let methods = unsafe { &*(*inner).pMethods };
    let (Some(file_size), Some(read)) = (methods.xFileSize, methods.xRead) else {
        return Vec::new();
    };
    // SAFETY: the file is open.
    unsafe { file_size(inner, &mut length) };
    let mut content = vec![0; size(length)];
    let mut offset = 0;
    for part in content.chunks_mut(1 << 20) {
        let count = c_int::try_from(part.len()).unwrap_or(0);
        // SAFETY: `part` has room for so many bytes.
        unsafe { read(inner, part.as_mut_ptr().cast(), count, offset) };
        offset += i64::from(count);
    }
    content
}

unsafe extern "C" fn delete(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    sync_directory: c_int,
) -> c_int {
    let Some(&Default(vfs)) = DEFAULT.get() else { return ffi::SQLITE_MISUSE };
    // SAFETY: SQLite gives a path that ends in a NUL.
    let found = unsafe { path_of(name) }.and_then(plan::find);
    if let Some((plan, _)) = &found {
        plan.about_to_change();
    }
    // SAFETY: SQLite's own arguments.
    let code = unsafe { (*vfs).xDelete }.map_or(ffi::SQLITE_IOERR_DELETE, |delete| {
        // SAFETY: as above.
        unsafe { delete(vfs, name, sync_directory) }
    });
    if let Some((plan, below)) = found
        && code == ffi::SQLITE_OK
    {
        plan.log().deleted(&below, sync_directory & 1 != 0 && !plan.ignores_syncs());
    }
    code
}

/// # Safety
/// `file` is one that `open` made ours, and is not closed.
unsafe fn watched<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Watched {
    // SAFETY: `open` put it there. SQLite uses a file on one thread at a time.
    unsafe { &mut *(*file.cast::<Ours>()).watched }
}

/// The default interface's file, and its methods.
///
/// # Safety
/// As `watched`.
unsafe fn inner<'a>(
    file: *mut ffi::sqlite3_file,
) -> (*mut ffi::sqlite3_file, &'a ffi::sqlite3_io_methods) {
    // SAFETY: `open` opened a file there.
    let inner = unsafe { file.cast::<u8>().add(INNER) }.cast::<ffi::sqlite3_file>();
    // SAFETY: an open file has methods, which are constants.
    (inner, unsafe { &*(*inner).pMethods })
}

/// Passes a call on to the default interface's file.
macro_rules! pass_on {
    ($file:ident, $method:ident $(, $argument:expr)*) => {{
        // SAFETY: SQLite calls the methods of a file only while it is open.
        let (inner, methods) = unsafe { inner($file) };
        match methods.$method {
            // SAFETY: SQLite's own arguments.
            Some(method) => unsafe { method(inner $(, $argument)*) },
            None => ffi::SQLITE_IOERR,
        }
    }};
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let code = pass_on!(file, xClose);
    // SAFETY: `open` made it with `Box::into_raw`, and a file is closed once.
    drop(unsafe { Box::from_raw((*file.cast::<Ours>()).watched) });
    code
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    buffer: *mut c_void,
    count: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    pass_on!(file, xRead, buffer, count, offset)
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    buffer: *const c_void,
    count: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite calls the methods of a file only while it is open.
    let watched = unsafe { watched(file) };
    watched.plan.about_to_change();
    let (kept, failure) = watched.plan.write(watched.file, size(offset), size(count));
    let kept = c_int::try_from(kept).unwrap_or(count);
    if kept > 0 {
        let code = pass_on!(file, xWrite, buffer, kept, offset);
        if code != ffi::SQLITE_OK {
            return code;
        }
        // SAFETY: SQLite gives `count` bytes, and `kept` is no more.
        let bytes = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), size(kept)) };
        watched.plan.log().wrote(watched.file, size(offset), bytes);
    }
    failure.map_or(ffi::SQLITE_OK, code_of)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: ffi::sqlite3_int64) -> c_int {
    // SAFETY: SQLite calls the methods of a file only while it is open.
    let watched = unsafe { watched(file) };
    watched.plan.about_to_change();
    if let Some(failure) = watched.plan.truncate(watched.file, size(length)) {
        return code_of(failure);
    }
    let code = pass_on!(file, xTruncate, length);
    if code == ffi::SQLITE_OK {
        watched.plan.log().truncated(watched.file, size(length));
    }
    code
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: SQLite calls the methods of a file only while it is open.
    let watched = unsafe { watched(file) };
    watched.plan.about_to_change();
    match watched.plan.sync() {
        Err(failure) => return code_of(failure),
        Ok(false) => return ffi::SQLITE_OK,
        Ok(true) => {}
    }
    // Nothing of this machine is to survive a loss of power, so nothing waits for its disk.
    let mut log = watched.plan.log();
    log.synced(watched.file);
    if std::mem::take(&mut watched.syncs_directory) {
        log.directory_synced();
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_size(
    file: *mut ffi::sqlite3_file,
    length: *mut ffi::sqlite3_int64,
) -> c_int {
    pass_on!(file, xFileSize, length)
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    pass_on!(file, xLock, level)
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    pass_on!(file, xUnlock, level)
}

unsafe extern "C" fn check_reserved_lock(
    file: *mut ffi::sqlite3_file,
    is_held: *mut c_int,
) -> c_int {
    pass_on!(file, xCheckReservedLock, is_held)
}

unsafe extern "C" fn file_control(
    file: *mut ffi::sqlite3_file,
    operation: c_int,
    argument: *mut c_void,
) -> c_int {
    pass_on!(file, xFileControl, operation, argument)
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    pass_on!(file, xSectorSize)
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    pass_on!(file, xDeviceCharacteristics)
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    bytes: c_int,
    extend: c_int,
    memory: *mut *mut c_void,
) -> c_int {
    pass_on!(file, xShmMap, region, bytes, extend, memory)
}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    pass_on!(file, xShmLock, offset, count, flags)
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    // SAFETY: SQLite calls the methods of a file only while it is open.
    let (inner, methods) = unsafe { inner(file) };
    if let Some(barrier) = methods.xShmBarrier {
        // SAFETY: the file is open.
        unsafe { barrier(inner) };
    }
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    pass_on!(file, xShmUnmap, delete)
}
