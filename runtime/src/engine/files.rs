//! Directories of engines' files, as a whole.
//!
//! fjall makes a database in place, and opens neither one of which a crash has left half nor, after a power cut, one whose
//! names were lost one by one. So it is made beside, synced to its last name, and moved into place in one step; what
//! is in place was whole once, and what it lacks is damage.

use super::guard::Fault;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// What every database has, and fjall makes anew when it is not there: an empty list of keyspaces among them, by which
/// it then removes the keyspaces that are not on it.
const ALWAYS_THERE: [&str; 4] = ["version", "lock", "keyspaces/0/current", "keyspaces/1/current"];

/// What a database that is being made is called, after its name.
const MAKING: &str = "making";

/// Whether there is nothing at all.
pub(super) fn is_empty(dir: &Path) -> io::Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Where the database that is to become `dir` is made.
pub(super) fn beside(dir: &Path) -> PathBuf {
    dir.with_added_extension(MAKING)
}

/// As [`beside`]; what an interrupted attempt has left there is removed.
pub(super) fn begin(dir: &Path) -> io::Result<PathBuf> {
    let making = beside(dir);
    remove_all(&making)?;
    Ok(making)
}

/// Removes a directory with all that is in it, if it is there.
pub(super) fn remove_all(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Moves what was made to where it belongs, durably.
pub(super) fn finish(making: &Path, dir: &Path) -> io::Result<()> {
    sync_all_below(making)?;
    fs::rename(making, dir)?;
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => sync_dir(Path::new(".")),
    }
}

/// Refuses a database that lacks what fjall would make anew, for it would begin an empty one.
pub(super) fn check(dir: &Path) -> Result<(), Fault> {
    for name in ALWAYS_THERE {
        if !dir.join(name).try_exists().map_err(Fault::Io)? {
            return Err(Fault::Corrupt(format!("{} is missing", dir.join(name).display())));
        }
    }
    Ok(())
}

/// Makes names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes files and names below a directory durable.
pub(super) fn sync_all_below(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_all_below(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_dir(dir)
}
