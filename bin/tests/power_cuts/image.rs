//! A disk as it may look after the power has gone.

use crate::recording::{Clock, Event, FileId, Recording, Step, What, rename};
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use trandb_client::PartitionId;
use trandb_runtime::disk::Disk;
use trandb_runtime::engine::{Engine, MemoryEngine};

/// What a disk writes wholly or not at all.
const SECTOR_BYTES: usize = 512;

/// In such pieces a file is written, or left out where it is empty.
const PAGE_BYTES: usize = 1 << 16;
static NOTHING: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// What is left of all that was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Left {
    Nothing,
    All,
    /// What came first, the last write of it torn.
    Beginning,
    /// Any events, their writes torn into sectors.
    Some,
}

impl Left {
    pub(crate) const ALL: [Self; 4] = [Self::Nothing, Self::All, Self::Beginning, Self::Some];
}

/// A disk, and the storage engine beside it.
#[derive(Default)]
pub(crate) struct Image {
    dirs: BTreeMap<PathBuf, ()>,
    names: BTreeMap<PathBuf, FileId>,
    files: BTreeMap<FileId, Vec<u8>>,
    pub(crate) engine: MemoryEngine,
}

/// What is known to be on the disk at a cut.
struct Synced {
    /// Until when each file's changes are.
    files: BTreeMap<FileId, Clock>,
    dirs: BTreeMap<PathBuf, Clock>,
    /// Until when each partition's are.
    engine: BTreeMap<PartitionId, Clock>,
}

impl Synced {
    fn at(events: &[&Event], cut: Clock) -> Self {
        let mut synced = Self { files: BTreeMap::new(), dirs: BTreeMap::new(), engine: BTreeMap::new() };
        // A sync that has ended covers what had ended when it began.
        for event in events.iter().filter(|event| event.ended.is_some_and(|ended| ended <= cut)) {
            match &event.what {
                What::Sync(file) => {
                    synced.files.insert(*file, event.begun);
                }
                What::SyncDir(dir) => {
                    synced.dirs.insert(dir.clone(), event.begun);
                }
                // The engine's calls come one after the other: a commit covers itself, too.
                What::Engine(partition, Step::Commit(_) | Step::Drop) => {
                    synced.engine.insert(*partition, event.begun + 1);
                }
                _ => {}
            }
        }
        synced
    }

    fn has(&self, event: &Event) -> bool {
        let parent = |path: &Path| path.parent().and_then(|dir| self.dirs.get(dir)).copied();
        let until = match &event.what {
            What::MakeDir(path) | What::Create(_, path) | What::Remove(path) => parent(path),
            What::Rename(from, to) => parent(from).max(parent(to)),
            What::Write { file, .. } | What::Length { file, .. } | What::Allocate { file, .. } => {
                self.files.get(file).copied()
            }
            What::Engine(partition, _) => {
                return self.engine.get(partition).is_some_and(|&until| event.begun < until);
            }
            What::Sync(_) | What::SyncDir(_) => return true,
        };
        event.ended.is_some_and(|ended| until.is_some_and(|until| ended < until))
    }
}

impl Image {
    /// What may be there when the power goes at `cut`.
    pub(crate) fn after(recording: &Recording, cut: Clock, left: Left, random: &mut StdRng) -> Self {
        let until = recording.events.partition_point(|event| event.begun <= cut);
        let events: Vec<&Event> = recording.events[..until].iter().collect();
        let synced = Synced::at(&events, cut);
        let unsynced = events.iter().filter(|event| !synced.has(event)).count();
        let beginning = random.random_range(0..=unsynced);
        let share = random.random_range(0.05..0.95);
        // Rarely whole and rarely in many pieces: what matters is which sectors.
        let mut seen = 0;
        let mut image = Self::default();
        let mut live = BTreeMap::new();
        for event in events {
            let file = image.live_file(&mut live, &event.what);
            if synced.has(event) {
                image.apply(&event.what, file);
                continue;
            }
            seen += 1;
            match left {
                Left::Nothing => {}
                Left::All => image.apply(&event.what, file),
                Left::Beginning if seen < beginning => image.apply(&event.what, file),
                Left::Beginning if seen == beginning => image.tear(&event.what, file, 0.5, random),
                Left::Beginning => {}
                Left::Some => image.tear(&event.what, file, share, random),
            }
        }
        image
    }

    /// The file that a name stood for when it was changed: should an earlier change be lost, another may have it.
    fn live_file(&self, live: &mut BTreeMap<PathBuf, FileId>, what: &What) -> Option<FileId> {
        match what {
            What::Create(file, path) => {
                live.insert(path.clone(), *file);
                Some(*file)
            }
            What::Rename(from, to) => {
                let file = live.get(from).copied();
                rename(live, from, to);
                file
            }
            What::Remove(path) => live.remove(path),
            _ => None,
        }
    }

