//! Where a data directory keeps its checkpoints, and in which engine.
//!
//! ```text
//! CHECKPOINTS         which engine's count; and, while there is one, which other's are left over and may be removed
//! engine/             sled's
//! engine-fjall/       fjall's
//! engine.converting/  the other engine's, being made
//! ```
//!
//! Changing the engine copies every partition, then says in one step that the copy counts:
//!
//! ```text
//! note what may be removed ▶ clear it ▶ copy ▶ open the copy and compare ▶ move it into place ▶ note that it counts
//!                                                                                    ▶ remove the old one ▶ note that
//! ```
//!
//! Until it counts, the old one does, unchanged: what an interruption leaves of the copy is removed and begun again, or
//! removed if the old engine is asked for. After that, what is left of the old one is removed.
//!
//! A directory without `CHECKPOINTS` is sled's if there is anything of sled's in it, and else new. Where no engine is asked
//! for, a new directory gets [`EngineKind::default`], and any other one stays as it is: a default that changes converts
//! nothing.
//!
//! # Caveats
//! For as long as it takes there must be room for both.

use super::conversion::{self, Conversion};
use super::{Engine, EngineError, FjallEngine, FjallOptions, MemoryEngine, SledEngine, SledOptions, files};
use crate::config::EngineKind;
use crate::datadir::{DataDir, DataDirError, read_control_file, replace};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

/// Says which engine's checkpoints count.
const NOTE: &str = "CHECKPOINTS";
/// Stands in it before the name of an engine whose checkpoints are left over.
const LEFT_OVER: &str = "left over: ";

/// What the copy is called until it is in place.
const CONVERTING: &str = "engine.converting";

/// Why the engine of a data directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The engine itself.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// What says which engine's checkpoints count cannot be read, written, or understood.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// It is set to keep checkpoints in memory, and the directory has some on disk, without which it is not whole.
    #[error(
        "the data directory {} keeps its checkpoints in {found}: they would be missing with storage.engine = \"memory\"",
        path.display()
    )]
    Volatile {
        /// The directory.
        path: PathBuf,
        /// Whose they are.
        found: EngineKind,
    },
    /// There are checkpoints of another engine that this program has not left there.
    #[error(
        "the data directory {} keeps its checkpoints in {counts}, and has some of {stranger} in {}: remove those that do not count",
        path.display(),
        place.display()
    )]
    Both {
        /// The directory.
        path: PathBuf,
        /// Whose checkpoints count.
        counts: EngineKind,
        /// Whose are there, too.
        stranger: EngineKind,
        /// Where those are.
        place: PathBuf,
    },
    /// A copy is not what was copied.
    #[error("the checkpoints of {partition} came out differently when they were copied from {from} to {to}")]
    Differs {
        /// Whose.
        partition: trandb_cluster::PartitionId,
        /// The engine that they are in, and stay in.
        from: EngineKind,
        /// The engine that they were copied to.
        to: EngineKind,
    },
    /// The system gives no thread, or the one that opened it has panicked.
    #[error("the storage engine could not be opened on a thread of its own: {0}")]
    Thread(io::Error),
}

impl HomeError {
    /// The exit code of a node that cannot start because of it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Engine(error) => error.exit_code(),
            Self::DataDir(error) => error.exit_code(),
            Self::Volatile { .. } | Self::Both { .. } => 78,
            Self::Differs { .. } => 65,
            Self::Thread(_) => 74,
        }
    }
}

/// Hears how far a conversion is.
pub type Told = Arc<dyn Fn(&Conversion) + Send + Sync>;

/// Opens the engine of `directory` on a thread of its own, as [`open`] does, with a cache of at most so many bytes. The thread holds on to the directory, so that
/// nobody else gets at it should the caller go away meanwhile.
///
/// # Errors
/// As [`open`].
#[allow(clippy::disallowed_methods, reason = "this is the door: the simulation opens no engine on disk")]
pub async fn open_aside(
    directory: DataDir,
    kind: Option<EngineKind>,
    cache_bytes: Option<u64>,
    told: Told,
) -> Result<(DataDir, Arc<dyn Engine>), HomeError> {
    let (reply, opened) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("trandb-open".into());
    let open = move || {
        let opened = open_watched(directory.path(), kind, cache_bytes, &*told, &mut |_| ());
        // Whoever asked may have gone.
        let _ = reply.send(opened.map(|engine| (directory, engine)));
    };
    thread.spawn(open).map_err(HomeError::Thread)?;
    opened.await.map_err(|_| HomeError::Thread(io::Error::other("it panicked")))?
}

