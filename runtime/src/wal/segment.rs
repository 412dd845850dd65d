//! The files of the log: their names, how a new one comes to be, and how an old one goes.
//!
//! A segment gets its final name only once its header is durable, so a file by that name always has a
//! header, and one that does not check out is damage:
//!
//! ```text
//! fresh:     create …new, allocate, write header, sync ─┐
//! recycled:  …free, write header, sync ─────────────────┴─ rename to …wal, sync directory
//! retired:   rename to …free (or remove), sync directory, one at a time from the oldest on
//! ```

use super::error::WalError;
use super::format::SegmentHeader;
use crate::disk::{Disk, DiskFile};
use crate::planted::{Planted, is_planted};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Retired segments kept for recycling: one for the next rotation, one more for a burst.
const FREE_SEGMENTS_MAX: usize = 2;

/// The log's directory.
pub(super) struct Segments {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    free: Vec<PathBuf>,
}

/// An open segment.
#[derive(Clone)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) header: SegmentHeader,
    /// Its size in bytes, all of it writable.
    pub(super) bytes: u64,
}

impl Segments {
    /// Opens the directory, makes it if needed, clears what an interrupted rotation left, and lists the
    /// segments' files by sequence number.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        segment_bytes: u64,
    ) -> Result<(Self, Vec<(u64, PathBuf)>), WalError> {
        if !disk.exists(dir).map_err(WalError::io("look for", dir))? {
            disk.create_dir_all(dir).map_err(WalError::io("create", dir))?;
            let parent = dir.parent().unwrap_or(dir);
            disk.sync_dir(parent).map_err(WalError::io("sync", parent))?;
        }
        let mut found = Vec::new();
        let mut free = Vec::new();
        let mut removed = false;
        for path in disk.read_dir(dir).map_err(WalError::io("list", dir))? {
            let sequence = path.file_stem().and_then(|stem| u64::from_str_radix(stem.to_str()?, 16).ok());
            match (sequence, path.extension().and_then(|extension| extension.to_str())) {
                (Some(sequence), Some("wal")) => found.push((sequence, path)),
                (Some(_), Some("free")) if free.len() < FREE_SEGMENTS_MAX => free.push(path),
                (Some(_), Some("free" | "new")) => {
                    disk.remove(&path).map_err(WalError::io("remove", &path))?;
                    removed = true;
                }
                _ => {}
            }
        }
        if removed {
            // Before the name is used again.
            disk.sync_dir(dir).map_err(WalError::io("sync", dir))?;
        }
        found.sort();
        Ok((Self { disk, dir: dir.to_owned(), segment_bytes, free }, found))
    }

    pub(super) fn open_file(&self, path: &Path) -> Result<Arc<dyn DiskFile>, WalError> {
        self.disk.open(path).map_err(WalError::io("open", path))
    }

    /// Makes a segment that has room for at least `content_bytes` after its header. Durable on return.
    ///
    /// When there is no room, what was begun is taken away again, and the log is as it was before.
    pub(super) fn create(&mut self, header: SegmentHeader, bytes_min: u64) -> Result<Segment, WalError> {
        let bytes = self.segment_bytes.max(bytes_min);
        let path = self.path(header.sequence, "wal");
        let raw = match self.free.pop() {
            Some(free) if bytes == self.segment_bytes => free,
            unused => {
                self.free.extend(unused);
                self.path(header.sequence, "new")
            }
        };
        let file = match self.prepare(&raw, header, bytes) {
            Err(full @ WalError::Full { .. }) => {
                // One that is left behind is removed when the log is opened, and until then only in the way.
                if self.disk.exists(&raw).map_err(WalError::io("look for", &raw))? {
                    self.disk.remove(&raw).map_err(WalError::io("remove", &raw))?;
                }
                return Err(full);
            }
            prepared => prepared?,
        };
        self.disk.rename(&raw, &path).map_err(WalError::io("rename", &raw))?;
        if !is_planted(Planted::SegmentWithoutName) {
            self.sync_dir()?;
        }
        let bytes = file.len().map_err(WalError::io("measure", &path))?;
        Ok(Segment { path, file, header, bytes })
    }

    /// A file that is a segment but for its name.
    fn prepare(&self, raw: &Path, header: SegmentHeader, bytes: u64) -> Result<Arc<dyn DiskFile>, WalError> {
        let file = if raw.extension().is_some_and(|extension| extension == "free") {
            self.open_file(raw)?
        } else {
            self.disk.create(raw).map_err(WalError::room("create", raw))?
        };
        // A recycled file of another size (the setting was changed) is brought to this one.
        file.allocate(bytes).map_err(WalError::room("allocate", raw))?;
        file.write_at(&header.encode(), 0).map_err(WalError::room("write", raw))?;
        // Some file systems look for room only now. Nothing was promised of this file yet.
        file.sync_all().map_err(WalError::room("sync", raw))?;
        Ok(file)
    }

    /// Lets a segment go. Durable on return, so the next older one is never left behind a gap.
    pub(super) fn retire(&mut self, segment: &Segment) -> Result<(), WalError> {
        if self.free.len() < FREE_SEGMENTS_MAX && segment.bytes == self.segment_bytes {
            let free = self.path(segment.header.sequence, "free");
            self.disk.rename(&segment.path, &free).map_err(WalError::io("rename", &segment.path))?;
            self.free.push(free);
        } else {
            self.disk.remove(&segment.path).map_err(WalError::io("remove", &segment.path))?;
        }
        self.sync_dir()
    }

    fn sync_dir(&self) -> Result<(), WalError> {
        self.disk.sync_dir(&self.dir).map_err(WalError::io("sync", &self.dir))
    }

    fn path(&self, sequence: u64, extension: &str) -> PathBuf {
        self.dir.join(format!("{sequence:016x}.{extension}"))
    }
}
