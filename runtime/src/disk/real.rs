//! The disk of this machine.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this is the door to the file system"
)]

use super::{Disk, DiskFile, DiskLock};
use rustix::fs::{FallocateFlags, FlockOperation};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The mode of directories: what is in them is the users' data.
const DIRECTORY_MODE: u32 = 0o700;

/// The mode of files.
const FILE_MODE: u32 = 0o600;

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

struct RealFile(File);

/// The lock lives as long as its open file does.
struct RealLock(#[allow(dead_code, reason = "held, never read")] File);

impl Disk for RealDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        std::fs::exists(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths =
            std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(RealLock(file)))
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, bytes) {
            // A file system without it still works; its writes only cost more.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                if self.len()? < bytes {
                    self.0.set_len(bytes)?;
                }
                Ok(())
            }
            other => Ok(other?),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

impl DiskLock for RealLock {}

/// Whether so many more bytes would fit into the file system of `dir`, for this process. False when that cannot be told.
pub fn has_room(dir: &Path, bytes: u64) -> bool {
    room(dir).is_some_and(|room| room >= bytes)
}

/// Whether so many more bytes would not fit. False, too, when that cannot be told.
pub fn lacks_room(dir: &Path, bytes: u64) -> bool {
    room(dir).is_some_and(|room| room < bytes)
}

fn room(dir: &Path) -> Option<u64> {
    let is = rustix::fs::statvfs(dir).ok()?;
    Some(is.f_bavail.saturating_mul(is.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_a_byte_and_not_for_all_there_are() {
        let home = tempfile::tempdir().unwrap();
        assert!(has_room(home.path(), 1));
        assert!(!has_room(home.path(), u64::MAX));
        assert!(lacks_room(home.path(), u64::MAX));
        assert!(!lacks_room(home.path(), 1));
        let nothing = home.path().join("nothing");
        assert!(!has_room(&nothing, 1) && !lacks_room(&nothing, u64::MAX));
    }

    #[test]
    fn files_keep_what_is_written_and_locks_keep_others_out() {
        let home = tempfile::tempdir().unwrap();
        let disk = RealDisk;
        let dir = home.path().join("a/b");
        disk.create_dir_all(&dir).unwrap();
        disk.create_dir_all(&dir).unwrap();

        let file = disk.create(&dir.join("two")).unwrap();
        file.allocate(8192).unwrap();
        assert_eq!(file.len().unwrap(), 8192);
        file.write_at(b"hello", 8190).unwrap();
        file.sync_data().unwrap();
        file.sync_all().unwrap();
        let mut read = [0; 5];
        disk.open(&dir.join("two")).unwrap().read_at(&mut read, 8190).unwrap();
        assert_eq!(&read, b"hello");
        assert_eq!(file.read_at(&mut read, 8191).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(
            disk.create(&dir.join("two")).err().map(|error| error.kind()),
            Some(io::ErrorKind::AlreadyExists)
        );

        disk.rename(&dir.join("two"), &dir.join("one")).unwrap();
        disk.create(&dir.join("three")).unwrap();
        disk.sync_dir(&dir).unwrap();
        assert_eq!(disk.read_dir(&dir).unwrap(), [dir.join("one"), dir.join("three")]);
        disk.remove(&dir.join("three")).unwrap();
        assert!(!disk.exists(&dir.join("three")).unwrap());

        let held = disk.lock(&dir.join("LOCK")).unwrap();
        let refused = disk.lock(&dir.join("LOCK")).err().map(|error| error.kind());
        assert_eq!(refused, Some(io::ErrorKind::WouldBlock));
        drop(held);
        disk.lock(&dir.join("LOCK")).unwrap();
    }
}
