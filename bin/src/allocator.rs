//! The server's allocator, which keeps count of what it gives out: the door to jemalloc.
//!
//! What the system's allocator was asked for it does not say, and what it has is not given back for long. jemalloc counts
//! exactly, gives back within seconds what nobody uses, by a thread of its own, and takes less for the same data.

#![allow(unsafe_code, reason = "jemalloc's figures are asked for in C")]

use std::ffi::{CStr, c_char};
use std::ptr;
use trandb_cluster::memory::Usage;
use trandb_runtime::memory::{Meter, SystemMeter};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What jemalloc reads when it starts: a thread of its own gives pages back that were not used for two seconds (it is
/// ten by default, and whoever allocates does the work).
const OPTIONS: &CStr = c"background_thread:true,dirty_decay_ms:2000,muzzy_decay_ms:0";

/// A C string, as jemalloc looks for it.
#[repr(transparent)]
pub(crate) struct Options(*const c_char);

// SAFETY: what it points to is constant.
unsafe impl Sync for Options {}

/// Found by jemalloc under this name.
// SAFETY: jemalloc declares `const char *_rjem_malloc_conf`, and nothing else has that name.
#[unsafe(export_name = "_rjem_malloc_conf")]
#[used]
pub(crate) static CONFIGURATION: Options = Options(OPTIONS.as_ptr());

/// What jemalloc counts, and what the system says of the process.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct JemallocMeter;

impl Meter for JemallocMeter {
    fn usage(&self) -> Option<Usage> {
        let usage = SystemMeter.usage()?;
        Some(Usage { allocated: allocated(), ..usage })
    }
}

/// Bytes that were asked for and not given back; none should jemalloc refuse to say.
fn allocated() -> Option<u64> {
    // Its figures are as of the last time that this was written.
    let mut epoch = 1_u64;
    // SAFETY: `epoch` is 64 bits wide, read and written here; the length says so.
    let refreshed = unsafe {
        let mut length = size_of::<u64>();
        let place = ptr::from_mut(&mut epoch).cast();
        tikv_jemalloc_sys::mallctl(c"epoch".as_ptr(), place, &mut length, place, size_of::<u64>())
    };
    let mut allocated = 0_usize;
    // SAFETY: `stats.allocated` is a `size_t`, and is only read.
    let read = unsafe {
        let mut length = size_of::<usize>();
        let place = ptr::from_mut(&mut allocated).cast();
        tikv_jemalloc_sys::mallctl(c"stats.allocated".as_ptr(), place, &mut length, ptr::null_mut(), 0)
    };
    (refreshed == 0 && read == 0).then_some(allocated as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_counted_and_given_back() {
        const BYTES: u64 = 256 << 20;
        let usage = || JemallocMeter.usage().expect("tests run on Linux");
        let before = usage();
        let held = vec![1_u8; BYTES as usize];
        let with = usage();
        assert!(with.allocated >= before.allocated.map(|bytes| bytes + BYTES / 2), "{before:?} {with:?}");
        assert!(with.resident >= before.resident + BYTES / 2, "{before:?} {with:?}");
        drop(std::hint::black_box(held));
        assert!(usage().allocated <= with.allocated.map(|bytes| bytes - BYTES / 2), "{with:?} {:?}", usage());
    }

    #[test]
    fn the_options_are_taken() {
        let mut decay_ms = 0_isize;
        // SAFETY: `opt.dirty_decay_ms` is an `ssize_t`, and is only read.
        let read = unsafe {
            let mut length = size_of::<isize>();
            let place = ptr::from_mut(&mut decay_ms).cast();
            tikv_jemalloc_sys::mallctl(c"opt.dirty_decay_ms".as_ptr(), place, &mut length, ptr::null_mut(), 0)
        };
        assert_eq!((read, decay_ms), (0, 2000));
    }
}
