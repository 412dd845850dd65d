//! The journal of a fjall database, looked at before fjall does.
//!
//! ```text
//! journal   batch, batch, …, zeros
//! batch     1 · items (4) · sequence number (8) · item, item, … · 3 · checksum of the items (8) · "FJL" 3
//! item      2 · kind (1) · compression (1) · keyspace (8) · name bytes (2) · bytes (4) · bytes (4) · name · value
//! ```
//!
//! Numbers are little-endian. All but the last journal were synced before the next one was begun, so nothing in them is
//! damaged by a power cut. Of the last one what was not synced may be there in part: fjall cuts off some of that, and
//! refuses to open, or trips, over the rest. Here all of it is cut off.
//!
//! What was synced and is damaged all the same is rot, and is told from a torn end by what follows: a commit waits for
//! the sync before anything else is written, so that damage lies in what was synced if a whole commit and a whole batch
//! come after it, or a commit whose number says that one is missing. It is refused.
//!
//! # Caveats
//! Rot in the last commit looks like a torn end and takes the checkpoint before, from where the log goes on.

use super::fjall::COMMITS;
use super::guard::Fault;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

const BATCH: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const TRAILER: [u8; 4] = *b"FJL\x03";

/// Cuts off the torn end of the last journal in `dir`.
pub(super) fn check(dir: &Path) -> Result<(), Fault> {
    let mut journals = journals(dir).map_err(Fault::Io)?;
    let last = journals.pop();
    // Which commit came last; unknown before the first one of a journal that is not the first.
    let first = journals.first().or(last.as_ref()).map(|(number, _)| *number);
    let mut commit = (first == Some(0)).then_some(0);
    for (_, path) in journals {
        let bytes = fs::read(&path).map_err(Fault::Io)?;
        let end = whole_until(&bytes, &mut commit);
        if !is_room(&bytes[end..]) {
            return Err(damaged(&path, end));
        }
    }
    let Some((_, path)) = last else {
        return Err(Fault::Corrupt(format!("{} has no journal", dir.display())));
    };
    let bytes = fs::read(&path).map_err(Fault::Io)?;
    let end = whole_until(&bytes, &mut commit);
    if is_room(&bytes[end..]) {
        return Ok(());
    }
    if was_synced(&bytes, end, commit) {
        return Err(damaged(&path, end));
    }
    tracing::info!(journal = %path.display(), offset = end, "the engine's journal ended in the middle of a write, \
                    which was cut off");
    cut(&path, end).map_err(Fault::Io)
}

/// Whether nothing was written there: a journal is made with room for all that it is to hold.
fn is_room(bytes: &[u8]) -> bool {
    static NOTHING: [u8; 4096] = [0; 4096];
    bytes.chunks(NOTHING.len()).all(|chunk| chunk == &NOTHING[..chunk.len()])
}

fn damaged(path: &Path, at: usize) -> Fault {
    Fault::Corrupt(format!("{} is damaged at {at}", path.display()))
}

fn cut(path: &Path, end: usize) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.set_len(end as u64)?;
    file.sync_all()
}

/// All journals by their number, ascending.
fn journals(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut journals = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(number) = name.strip_suffix(".jnl").and_then(|number| number.parse().ok()) {
            journals.push((number, path));
        }
    }
    journals.sort();
    Ok(journals)
}

/// Where the whole batches at the beginning end; notes the last commit among them.
fn whole_until(bytes: &[u8], commit: &mut Option<u64>) -> usize {
    let (mut at, mut sequence) = (0, None);
    // Sequence numbers are under no checksum, but they grow.
    while let Some(batch) = Batch::read(bytes, at).filter(|batch| Some(batch.sequence) > sequence) {
        at = batch.end;
        sequence = Some(batch.sequence);
        *commit = batch.commit.or(*commit);
    }
    at
}

/// Whether damage at `at`, with `commit` the last one before it, lies in what was synced.
fn was_synced(bytes: &[u8], at: usize, commit: Option<u64>) -> bool {
    let mut commit_seen = false;
    let mut from = at;
    // Batches begin where one has ended.
    while let Some(trailer) = bytes[from..].windows(TRAILER.len()).position(|bytes| bytes == TRAILER) {
        from += trailer + TRAILER.len();
        while let Some(batch) = Batch::read(bytes, from) {
            let one_is_missing =
                batch.commit.zip(commit).is_some_and(|(number, before)| number > before.saturating_add(1));
            if commit_seen || one_is_missing {
                return true;
            }
            commit_seen = batch.commit.is_some();
            from = batch.end;
        }
    }
    false
}

struct Batch {
    end: usize,
    sequence: usize,
    /// Which commit it is, if it is one.
    commit: Option<u64>,
}

impl Batch {
    /// The whole batch at `at`; none if there is none.
    fn read(bytes: &[u8], at: usize) -> Option<Self> {
        let mut reader = Reader { bytes, at };
        if reader.take(1)? != [BATCH] {
            return None;
        }
        let items = reader.number::<4>()?;
        let sequence = reader.number::<8>()?;
        let from = reader.at;
        let mut commit = None;
        for _ in 0..items {
            if reader.take(1)? != [ITEM] {
                return None;
            }
            let _kind = reader.take(1)?;
            let compression = reader.take(1)?;
            reader.take(8)?;
            let name_bytes = reader.number::<2>()?;
            let (value_bytes, stored_bytes) = (reader.number::<4>()?, reader.number::<4>()?);
            // Nothing is compressed.
            if compression != [0] || value_bytes != stored_bytes {
                return None;
            }
            let name = reader.take(name_bytes)?;
            let value = reader.take(stored_bytes)?;
            if name == [COMMITS] {
                commit = value.first_chunk().map(|number| u64::from_be_bytes(*number));
            }
        }
        let to = reader.at;
        if reader.take(1)? != [END] {
            return None;
        }
        let checksum = reader.take(8)?;
        let whole = checksum == xxh3_64(&bytes[from..to]).to_le_bytes() && reader.take(4)? == TRAILER;
        whole.then_some(Self { end: reader.at, sequence, commit })
    }
}

/// Takes bytes apart.
pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(bytes)?)?;
        self.at += bytes;
        Some(taken)
    }

    pub(super) fn number<const N: usize>(&mut self) -> Option<usize> {
        let bytes = self.take(N)?;
        Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte)))
    }
}
