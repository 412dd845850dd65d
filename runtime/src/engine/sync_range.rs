//! Makes sled sync what it means to sync.
//!
//! After each write to its file sled waits until that is on disk, before it goes on to write over what the write has made
//! superfluous. On Linux it does so with `sync_file_range`, whose manual warns of just that: neither what the file
//! system keeps about the file nor what lies in the drive's cache is on disk then. After a power cut sled finds
//! new writes lost and what they were to replace written over, and does not open, or opens empty; a sync after its
//! flush comes too late.
//!
//! So the function that sled calls is this one, in place of the C library's. Nothing else in this program calls it.
#![allow(unsafe_code, reason = "another crate's call into C is answered here")]

use crate::planted::{Planted, is_planted};
use rustix::fs::fdatasync;
use std::ffi::{c_int, c_uint};
use std::os::fd::BorrowedFd;

/// As the C library's function of that name, but that everything in the file is on disk when it returns.
///
/// # Safety
/// `fd` is an open file for as long as the call takes.
#[unsafe(no_mangle)]
unsafe extern "C" fn sync_file_range(fd: c_int, _offset: i64, _bytes: i64, _flags: c_uint) -> c_int {
    if is_planted(Planted::EngineWithoutSync) {
        return 0;
    }
    // SAFETY: the caller says so.
    let file = unsafe { BorrowedFd::borrow_raw(fd) };
    // Sled gives up on an error, whichever it is.
    if fdatasync(file).is_ok() { 0 } else { -1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    mod caller {
        use std::ffi::{c_int, c_uint};

        unsafe extern "C" {
            pub(super) fn sync_file_range(fd: c_int, offset: i64, bytes: i64, flags: c_uint) -> c_int;
        }
    }

    #[test]
    fn whoever_calls_by_name_gets_this_one() {
        let ours: unsafe extern "C" fn(c_int, i64, i64, c_uint) -> c_int = sync_file_range;
        let theirs: unsafe extern "C" fn(c_int, i64, i64, c_uint) -> c_int = caller::sync_file_range;
        assert_eq!(ours as usize, theirs as usize);
    }
}
