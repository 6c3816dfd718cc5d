//! The one unsafe part: the library is loaded here, and every call of it is made here.
//!
//! What is relied on is what ABI 1.0.0 promises, and no more. A handle is owned by one value of this
//! module, is never null, and goes back to the library exactly once. What the library lends (columns,
//! messages) is lent on by Rust's borrows, which end where the library's do. No handle is used by two
//! threads at once: a statement holds its connection by reference, and a connection is not `Sync`.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_double, c_int, c_void};
use std::fmt;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::ptr::NonNull;
use std::slice;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::codes::MISUSE;
use crate::failure::LoadError;

/// Every function of ABI 1.0.0 as of 1.6.8. They have to be there, also those that nobody calls here:
/// a library that lacks one is not of that ABI.
pub(crate) const REQUIRED: [&str; 49] = [
    "zqlite_open",
    "zqlite_close",
    "zqlite_execute",
    "zqlite_query",
    "zqlite_result_row_count",
    "zqlite_result_column_count",
    "zqlite_result_column_name",
    "zqlite_result_get_type",
    "zqlite_result_get_text",
    "zqlite_result_free",
    "zqlite_free_string",
    "zqlite_prepare",
    "zqlite_bind_int",
    "zqlite_bind_real",
    "zqlite_bind_text",
    "zqlite_bind_null",
    "zqlite_bind_blob",
    "zqlite_bind_int_named",
    "zqlite_bind_real_named",
    "zqlite_bind_text_named",
    "zqlite_bind_null_named",
    "zqlite_bind_blob_named",
    "zqlite_step",
    "zqlite_column_count",
    "zqlite_column_name",
    "zqlite_column_type",
    "zqlite_column_int64",
    "zqlite_column_double",
    "zqlite_column_text",
    "zqlite_column_blob",
    "zqlite_column_bytes",
    "zqlite_reset",
    "zqlite_finalize",
    "zqlite_begin_transaction",
    "zqlite_commit_transaction",
    "zqlite_rollback_transaction",
    "zqlite_errmsg",
    "zqlite_errcode",
    "zqlite_errcategory",
    "zqlite_errsql",
    "zqlite_version",
    "zqlite_abi_version",
    "zqlite_abi_version_major",
    "zqlite_abi_version_minor",
    "zqlite_abi_version_patch",
    "zqlite_pq_available",
    "zqlite_pq_status",
    "zqlite_pq_backend",
    "zqlite_shutdown",
];

/// Those that came with 1.7.0, under the same number.
pub(crate) const LATER: [&str; 2] = ["zqlite_pq_liboqs_status", "zqlite_pq_diagnostics_json"];

/// The functions that are called.
pub(crate) struct Symbols {
    open: unsafe extern "C" fn(*const c_char) -> *mut c_void,
    close: unsafe extern "C" fn(*mut c_void),
    execute: unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int,
    prepare: unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void,
    bind_int: unsafe extern "C" fn(*mut c_void, c_int, i64) -> c_int,
    bind_real: unsafe extern "C" fn(*mut c_void, c_int, c_double) -> c_int,
    bind_text: unsafe extern "C" fn(*mut c_void, c_int, *const c_char) -> c_int,
    bind_null: unsafe extern "C" fn(*mut c_void, c_int) -> c_int,
    bind_blob: unsafe extern "C" fn(*mut c_void, c_int, *const c_void, usize) -> c_int,
    step: unsafe extern "C" fn(*mut c_void) -> c_int,
    column_count: unsafe extern "C" fn(*mut c_void) -> c_int,
    column_name: unsafe extern "C" fn(*mut c_void, c_int) -> *const c_char,
    column_type: unsafe extern "C" fn(*mut c_void, c_int) -> c_int,
    column_int64: unsafe extern "C" fn(*mut c_void, c_int) -> i64,
    column_double: unsafe extern "C" fn(*mut c_void, c_int) -> c_double,
    column_text: unsafe extern "C" fn(*mut c_void, c_int) -> *const c_char,
    column_blob: unsafe extern "C" fn(*mut c_void, c_int) -> *const c_void,
    column_bytes: unsafe extern "C" fn(*mut c_void, c_int) -> usize,
    reset: unsafe extern "C" fn(*mut c_void) -> c_int,
    finalize: unsafe extern "C" fn(*mut c_void) -> c_int,
    begin: unsafe extern "C" fn(*mut c_void) -> c_int,
    commit: unsafe extern "C" fn(*mut c_void) -> c_int,
    rollback: unsafe extern "C" fn(*mut c_void) -> c_int,
    errmsg: unsafe extern "C" fn(*mut c_void) -> *const c_char,
    errcode: unsafe extern "C" fn(*mut c_void) -> c_int,
    errcategory: unsafe extern "C" fn(*mut c_void) -> c_int,
    version: String,
    abi: i32,
    /// Never unloaded: the library may have left threads or handlers behind.
    _library: ManuallyDrop<Library>,
}

