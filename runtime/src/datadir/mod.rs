//! The data directory: what makes a node the same node after a restart.
//!
//! ```text
//! LOCK        held by the process that uses the directory; holds its number, for people
//! VERSION     the format of all that lies here; written last, so it says that the rest is complete
//! IDENTITY    who the node is: replaced whole, never changed in place
//! wal/        the log
//! engine…     the checkpoints, as `CHECKPOINTS` beside them says ([`crate::engine`])
//! damaged-N/  log and checkpoints that were put aside to be rebuilt from other nodes
//! ```
//!
//! The directory is the owner's alone (0700). A directory with other things in it is refused rather than
//! littered.

mod error;
mod identity;
#[cfg(test)]
mod tests;

pub use error::DataDirError;
pub use identity::Identity;

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use trandb_cluster::{ClusterId, InstanceId};

/// The format that this build reads and writes. Counts up when an older build could not read what is written.
pub const FORMAT: u32 = 1;

const LOCK: &str = "LOCK";
const VERSION: &str = "VERSION";
const IDENTITY: &str = "IDENTITY";
const WAL: &str = "wal";
const ENGINE: &str = "engine";
const DAMAGED: &str = "damaged-";

/// What file systems put into the root of a volume.
const LOST_AND_FOUND: &str = "lost+found";

/// What `VERSION` begins with, before the number.
const VERSION_PREFIX: &str = "trandb ";

const OWNER_ONLY: u32 = 0o700;

/// Bytes of a control file at the most. They have less than a hundred; one that is longer is not ours, and
/// is not read any further.
const CONTROL_FILE_BYTES_MAX: u64 = 4096;

/// A data directory that this process holds. Dropping it lets others have it.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: Identity,
    /// Locked as long as it is open.
    _lock: File,
}

impl DataDir {
    /// Opens the directory at `path` or makes one, with an instance number from `random`.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn open(path: &Path, random: impl FnMut() -> u64) -> Result<Self, DataDirError> {
        let failed = |source| DataDirError::io(path, source);
        create_dir(path).map_err(failed)?;
        // Looked at before anything is written, so that a directory that is refused stays as it was.
        let format = read_format(path)?;
        if format.is_none() {
            refuse_strangers(path)?;
        }
        let lock = acquire(path)?;
        restrict(path).map_err(failed)?;
        // Read again: another process may have made it meanwhile.
        let identity = match read_format(path)? {
            Some(FORMAT) => Identity::read(path)?,
            Some(found) => {
                return Err(DataDirError::NewerFormat { path: path.into(), found, known: FORMAT });
            }
            None => create(path, random)?,
        };
        Ok(Self { path: path.into(), identity, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who the node is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Remembers who the node is. When it returns, that survives a power cut; when it fails, the old
    /// identity or the new one does.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn set_identity(&mut self, identity: Identity) -> Result<(), DataDirError> {
        identity.write(&self.path)?;
        self.identity = identity;
        Ok(())
    }

    /// Puts log and checkpoints aside, and makes this the directory of a new node that only the same cluster may take in;
    /// says where they are. Under its old number it would have forgotten votes and entries that others count on.
    ///
    /// Cut off anywhere, it leaves a directory without a log, which no node starts on, or the new one.
    ///
    /// # Errors
    /// [`DataDirError::NoCluster`] when the directory is of no cluster yet, [`DataDirError::Io`].
    pub fn put_aside(&mut self, random: u64) -> Result<PathBuf, DataDirError> {
        let Some(cluster) = self.identity.cluster.or(self.identity.rejoins) else {
            return Err(DataDirError::NoCluster { path: self.path.clone() });
        };
        let aside = self.move_aside().map_err(|source| DataDirError::io(&self.path, source))?;
        let instance = InstanceId(random);
        self.set_identity(Identity { rejoins: Some(cluster), ..Identity::fresh(instance) })?;
        Ok(aside)
    }

    fn move_aside(&self) -> io::Result<PathBuf> {
        let mut numbered = (1_u32..).map(|number| self.path.join(format!("{DAMAGED}{number}")));
        let aside = numbered.find(|path| !path.exists()).ok_or(io::ErrorKind::AlreadyExists)?;
        let kept = |name: &str| {
            let control = [VERSION, IDENTITY].iter().any(|of| name == *of || name == temporary_name(of));
            control || [LOCK, LOST_AND_FOUND].contains(&name) || name.starts_with(DAMAGED)
        };
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            if !kept(&name.to_string_lossy()) {
                names.push(name);
            }
        }
        // The log goes first: without it nobody takes the rest for whole.
        names.sort_by_key(|name| name != WAL);
        create_dir(&aside)?;
        for name in names {
            fs::rename(self.path.join(&name), aside.join(&name))?;
        }
        File::open(&aside)?.sync_all()?;
        File::open(&self.path)?.sync_all()?;
        for name in [WAL, ENGINE] {
            create_dir(&self.path.join(name))?;
        }
        Ok(aside)
    }

