//! Makes SQLite report a failed read as an I/O error.
//!
//! When a read fails with EIO, ENXIO or ERANGE, SQLite returns SQLITE_CORRUPT (in its source: SQLITE_IOERR_CORRUPTFS),
//! as if it had read wrong bytes. The store repeats what an I/O error has prevented, but gives up on a corrupt file, so
//! the two must differ. For any other errno, SQLite returns SQLITE_IOERR.

use std::ffi::{CStr, c_int, c_void};
use std::sync::Once;

use rusqlite::ffi;

/// The system call as SQLite knows it; it has no signature.
type SystemCall = unsafe extern "C" fn();
type Read = unsafe extern "C" fn(c_int, *mut c_void, libc::size_t, libc::off_t) -> libc::ssize_t;

/// SQLite reads files with this system call only.
const SYSTEM_CALL: &CStr = c"pread";

/// Must be called before a file is opened.
pub(super) fn report_as_io_errors() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(install);
}

#[expect(unsafe_code, reason = "rusqlite has no interface to the system calls of SQLite")]
fn install() {
    // SAFETY: SQLite owns its VFS and never frees it. It calls `read` with the signature of pread(2).
    unsafe {
        let vfs = ffi::sqlite3_vfs_find(std::ptr::null());
        if let Some(set) = vfs.as_ref().and_then(|vfs| vfs.xSetSystemCall) {
            let replacement = std::mem::transmute::<Read, SystemCall>(read);
            set(vfs, SYSTEM_CALL.as_ptr(), Some(replacement));
        }
    }
}

#[expect(unsafe_code, reason = "called by SQLite in place of pread(2)")]
unsafe extern "C" fn read(file: c_int, buffer: *mut c_void, length: libc::size_t, at: libc::off_t) -> libc::ssize_t {
    // SAFETY: SQLite passes a buffer of `length` bytes.
    unsafe {
        let got = libc::pread(file, buffer, length, at);
        let errno = libc::__errno_location();
        if got < 0 && matches!(*errno, libc::EIO | libc::ENXIO | libc::ERANGE) {
            *errno = libc::EREMOTEIO;
        }
        got
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "asks SQLite for its system call")]
    fn sqlite_reads_with_the_replacement() {
        report_as_io_errors();
        // SAFETY: as in `install`.
        let installed = unsafe {
            let vfs = ffi::sqlite3_vfs_find(std::ptr::null());
            (*vfs).xGetSystemCall.unwrap()(vfs, SYSTEM_CALL.as_ptr())
        };
        assert_eq!(installed.map(|call| call as usize), Some(read as *const () as usize));
    }

    #[test]
    #[expect(unsafe_code, reason = "calls the replacement")]
    fn a_failed_read_is_not_taken_for_corruption() {
        // Nothing is mapped at address 0, so the kernel reports EIO.
        let unreadable = std::fs::File::open("/proc/self/mem").unwrap();
        let mut buffer = [0_u8; 8];
        // SAFETY: the buffer has this length.
        let got = unsafe { read(unreadable.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        assert_eq!((got, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EREMOTEIO)));
    }
}