impl fmt::Debug for Symbols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Symbols").field("version", &self.version).field("abi", &self.abi).finish()
    }
}

/// One of [`REQUIRED`], as a function of the type that is asked for.
///
/// # Safety
/// `T` is the type of a function pointer, and that function's in ABI 1.0.0.
unsafe fn function<T: Copy>(library: &Library, name: &'static str) -> Result<T, LoadError> {
    // SAFETY: by this function's own contract.
    let found = unsafe { library.get::<Option<T>>(name.as_bytes()) };
    // A symbol may have the address 0, which is no function's.
    found.ok().and_then(|symbol| *symbol).ok_or(LoadError::Missing(name))
}

/// Whether the library has a function of this name, of whatever type.
fn has(library: &Library, name: &str) -> bool {
    // SAFETY: the address is not used, so its type does not matter.
    let found = unsafe { library.get::<*const c_void>(name.as_bytes()) };
    found.is_ok_and(|symbol| !symbol.is_null())
}

impl Symbols {
    /// Loads the library. What changed between versions is only called once the ABI's number is known.
    pub(crate) fn load(path: &Path) -> Result<Self, LoadError> {
        // SAFETY: this runs the library's initialisers, which may do anything. That is the reason why it is
        // only called in a process that has nothing else in it, for a file that was checked.
        let opened = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
        let library =
            ManuallyDrop::new(opened.map_err(|error| LoadError::NotLoaded(error.to_string()))?);
        if !has(&library, "zqlite_open") {
            return Err(LoadError::OtherLibrary);
        }
        if !has(&library, "zqlite_abi_version") {
            return Err(LoadError::BeforeAbi);
        }
        type Number = unsafe extern "C" fn() -> c_int;
        // SAFETY: that is its type since there is such a function.
        let abi_version = unsafe { function::<Number>(&library, "zqlite_abi_version") }?;
        // SAFETY: it takes nothing and gives a number.
        let abi = unsafe { abi_version() };
        if !(10_000..20_000).contains(&abi) {
            return Err(LoadError::OtherAbi(abi));
        }
        if let Some(missing) = REQUIRED.into_iter().find(|name| !has(&library, name)) {
            return Err(LoadError::Missing(missing));
        }
        macro_rules! get {
            ($name:literal) => {
                // SAFETY: the type is that of the field, which is that of ABI 1.x.
                unsafe { function(&library, $name) }?
            };
        }
        type Text = unsafe extern "C" fn() -> *const c_char;
        let version: Text = get!("zqlite_version");
        // SAFETY: it takes nothing. In every version with ABI functions the text ends with NUL.
        let version = unsafe { version() };
        // SAFETY: a static text, as above, or null.
        let version = unsafe { text(version, &()) };
        let version = version.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self {
            open: get!("zqlite_open"),
            close: get!("zqlite_close"),
            execute: get!("zqlite_execute"),
            prepare: get!("zqlite_prepare"),
            bind_int: get!("zqlite_bind_int"),
            bind_real: get!("zqlite_bind_real"),
            bind_text: get!("zqlite_bind_text"),
            bind_null: get!("zqlite_bind_null"),
            bind_blob: get!("zqlite_bind_blob"),
            step: get!("zqlite_step"),
            column_count: get!("zqlite_column_count"),
            column_name: get!("zqlite_column_name"),
            column_type: get!("zqlite_column_type"),
            column_int64: get!("zqlite_column_int64"),
            column_double: get!("zqlite_column_double"),
            column_text: get!("zqlite_column_text"),
            column_blob: get!("zqlite_column_blob"),
            column_bytes: get!("zqlite_column_bytes"),
            reset: get!("zqlite_reset"),
            finalize: get!("zqlite_finalize"),
            begin: get!("zqlite_begin_transaction"),
            commit: get!("zqlite_commit_transaction"),
            rollback: get!("zqlite_rollback_transaction"),
            errmsg: get!("zqlite_errmsg"),
            errcode: get!("zqlite_errcode"),
            errcategory: get!("zqlite_errcategory"),
            version,
            abi,
            _library: library,
        })
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    pub(crate) fn abi(&self) -> i32 {
        self.abi
    }

    /// How many of [`LATER`] there are.
    pub(crate) fn later(&self) -> usize {
        LATER.into_iter().filter(|name| has(&self._library, name)).count()
    }
}

/// A text that lives as long as `_owner` is borrowed; `None` if there is none.
///
/// # Safety
/// `text` is null, or ends with NUL and stays as it is while `_owner` is borrowed.
unsafe fn text<O: ?Sized>(text: *const c_char, _owner: &O) -> Option<&CStr> {
    // SAFETY: by this function's own contract, and checked for null.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
}