    fn apply(&mut self, what: &What, file: Option<FileId>) {
        match what {
            What::MakeDir(path) => {
                self.dirs.insert(path.clone(), ());
            }
            What::Create(file, path) => {
                self.names.insert(path.clone(), *file);
            }
            What::Rename(from, to) => {
                if file.is_some() && self.names.get(from) == file.as_ref() {
                    rename(&mut self.names, from, to);
                } else if self.dirs.contains_key(from) {
                    rename(&mut self.dirs, from, to);
                    rename(&mut self.names, from, to);
                }
            }
            What::Remove(path) => {
                if file.is_some() && self.names.get(path) == file.as_ref() {
                    self.names.remove(path);
                }
            }
            What::Write { file, offset, data } => self.write(*file, *offset as usize, data),
            What::Length { file, bytes } => self.content(*file).resize(*bytes as usize, 0),
            What::Allocate { file, bytes } => {
                let content = self.content(*file);
                let bytes = content.len().max(*bytes as usize);
                content.resize(bytes, 0);
            }
            What::Engine(partition, step) => {
                let engine = &self.engine;
                let done = match step {
                    Step::Put(versions) => engine.put(*partition, versions),
                    Step::Remove(names) => engine.remove(*partition, names),
                    Step::Commit(meta) => engine.commit(*partition, meta),
                    Step::Drop => engine.drop_partition(*partition),
                };
                done.expect("memory does not fail");
            }
            What::Sync(_) | What::SyncDir(_) => {}
        }
    }

    /// Applies it wholly, in part, or not at all.
    fn tear(&mut self, what: &What, file: Option<FileId>, share: f64, random: &mut StdRng) {
        match what {
            What::Write { file, offset, data } => {
                let mut from = 0;
                let whole = random.random_bool(0.5);
                let keep_whole = random.random_bool(share);
                while from < data.len() {
                    // Sectors lie at multiples of their size in the file, not in the write.
                    let at = *offset as usize + from;
                    let to = data.len().min(from + SECTOR_BYTES - at % SECTOR_BYTES);
                    if if whole { keep_whole } else { random.random_bool(share) } {
                        self.write(*file, at, &data[from..to]);
                    }
                    from = to;
                }
            }
            // Of what is only put or removed, any part may be there; the rest is there or not.
            What::Engine(partition, Step::Put(versions)) => {
                let kept = versions.iter().filter(|_| random.random_bool(share)).cloned().collect();
                self.apply(&What::Engine(*partition, Step::Put(kept)), file);
            }
            What::Engine(partition, Step::Remove(names)) => {
                let gone = names.iter().filter(|_| random.random_bool(share)).cloned().collect();
                self.apply(&What::Engine(*partition, Step::Remove(gone)), file);
            }
            // A commit that is there has everything before it.
            What::Engine(_, Step::Commit(_)) => {}
            other => {
                if random.random_bool(share) {
                    self.apply(other, file);
                }
            }
        }
    }

    fn content(&mut self, file: FileId) -> &mut Vec<u8> {
        self.files.entry(file).or_default()
    }

    fn write(&mut self, file: FileId, offset: usize, data: &[u8]) {
        let content = self.content(file);
        if content.len() < offset + data.len() {
            content.resize(offset + data.len(), 0);
        }
        content[offset..offset + data.len()].copy_from_slice(data);
    }

    /// Names that a walk from the top finds: one in a directory that was lost is lost with it.
    fn reachable(&self, path: &Path) -> bool {
        path.ancestors().skip(1).all(|dir| dir.as_os_str().is_empty() || self.dirs.contains_key(dir))
    }

    /// Puts it below `root` of a disk.
    pub(crate) fn write_to(&self, disk: &dyn Disk, root: &Path) -> io::Result<()> {
        for dir in self.dirs.keys().filter(|dir| self.reachable(dir)) {
            disk.create_dir_all(&root.join(dir))?;
        }
        for (path, file) in self.names.iter().filter(|(path, _)| self.reachable(path)) {
            let content = self.files.get(file).map(Vec::as_slice).unwrap_or_default();
            let file = disk.create(&root.join(path))?;
            file.set_len(content.len() as u64)?;
            // Much of a log is room that nothing was written to yet.
            for (at, page) in content.chunks(PAGE_BYTES).enumerate() {
                if page != &NOTHING[..page.len()] {
                    file.write_at(page, (at * PAGE_BYTES) as u64)?;
                }
            }
        }
        Ok(())
    }

    /// Syncs what [`Self::write_to`] has put there, names included.
    pub(crate) fn sync_on(&self, disk: &dyn Disk, root: &Path) -> io::Result<()> {
        for path in self.names.keys().filter(|path| self.reachable(path)) {
            disk.open(&root.join(path))?.sync_all()?;
        }
        disk.sync_dir(root)?;
        self.dirs.keys().filter(|dir| self.reachable(dir)).try_for_each(|dir| disk.sync_dir(&root.join(dir)))
    }
}