/// Opens the engine of that kind in the data directory at `dir`; if the directory has another, it is converted first. Without
/// a kind, the directory keeps what it has.
///
/// # Errors
/// See [`HomeError`]. What the directory held before counts as before.
pub fn open(
    dir: &Path,
    kind: Option<EngineKind>,
    told: &dyn Fn(&Conversion),
) -> Result<Arc<dyn Engine>, HomeError> {
    open_watched(dir, kind, None, told, &mut |_| ())
}

/// A moment at which a conversion may be interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Noted,
    Cleared,
    PartitionCopied,
    Compared,
    InPlace,
    Counts,
    OldRemoved,
}

pub(super) fn open_watched(
    dir: &Path,
    kind: Option<EngineKind>,
    cache_bytes: Option<u64>,
    told: &dyn Fn(&Conversion),
    at: &mut dyn FnMut(Step),
) -> Result<Arc<dyn Engine>, HomeError> {
    let home = Home { dir, cache_bytes: cache_bytes.unwrap_or(u64::MAX) };
    let Some(note) = home.note()? else {
        let kind = kind.unwrap_or_default();
        if kind == EngineKind::Memory {
            return Ok(Arc::new(MemoryEngine::new()));
        }
        // Noted before there is anything of it.
        home.write(Note { counts: kind, left_over: None })?;
        return home.open_at(kind, &home.place(kind));
    };
    let kind = kind.unwrap_or(note.counts);
    if kind == EngineKind::Memory {
        return Err(HomeError::Volatile { path: dir.into(), found: note.counts });
    }
    home.refuse_strangers(note)?;
    if note.counts != kind {
        home.convert(note.counts, kind, told, at)?;
    } else if let Some(left_over) = note.left_over {
        home.remove(left_over)?;
        home.write(Note { counts: kind, left_over: None })?;
    }
    home.open_at(kind, &home.place(kind))
}

/// What [`NOTE`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Note {
    counts: EngineKind,
    left_over: Option<EngineKind>,
}

struct Home<'a> {
    dir: &'a Path,
    /// The most that an engine may cache, should its default be more.
    cache_bytes: u64,
}