/// An open connection.
pub(crate) struct RawConnection<'l> {
    symbols: &'l Symbols,
    handle: NonNull<c_void>,
}

// SAFETY: a connection has no lock, but is not bound to a thread either: what it allocates comes from an
// allocator that is safe to use from all of them. Whoever has it has its statements, too: they borrow it.
unsafe impl Send for RawConnection<'_> {}

impl fmt::Debug for RawConnection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawConnection")
    }
}

impl<'l> RawConnection<'l> {
    /// `None` if it cannot be opened; the library gives no reason.
    pub(crate) fn open(symbols: &'l Symbols, path: &CStr) -> Option<Self> {
        // SAFETY: the path is a text that ends with NUL, and is only read during the call.
        let handle = unsafe { (symbols.open)(path.as_ptr()) };
        NonNull::new(handle).map(|handle| Self { symbols, handle })
    }

    pub(crate) fn execute(&self, sql: &CStr) -> c_int {
        // SAFETY: the handle is open, and the text ends with NUL. The library keeps a pointer to the text for
        // `zqlite_errsql`, which nothing here calls.
        unsafe { (self.symbols.execute)(self.handle.as_ptr(), sql.as_ptr()) }
    }

    pub(crate) fn begin(&self) -> c_int {
        // SAFETY: the handle is open.
        unsafe { (self.symbols.begin)(self.handle.as_ptr()) }
    }

    pub(crate) fn commit(&self) -> c_int {
        // SAFETY: the handle is open.
        unsafe { (self.symbols.commit)(self.handle.as_ptr()) }
    }

    pub(crate) fn rollback(&self) -> c_int {
        // SAFETY: the handle is open.
        unsafe { (self.symbols.rollback)(self.handle.as_ptr()) }
    }

    pub(crate) fn error_code(&self) -> c_int {
        // SAFETY: the handle is open.
        unsafe { (self.symbols.errcode)(self.handle.as_ptr()) }
    }

    pub(crate) fn error_category(&self) -> c_int {
        // SAFETY: the handle is open.
        unsafe { (self.symbols.errcategory)(self.handle.as_ptr()) }
    }

    /// A copy: the library's own lasts until the next call.
    pub(crate) fn error_message(&self) -> String {
        // SAFETY: the handle is open.
        let message = unsafe { (self.symbols.errmsg)(self.handle.as_ptr()) };
        // SAFETY: it lasts until the next call on this connection, which has to wait for this borrow.
        let message = unsafe { text(message, self) };
        message.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// `None` if it cannot be prepared; then there is an error code.
    pub(crate) fn prepare(&self, sql: &CStr) -> Option<RawStatement<'_>> {
        // SAFETY: as in `execute`.
        let handle = unsafe { (self.symbols.prepare)(self.handle.as_ptr(), sql.as_ptr()) };
        NonNull::new(handle).map(|handle| RawStatement { connection: self, handle })
    }
}

impl Drop for RawConnection<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle is open, and its statements are gone: they borrow what is dropped here.
        unsafe { (self.symbols.close)(self.handle.as_ptr()) }
    }
}

/// A prepared statement. The reference to its connection keeps that open, and both on one thread.
pub(crate) struct RawStatement<'c> {
    connection: &'c RawConnection<'c>,
    handle: NonNull<c_void>,
}

/// Longer than any value that was ever stored: a length beyond it is a fault of the library's.
const MAX_COLUMN: usize = 64 << 20;

