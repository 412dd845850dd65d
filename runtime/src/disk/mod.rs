//! The disk door.
//!
//! Everything that TranDB keeps goes through [`Disk`], so that the simulation can lose what was not
//! synced. Calls are synchronous: production makes them from dedicated threads, the simulation inline.
//!
//! What a caller may rely on after a power loss is POSIX at its strictest, which is what [`SimDisk`] plays:
//!
//! - a write is durable once `sync_data` on its file returned; before, any of its sectors may be there;
//! - a name (created, renamed, removed) is durable once `sync_dir` on its directory returned; before, any
//!   of the changes may have happened, but each wholly or not at all.
//!
//! The one exception is the sled engine, which opens its files itself.

mod real;
mod sim;
mod sim_content;
mod sim_mishaps;
#[cfg(test)]
mod sim_tests;

pub use real::{RealDisk, has_room, lacks_room};
pub use sim::SimDisk;
pub use sim_mishaps::{Call, Full};

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file system.
pub trait Disk: Send + Sync + 'static {
    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` when it does not exist.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates an empty file, readable by its owner only, and opens it for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists` when there is one by that name.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Whether anything by that name exists.
    ///
    /// # Errors
    /// When that cannot be told.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// The paths of everything directly in a directory, in order of name.
    ///
    /// # Errors
    /// `NotFound` when it does not exist.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>>;

    /// Creates a directory that only its owner may enter (0700), and those above it that are missing; one
    /// that exists is left as it is.
    ///
    /// # Errors
    /// When a name on the way is taken by a file, or may not be created.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Gives a file another name, atomically, replacing what had it.
    ///
    /// # Errors
    /// `NotFound` when there is no such file.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// `NotFound` when there is no such file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes all changes of names in a directory durable.
    ///
    /// # Errors
    /// After an error nothing is known about what is durable, and a second try proves nothing.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes a lock that keeps every other opener out until it is dropped or its process ends, and creates
    /// the file when it is missing.
    ///
    /// # Errors
    /// `WouldBlock` when another holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;
}

/// An open file. Offsets and lengths are in bytes.
pub trait DiskFile: Send + Sync {
    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before the buffer does.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `data` at `offset`, growing the file as needed. Not durable before a sync.
    ///
    /// # Errors
    /// Any part of it may have been written.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;

    /// How long the file is.
    ///
    /// # Errors
    /// When that cannot be told.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// When that cannot be told.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file or fills it with zeros up to a length.
    ///
    /// # Errors
    /// When the file system refuses.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Reserves room for the first `bytes` bytes and makes the file at least that long, so that later writes
    /// in it need no new space. What was there stays; what was not reads as zeros.
    ///
    /// # Errors
    /// When there is no room.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Makes the file's data and its length durable.
    ///
    /// # Errors
    /// After an error nothing is known about what is durable, and a second try proves nothing.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes the file's data and all that is kept about the file durable, its name not included.
    ///
    /// # Errors
    /// As [`DiskFile::sync_data`].
    fn sync_all(&self) -> io::Result<()>;
}

/// A lock that is held while this exists.
pub trait DiskLock: Send + Sync {}