    /// Checks that the directory belongs to `cluster`, or to none yet.
    ///
    /// # Errors
    /// [`DataDirError::OtherCluster`].
    pub fn check_cluster(&self, cluster: ClusterId) -> Result<(), DataDirError> {
        match self.identity.cluster {
            Some(found) if found != cluster => {
                Err(DataDirError::OtherCluster { path: self.path.clone(), found, expected: cluster })
            }
            _ => Ok(()),
        }
    }

    /// Where the log lies.
    pub fn wal_dir(&self) -> PathBuf {
        self.path.join(WAL)
    }
}

/// Makes what belongs into a new directory, the version last.
fn create(path: &Path, mut random: impl FnMut() -> u64) -> Result<Identity, DataDirError> {
    let failed = |source| DataDirError::io(path, source);
    for name in [WAL, ENGINE] {
        create_dir(&path.join(name)).map_err(failed)?;
    }
    let identity = Identity::fresh(InstanceId(random()));
    identity.write(path)?;
    replace(path, VERSION, format!("{VERSION_PREFIX}{FORMAT}\n").as_bytes()).map_err(failed)?;
    Ok(identity)
}

/// The format of what lies in the directory; none if nothing was completed there.
fn read_format(path: &Path) -> Result<Option<u32>, DataDirError> {
    let Some(text) = read_control_file(path, VERSION)? else { return Ok(None) };
    let format = text.strip_prefix(VERSION_PREFIX).and_then(|number| number.trim_end().parse().ok());
    // Zero was never written.
    match format.filter(|format| *format > 0) {
        Some(found) if found > FORMAT => {
            Err(DataDirError::NewerFormat { path: path.into(), found, known: FORMAT })
        }
        Some(found) => Ok(Some(found)),
        None => Err(DataDirError::corrupt(path.join(VERSION), format!("it says {text:?}"))),
    }
}

/// Refuses a directory without a version that has more in it than an interrupted creation leaves.
fn refuse_strangers(path: &Path) -> Result<(), DataDirError> {
    let failed = |source| DataDirError::io(path, source);
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let temporary = [VERSION, IDENTITY].map(temporary_name).contains(&name);
        let known = match name.as_str() {
            LOCK | IDENTITY | LOST_AND_FOUND => true,
            WAL | ENGINE => fs::read_dir(entry.path()).map_err(failed)?.next().is_none(),
            _ => temporary,
        };
        if !known {
            let path = path.to_path_buf();
            return Err(DataDirError::Foreign { path, found: name });
        }
    }
    Ok(())
}

/// Takes the lock, which goes with the file handle, so a process that died holds none.
fn acquire(path: &Path) -> Result<File, DataDirError> {
    let failed = |source| DataDirError::io(path, source);
    let lock = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join(LOCK))
        .map_err(failed)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            // The number is a help for people: without it the message only says less.
            let _ = (&lock).take(CONTROL_FILE_BYTES_MAX).read_to_string(&mut holder);
            return Err(DataDirError::InUse { path: path.into(), process: holder.trim().parse().ok() });
        }
        Err(error) => return Err(failed(error.into())),
    }
    lock.set_len(0).map_err(failed)?;
    writeln!(&lock, "{}", std::process::id()).map_err(failed)?;
    Ok(lock)
}

/// Makes a directory that only its owner may enter, and its parents as usual; one that is there stays.
fn create_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent)?;
    match DirBuilder::new().mode(OWNER_ONLY).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => File::open(parent)?.sync_all(),
    }
}

/// Takes away what others may do with the directory.
fn restrict(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    match fs::set_permissions(path, Permissions::from_mode(OWNER_ONLY)) {
        // The root of a mounted volume often belongs to someone else; whoever mounted it decided.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            tracing::warn!(path = %path.display(), "the data directory is open to other users");
            Ok(())
        }
        result => result,
    }
}

/// Reads a small text file; none if it is not there.
pub(crate) fn read_control_file(path: &Path, name: &str) -> Result<Option<String>, DataDirError> {
    let file = match File::open(path.join(name)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DataDirError::io(path, error)),
    };
    let mut bytes = Vec::new();
    file.take(CONTROL_FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| DataDirError::io(path, source))?;
    if bytes.len() as u64 > CONTROL_FILE_BYTES_MAX {
        return Err(DataDirError::corrupt(path.join(name), "it is too long"));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| DataDirError::corrupt(path.join(name), "it is not text"))
}

/// Writes a small file so that a crash leaves the old one or the new one, and a power cut after it the new.
pub(crate) fn replace(path: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let temporary = path.join(temporary_name(name));
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path.join(name))?;
    File::open(path)?.sync_all()
}

fn temporary_name(name: &str) -> String {
    format!("{name}.tmp")
}