impl RawStatement<'_> {
    fn symbols(&self) -> &Symbols {
        self.connection.symbols
    }

    pub(crate) fn bind_int(&mut self, index: c_int, value: i64) -> c_int {
        // SAFETY: the statement is alive.
        unsafe { (self.symbols().bind_int)(self.handle.as_ptr(), index, value) }
    }

    pub(crate) fn bind_real(&mut self, index: c_int, value: f64) -> c_int {
        // SAFETY: the statement is alive.
        unsafe { (self.symbols().bind_real)(self.handle.as_ptr(), index, value) }
    }

    pub(crate) fn bind_text(&mut self, index: c_int, value: &CStr) -> c_int {
        // SAFETY: the statement is alive; the text ends with NUL and is copied during the call.
        unsafe { (self.symbols().bind_text)(self.handle.as_ptr(), index, value.as_ptr()) }
    }

    pub(crate) fn bind_null(&mut self, index: c_int) -> c_int {
        // SAFETY: the statement is alive.
        unsafe { (self.symbols().bind_null)(self.handle.as_ptr(), index) }
    }

    pub(crate) fn bind_blob(&mut self, index: c_int, value: &[u8]) -> c_int {
        let (pointer, length) = (value.as_ptr().cast(), value.len());
        // SAFETY: the statement is alive; so many bytes are there, and are copied during the call.
        unsafe { (self.symbols().bind_blob)(self.handle.as_ptr(), index, pointer, length) }
    }

    pub(crate) fn step(&mut self) -> c_int {
        // SAFETY: the statement is alive, and no column is borrowed: that would borrow `self`.
        unsafe { (self.symbols().step)(self.handle.as_ptr()) }
    }

    pub(crate) fn reset(&mut self) -> c_int {
        // SAFETY: as in `step`.
        unsafe { (self.symbols().reset)(self.handle.as_ptr()) }
    }

    pub(crate) fn column_count(&self) -> c_int {
        // SAFETY: the statement is alive.
        unsafe { (self.symbols().column_count)(self.handle.as_ptr()) }
    }

    /// Exclusive: asking for a name ends what was lent of texts.
    pub(crate) fn column_name(&mut self, column: c_int) -> Option<&CStr> {
        // SAFETY: the statement is alive.
        let name = unsafe { (self.symbols().column_name)(self.handle.as_ptr(), column) };
        // SAFETY: it lasts until the statement is used for something else, which needs it exclusively.
        unsafe { text(name, self) }
    }

    pub(crate) fn column_type(&self, column: c_int) -> c_int {
        // SAFETY: the statement is alive.
        unsafe { (self.symbols().column_type)(self.handle.as_ptr(), column) }
    }

    pub(crate) fn column_int64(&self, column: c_int) -> i64 {
        // SAFETY: the statement is alive.
        unsafe { (self.symbols().column_int64)(self.handle.as_ptr(), column) }
    }

    pub(crate) fn column_double(&self, column: c_int) -> f64 {
        // SAFETY: the statement is alive.
        unsafe { (self.symbols().column_double)(self.handle.as_ptr(), column) }
    }

    /// Exclusive: the library may have one place for the text that it lends.
    pub(crate) fn column_text(&mut self, column: c_int) -> Option<&CStr> {
        // SAFETY: the statement is alive.
        let lent = unsafe { (self.symbols().column_text)(self.handle.as_ptr(), column) };
        // SAFETY: lent until the next text, name, step, reset, bind or the end, all of which need `self`
        // exclusively.
        unsafe { text(lent, self) }
    }

    /// Of a column of type blob. `Err` with a code if the library says something that cannot be.
    pub(crate) fn column_blob(&self, column: c_int) -> Result<&[u8], c_int> {
        // SAFETY: the statement is alive.
        let length = unsafe { (self.symbols().column_bytes)(self.handle.as_ptr(), column) };
        // SAFETY: the statement is alive.
        let lent = unsafe { (self.symbols().column_blob)(self.handle.as_ptr(), column) };
        if length == 0 {
            return Ok(&[]);
        }
        if lent.is_null() || length > MAX_COLUMN {
            return Err(MISUSE);
        }
        // SAFETY: so many bytes are lent until the next step, reset, bind or the end, all of which need `self`
        // exclusively; the length is less than what a slice may have.
        Ok(unsafe { slice::from_raw_parts(lent.cast(), length) })
    }
}

impl Drop for RawStatement<'_> {
    fn drop(&mut self) {
        // SAFETY: the statement is alive, and is not used after this.
        unsafe { (self.symbols().finalize)(self.handle.as_ptr()) };
    }
}

/// Closes every file but the three standard ones: some that a parent has open may have been inherited. Call
/// it before this process opens any.
pub(crate) fn close_inherited() -> std::io::Result<()> {
    unsafe extern "C" {
        fn syscall(number: std::ffi::c_long, ...) -> std::ffi::c_long;
    }
    // The same on every machine; in Linux from 5.9 on. Not each C library has a function for it.
    const CLOSE_RANGE: std::ffi::c_long = 436;
    let (first, last, flags): (std::ffi::c_uint, _, std::ffi::c_uint) =
        (3, std::ffi::c_uint::MAX, 0);
    // SAFETY: those are the call's arguments, and it reads no memory. No value of this process owns one of
    // these files, as none was opened yet.
    match unsafe { syscall(CLOSE_RANGE, first, last, flags) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Lets a write beyond the limit for files fail instead of ending the process.
pub(crate) fn ignore_file_limit_signal() {
    unsafe extern "C" {
        fn signal(number: c_int, handler: usize) -> usize;
    }
    const SIGXFSZ: c_int = 25;
    const SIG_IGN: usize = 1;
    // SAFETY: that is the C library's function on Linux; ignoring a signal runs no code of ours.
    unsafe { signal(SIGXFSZ, SIG_IGN) };
}