impl Home<'_> {
    fn place(&self, kind: EngineKind) -> PathBuf {
        self.dir.join(match kind {
            EngineKind::Fjall => "engine-fjall",
            EngineKind::Sled | EngineKind::Memory => "engine",
        })
    }

    /// Whose checkpoints the directory has; none if it is new.
    fn note(&self) -> Result<Option<Note>, HomeError> {
        if let Some(text) = read_control_file(self.dir, NOTE)? {
            let malformed = || DataDirError::corrupt(self.dir.join(NOTE), format!("it says {text:?}"));
            return Ok(Some(parse(&text).ok_or_else(malformed)?));
        }
        let sled = !self.is_empty(EngineKind::Sled)?;
        if sled {
            // From before there was a choice.
            self.write(Note { counts: EngineKind::Sled, left_over: None })?;
        }
        Ok(sled.then_some(Note { counts: EngineKind::Sled, left_over: None }))
    }

    fn write(&self, note: Note) -> Result<(), HomeError> {
        let left_over = note.left_over.map_or(String::new(), |kind| format!("{LEFT_OVER}{kind}\n"));
        let text = format!("{}\n{left_over}", note.counts);
        replace(self.dir, NOTE, text.as_bytes()).map_err(|error| self.failed(error))
    }

    fn refuse_strangers(&self, note: Note) -> Result<(), HomeError> {
        for kind in [EngineKind::Sled, EngineKind::Fjall] {
            let known = kind == note.counts || Some(kind) == note.left_over;
            if !known && !self.is_empty(kind)? {
                let (path, place) = (self.dir.to_owned(), self.place(kind));
                return Err(HomeError::Both { path, counts: note.counts, stranger: kind, place });
            }
        }
        Ok(())
    }

    fn is_empty(&self, kind: EngineKind) -> Result<bool, HomeError> {
        files::is_empty(&self.place(kind)).map_err(|error| self.failed(error))
    }

    /// Removes what is left of that engine's checkpoints, and of a copy that was being made.
    fn remove(&self, kind: EngineKind) -> Result<(), HomeError> {
        let copy = self.dir.join(CONVERTING);
        let remove = || {
            files::remove_all(&files::beside(&copy))?;
            files::remove_all(&copy)?;
            files::remove_all(&self.place(kind))?;
            files::sync_dir(self.dir)
        };
        remove().map_err(|error| self.failed(error))
    }

    fn convert(
        &self,
        from: EngineKind,
        to: EngineKind,
        told: &dyn Fn(&Conversion),
        at: &mut dyn FnMut(Step),
    ) -> Result<(), HomeError> {
        tracing::info!(%from, %to, "the checkpoints are copied to another storage engine");
        self.write(Note { counts: from, left_over: Some(to) })?;
        at(Step::Noted);
        self.remove(to)?;
        at(Step::Cleared);
        let copy = self.dir.join(CONVERTING);
        {
            let source = self.open_at(from, &self.place(from))?;
            let mut sums = Vec::new();
            {
                let target = self.open_at(to, &copy)?;
                let mut conversion = Conversion::new(from, to, source.partitions()?.len());
                for partition in source.partitions()? {
                    let sum = conversion::copy(&*source, &*target, partition, &mut conversion, told)?;
                    sums.push((partition, sum));
                    at(Step::PartitionCopied);
                }
            }
            // What is read now comes from its files.
            let target = self.open_at(to, &copy)?;
            for (partition, sum) in sums {
                if conversion::sum(&*target, partition)? != sum {
                    return Err(HomeError::Differs { partition, from, to });
                }
            }
        }
        at(Step::Compared);
        let in_place = || {
            files::sync_all_below(&copy)?;
            fs::rename(&copy, self.place(to))?;
            files::sync_dir(self.dir)
        };
        in_place().map_err(|error| self.failed(error))?;
        at(Step::InPlace);
        self.write(Note { counts: to, left_over: Some(from) })?;
        at(Step::Counts);
        self.remove(from)?;
        at(Step::OldRemoved);
        self.write(Note { counts: to, left_over: None })?;
        tracing::info!(%from, %to, "the checkpoints are in the other storage engine");
        Ok(())
    }

    fn open_at(&self, kind: EngineKind, place: &Path) -> Result<Arc<dyn Engine>, HomeError> {
        let within = |default: u64| default.min(self.cache_bytes);
        Ok(match kind {
            EngineKind::Sled => {
                let cache_bytes = within(SledOptions::default().cache_bytes);
                Arc::new(SledEngine::open(place, SledOptions { cache_bytes })?)
            }
            EngineKind::Fjall => {
                let cache_bytes = within(FjallOptions::default().cache_bytes);
                Arc::new(FjallEngine::open(place, FjallOptions { cache_bytes })?)
            }
            EngineKind::Memory => Arc::new(MemoryEngine::new()),
        })
    }

    fn failed(&self, error: io::Error) -> HomeError {
        DataDirError::io(self.dir, error).into()
    }
}

fn parse(text: &str) -> Option<Note> {
    let on_disk =
        |name: &str| [EngineKind::Sled, EngineKind::Fjall].into_iter().find(|kind| kind.to_string() == name);
    let mut lines = text.lines();
    let counts = on_disk(lines.next()?)?;
    let left_over = match lines.next() {
        Some(line) => Some(on_disk(line.strip_prefix(LEFT_OVER)?)?),
        None => None,
    };
    (lines.next().is_none() && left_over != Some(counts)).then_some(Note { counts, left_over })
}
