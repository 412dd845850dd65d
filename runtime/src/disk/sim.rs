//! A disk in memory that loses what was not synced.
//!
//! Every file has a live half, which reads and writes see, and a durable half, which is what a sync has
//! covered, with the writes in between listed in order. [`SimDisk::crash`] rebuilds the live half from the
//! durable one and a random part of that list: each write is kept, lost, or torn into sectors. Names work
//! the same way per directory. All choices come from the seed given, so the same run loses the same bytes.

use super::sim_content::{Content, SplitMix, Write};
use super::sim_mishaps::{Call, Full, Mishaps, failed};
use super::{Disk, DiskFile, DiskLock};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// A simulated disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Default)]
struct State {
    /// False for a disk that never crashes, which then keeps only one half.
    durable: bool,
    /// Grows with every crash; handles of an earlier boot are dead.
    boot: u64,
    mishaps: Mishaps,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    live: BTreeMap<PathBuf, Node>,
    kept: BTreeMap<PathBuf, Node>,
    changes: Vec<NameChange>,
    locks: BTreeSet<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Node {
    Directory,
    File(u64),
}

#[derive(Clone)]
enum NameChange {
    Link(PathBuf, Node),
    /// Of this file only: should an earlier change be lost, another one may have the old name.
    Rename(PathBuf, PathBuf, Node),
    Unlink(PathBuf),
}

#[derive(Clone, Default)]
struct Inode {
    live: Content,
    kept: Content,
    writes: Vec<Write>,
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDisk {
    /// An empty disk that can crash.
    pub fn new() -> Self {
        Self { state: Arc::new(Mutex::new(State { durable: true, ..State::default() })) }
    }

    /// An empty disk that never crashes and needs no sync: memory for nodes that keep nothing.
    pub fn volatile() -> Self {
        Self { state: Arc::new(Mutex::new(State::default())) }
    }

    /// Another disk with what would be on this one, had it lost its power now.
    pub fn copy(&self, seed: u64) -> Self {
        let copy = Self { state: Arc::new(Mutex::new(self.state().clone())) };
        copy.crash(seed);
        copy
    }

    /// Loses power and comes back: all handles and locks of before are dead, and of what was not synced
    /// only some part remains, chosen by `seed`. A volatile disk comes back empty.
    pub fn crash(&self, seed: u64) {
        let mut state = self.state();
        let mut random = SplitMix::new(seed);
        state.boot += 1;
        state.mishaps.crash();
        state.locks.clear();
        let changes = std::mem::take(&mut state.changes);
        for change in changes {
            if random.flip() {
                apply_change(&mut state.kept, &change);
            }
        }
        // A name is reachable only if its directory is.
        let names: BTreeSet<PathBuf> = state.kept.keys().cloned().collect();
        state.kept.retain(|path, _| path.parent().is_none_or(|dir| is_root(dir) || names.contains(dir)));
        state.live = state.kept.clone();
        for inode in state.inodes.values_mut() {
            for write in std::mem::take(&mut inode.writes) {
                inode.kept.apply_torn(&write, &mut random);
            }
            inode.live = inode.kept.clone();
        }
        let used: BTreeSet<u64> = state
            .live
            .values()
            .filter_map(|node| match node {
                Node::File(inode) => Some(*inode),
                Node::Directory => None,
            })
            .collect();
        state.inodes.retain(|inode, _| used.contains(inode));
    }

    /// Lets `calls` more mutating calls (create, write, sync, rename, …) succeed; every one after them fails
    /// until the next [`SimDisk::crash`].
    pub fn power_off_after(&self, calls: u64) {
        self.state().mishaps.calls_left = Some(calls);
    }

    /// Makes the next sync of a file fail, once. What it should have made durable never will be, though it can
    /// still be read.
    pub fn fail_next_sync(&self) {
        self.state().mishaps.fail_sync = true;
    }

    /// Lets `calls` more calls of this kind go well and makes the one after them fail, once.
    pub fn fail_call_after(&self, call: Call, calls: u64) {
        self.state().mishaps.fail_call = Some((call, calls));
    }

    /// Leaves no room on the disk, or as much as is wanted again; a crash changes nothing about it.
    pub fn fill(&self, full: Option<Full>) {
        self.state().mishaps.full = full;
    }

    /// Flips one bit of a file, as a rotting disk does.
    ///
    /// # Errors
    /// `NotFound` when there is no such file, `UnexpectedEof` when it is shorter.
    pub fn rot(&self, path: &Path, offset: u64) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.file(path)?;
        let inode = state.inodes.get_mut(&inode).expect("a name has a file");
        let mut byte = [0];
        inode.live.read(&mut byte, offset)?;
        byte[0] ^= 1;
        inode.live.write(&byte, offset);
        inode.kept.write(&byte, offset);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl State {
    fn change(&mut self, change: NameChange) {
        apply_change(&mut self.live, &change);
        if self.durable {
            self.changes.push(change);
        }
    }

    fn file(&self, path: &Path) -> io::Result<u64> {
        match self.live.get(path) {
            Some(Node::File(inode)) => Ok(*inode),
            Some(Node::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn directory(&self, path: &Path) -> io::Result<()> {
        match self.live.get(path) {
            Some(Node::Directory) => Ok(()),
            None if is_root(path) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

fn is_root(path: &Path) -> bool {
    path.parent().is_none()
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Does nothing when an earlier change that this one builds on was lost.
fn apply_change(names: &mut BTreeMap<PathBuf, Node>, change: &NameChange) {
    match change {
        NameChange::Link(path, node) => {
            names.insert(path.clone(), *node);
        }
        NameChange::Rename(from, to, node) => {
            if names.get(from) == Some(node) {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
        NameChange::Unlink(path) => {
            names.remove(path);
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state();
        let inode = state.file(path)?;
        Ok(Arc::new(SimFile { disk: self.clone(), boot: state.boot, inode }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.mishaps.spend()?;
        state.mishaps.room(true)?;
        state.directory(parent(path))?;
        if state.live.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.next_inode;
        state.next_inode += 1;
        state.inodes.insert(inode, Inode::default());
        state.change(NameChange::Link(path.to_owned(), Node::File(inode)));
        Ok(Arc::new(SimFile { disk: self.clone(), boot: state.boot, inode }))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.state().live.contains_key(path))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state();
        state.directory(path)?;
        Ok(state.live.keys().filter(|name| name.parent() == Some(path)).cloned().collect())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let mut missing = Vec::new();
        let mut at = path;
        while let Err(error) = state.directory(at) {
            if error.kind() != io::ErrorKind::NotFound {
                return Err(error);
            }
            missing.push(at.to_owned());
            at = parent(at);
        }
        for directory in missing.into_iter().rev() {
            state.mishaps.spend()?;
            state.mishaps.room(true)?;
            state.change(NameChange::Link(directory, Node::Directory));
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.mishaps.spend()?;
        let node = Node::File(state.file(from)?);
        state.directory(parent(to))?;
        state.change(NameChange::Rename(from.to_owned(), to.to_owned(), node));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.mishaps.spend()?;
        state.file(path)?;
        state.change(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut guard = self.state();
        guard.mishaps.spend()?;
        guard.directory(path)?;
        let state = &mut *guard;
        let (now, later) = std::mem::take(&mut state.changes).into_iter().partition(|change| match change {
            NameChange::Link(at, _) | NameChange::Unlink(at) => at.parent() == Some(path),
            NameChange::Rename(from, to, _) => from.parent() == Some(path) || to.parent() == Some(path),
        });
        state.changes = later;
        let now: Vec<NameChange> = now;
        for change in &now {
            apply_change(&mut state.kept, change);
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        if !self.exists(path)? {
            self.create(path)?;
        }
        let mut state = self.state();
        if !state.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { disk: self.clone(), boot: state.boot, path: path.to_owned() }))
    }
}

struct SimFile {
    disk: SimDisk,
    boot: u64,
    inode: u64,
}

impl SimFile {
    fn with<T>(&self, spend: bool, act: impl FnOnce(&mut Inode, bool) -> io::Result<T>) -> io::Result<T> {
        let mut guard = self.disk.state();
        let state = &mut *guard;
        if state.boot != self.boot {
            return Err(io::Error::other("the file was open before the crash"));
        }
        if spend {
            state.mishaps.spend()?;
        }
        // An unlinked file stays readable through its handles, as on a real disk.
        let inode = state.inodes.entry(self.inode).or_default();
        act(inode, state.durable)
    }

    fn put(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.with(false, |inode, durable| {
            inode.live.write(data, offset);
            if durable {
                inode.writes.push(Write::Data { offset, data: data.to_owned() });
            }
            Ok(())
        })
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.state().mishaps.chance(Call::Read)?;
        self.with(false, |inode, _| inode.live.read(buffer, offset))
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let grows = self.len()? < offset + data.len() as u64;
        let error = {
            let mut state = self.disk.state();
            state.mishaps.room(grows)?;
            state.mishaps.chance(Call::Write).err()
        };
        if let Some(error) = error {
            self.put(&data[..data.len() / 2], offset)?;
            return Err(error);
        }
        let off = self.disk.state().mishaps.off;
        let gone = self.with(true, |_, _| Ok(())).err();
        if off {
            return gone.map_or(Ok(()), Err);
        }
        // The one write during which the power goes may leave its mark too.
        self.put(data, offset)?;
        gone.map_or(Ok(()), Err)
    }

    fn len(&self) -> io::Result<u64> {
        self.with(false, |inode, _| Ok(inode.live.bytes()))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let grows = self.len()? < bytes;
        self.disk.state().mishaps.room(grows)?;
        self.with(true, |inode, durable| {
            inode.live.set_len(bytes);
            if durable {
                inode.writes.push(Write::Length(bytes));
            }
            Ok(())
        })
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        if self.len()? < bytes { self.set_len(bytes) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        let fails = std::mem::take(&mut self.disk.state().mishaps.fail_sync);
        self.with(true, |inode, _| {
            if fails {
                // Linux shows the pages as clean from then on: read they are there, synced they never are.
                inode.writes.clear();
                return Err(failed(io::Error::other("the disk could not sync")));
            }
            for write in std::mem::take(&mut inode.writes) {
                inode.kept.apply(&write);
            }
            Ok(())
        })
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }
}

struct SimLock {
    disk: SimDisk,
    boot: u64,
    path: PathBuf,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.boot == self.boot {
            state.locks.remove(&self.path);
        }
    }
}
