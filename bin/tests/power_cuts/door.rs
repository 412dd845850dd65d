//! A disk door and a storage engine that write down what they are asked for.

use crate::recording::{Clock, FileId, Recording, Step, What};
use bytes::Bytes;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use trandb_client::{PartitionId, Timestamp};
use trandb_cluster::EncodedKey;
use trandb_cluster::mvcc::StoredVersion;
use trandb_runtime::disk::{Disk, DiskFile, DiskLock, SimDisk};
use trandb_runtime::engine::{Engine, EngineError, MemoryEngine};

/// What a sync takes: as long as on a good disk, so that the log gathers batches meanwhile.
const SYNC: Duration = Duration::from_micros(200);

/// A recording that several doors write to.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Recording>>);

impl Recorder {
    /// The point that the recording is at.
    pub(crate) fn now(&self) -> Clock {
        self.lock().now()
    }

    /// What was recorded.
    pub(crate) fn take(&self) -> Recording {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Recording> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// Something that takes some time; an error says that the recording ends with it.
    fn event<T, E>(&self, what: What, act: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let event = self.lock().begin(what);
        let done = act();
        if done.is_ok() {
            self.lock().end(event);
        }
        done
    }
}

/// A disk in memory, recorded.
pub(crate) struct RecordingDisk {
    disk: SimDisk,
    recorder: Recorder,
}

struct RecordingFile {
    file: Arc<dyn DiskFile>,
    id: FileId,
    recorder: Recorder,
}

impl RecordingDisk {
    pub(crate) fn new(recorder: Recorder) -> Self {
        Self { disk: SimDisk::volatile(), recorder }
    }
}

impl Disk for RecordingDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path)?;
        let id = self.recorder.lock().file(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(RecordingFile { file, id, recorder: self.recorder.clone() }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let id = self.recorder.lock().name(path);
        let file = self.recorder.event(What::Create(id, path.to_owned()), || self.disk.create(path))?;
        Ok(Arc::new(RecordingFile { file, id, recorder: self.recorder.clone() }))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.read_dir(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        if self.disk.exists(path)? {
            return Ok(());
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            self.create_dir_all(parent)?;
        }
        self.recorder.event(What::MakeDir(path.to_owned()), || self.disk.create_dir_all(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let what = What::Rename(from.to_owned(), to.to_owned());
        self.recorder.event(what, || self.disk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.recorder.event(What::Remove(path.to_owned()), || self.disk.remove(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.recorder.event(What::SyncDir(path.to_owned()), || self.disk.sync_dir(path))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.disk.lock(path)
    }
}

impl DiskFile for RecordingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let what = What::Write { file: self.id, offset, data: Bytes::copy_from_slice(data) };
        self.recorder.event(what, || self.file.write_at(data, offset))
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.recorder.event(What::Length { file: self.id, bytes }, || self.file.set_len(bytes))
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.recorder.event(What::Allocate { file: self.id, bytes }, || self.file.allocate(bytes))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.recorder.event(What::Sync(self.id), || {
            std::thread::sleep(SYNC);
            self.file.sync_data()
        })
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// An engine in memory, recorded.
pub(crate) struct RecordingEngine {
    pub(crate) engine: MemoryEngine,
    pub(crate) recorder: Recorder,
}

impl RecordingEngine {
    fn event(
        &self,
        partition: PartitionId,
        step: Step,
        act: impl FnOnce() -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        self.recorder.event(What::Engine(partition, step), act)
    }
}

impl Engine for RecordingEngine {
    fn partitions(&self) -> Result<Vec<PartitionId>, EngineError> {
        self.engine.partitions()
    }

    fn meta(&self, partition: PartitionId) -> Result<Option<Bytes>, EngineError> {
        self.engine.meta(partition)
    }

    fn load(&self, partition: PartitionId, sink: &mut dyn FnMut(StoredVersion)) -> Result<(), EngineError> {
        self.engine.load(partition, sink)
    }

    fn put(&self, partition: PartitionId, versions: &[StoredVersion]) -> Result<(), EngineError> {
        self.event(partition, Step::Put(versions.to_vec()), || self.engine.put(partition, versions))
    }

    fn commit(&self, partition: PartitionId, meta: &[u8]) -> Result<(), EngineError> {
        let step = Step::Commit(Bytes::copy_from_slice(meta));
        self.event(partition, step, || {
            std::thread::sleep(SYNC);
            self.engine.commit(partition, meta)
        })
    }

    fn remove(
        &self,
        partition: PartitionId,
        versions: &[(EncodedKey, Timestamp)],
    ) -> Result<(), EngineError> {
        let step = Step::Remove(versions.to_vec());
        self.event(partition, step, || self.engine.remove(partition, versions))
    }

    fn drop_partition(&self, partition: PartitionId) -> Result<(), EngineError> {
        self.event(partition, Step::Drop, || self.engine.drop_partition(partition))
    }
}