/// Puts a copy of an engine into another one, committed as far as it is.
pub(crate) fn copy_engine(from: &MemoryEngine, to: &dyn Engine) {
    const MEMORY: &str = "memory does not fail";
    for partition in from.partitions().expect(MEMORY) {
        let mut versions = Vec::new();
        from.load(partition, &mut |version| versions.push(version)).expect(MEMORY);
        to.put(partition, &versions).expect(MEMORY);
        if let Some(meta) = from.meta(partition).expect(MEMORY) {
            to.commit(partition, &meta).expect(MEMORY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn record(steps: Vec<What>) -> Recording {
        let mut recording = Recording::default();
        for what in steps {
            let event = recording.begin(what);
            recording.end(event);
        }
        recording
    }

    fn write(file: FileId, offset: u64, data: &'static [u8]) -> What {
        What::Write { file, offset, data: data.into() }
    }

    fn content(image: &Image, path: &str) -> Option<Vec<u8>> {
        let file = image.names.get(Path::new(path)).filter(|_| image.reachable(Path::new(path)))?;
        Some(image.files.get(file).cloned().unwrap_or_default())
    }

    #[test]
    fn what_was_synced_is_there_and_the_rest_may_be() {
        let path = PathBuf::from("a/b");
        let recording = record(vec![
            What::MakeDir("a".into()),
            What::SyncDir("".into()),
            What::Create(1, path.clone()),
            write(1, 0, b"one"),
            What::Sync(1),
            What::SyncDir("a".into()),
            write(1, 3, b"two"),
            What::Rename(path, "a/c".into()),
        ]);
        let mut random = StdRng::seed_from_u64(1);
        let mut after = |cut, left| Image::after(&recording, cut, left, &mut random);
        let end = recording.now();
        assert_eq!(content(&after(end, Left::Nothing), "a/b"), Some(b"one".into()));
        assert_eq!(content(&after(end, Left::Nothing), "a/c"), None);
        assert_eq!(content(&after(end, Left::All), "a/c"), Some(b"onetwo".into()));
        // The directory's sync has begun and not ended.
        assert_eq!(content(&after(11, Left::Nothing), "a/b"), None);
        assert_eq!(content(&after(12, Left::Nothing), "a/b"), Some(b"one".into()));
        let seen: BTreeSet<_> = (0..64)
            .map(|_| {
                let image = after(end, Left::Some);
                (content(&image, "a/b"), content(&image, "a/c"))
            })
            .collect();
        assert_eq!(seen.len(), 4, "{seen:?}");
    }

    #[test]
    fn a_directory_is_renamed_with_all_that_is_in_it() {
        let recording = record(vec![
            What::MakeDir("a".into()),
            What::MakeDir("a/b".into()),
            What::Create(1, "a/b/f".into()),
            What::Create(2, "a/g".into()),
            What::SyncDir("".into()),
            What::SyncDir("a".into()),
            What::SyncDir("a/b".into()),
            What::Rename("a".into(), "z".into()),
            What::Remove("z/g".into()),
        ]);
        let mut random = StdRng::seed_from_u64(1);
        let mut after = |left| Image::after(&recording, recording.now(), left, &mut random);
        let all = after(Left::All);
        assert_eq!(
            (content(&all, "z/b/f"), content(&all, "z/g"), content(&all, "a/b/f")),
            (Some(vec![]), None, None)
        );
        let nothing = after(Left::Nothing);
        assert_eq!((content(&nothing, "z/b/f"), content(&nothing, "a/g")), (None, Some(vec![])));
    }

    #[test]
    fn a_sync_covers_only_what_had_ended_when_it_began() {
        let mut recording = record(vec![What::Create(1, "f".into()), What::SyncDir("".into())]);
        let first = recording.begin(write(1, 0, b"x"));
        let sync = recording.begin(What::Sync(1));
        recording.end(first);
        recording.end(sync);
        let mut random = StdRng::seed_from_u64(1);
        let image = Image::after(&recording, recording.now(), Left::Nothing, &mut random);
        assert_eq!(content(&image, "f"), Some(vec![]));
    }

    #[test]
    fn writes_are_torn_at_sectors() {
        static DATA: [u8; 2000] = [7; 2000];
        let recording = record(vec![
            What::Create(1, "f".into()),
            What::SyncDir("".into()),
            What::Allocate { file: 1, bytes: 4096 },
            What::Sync(1),
            write(1, 100, &DATA),
        ]);
        let mut torn = 0;
        for seed in 0..32 {
            let mut random = StdRng::seed_from_u64(seed);
            let image = Image::after(&recording, recording.now(), Left::Some, &mut random);
            let content = content(&image, "f").expect("its name was synced");
            assert_eq!(content.len(), 4096);
            assert!(content[2100..].iter().all(|&byte| byte == 0));
            for sector in content[..2048].chunks(SECTOR_BYTES) {
                let written = sector.iter().filter(|&&byte| byte == 7).count();
                assert!([0, SECTOR_BYTES - 100, SECTOR_BYTES].contains(&written), "{written}");
            }
            let kept = content.iter().filter(|&&byte| byte == 7).count();
            torn += usize::from(kept > 0 && kept < DATA.len());
        }
        assert!(torn > 0);
    }
}
