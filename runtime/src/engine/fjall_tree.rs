//! The trees of a fjall database, looked at before fjall does.
//!
//! ```text
//! current     number of the manifest (8) · its checksum (16) · 0
//! v<number>   the manifest: sections, table of contents, trailer
//! tables/<n>  sorted records: sections, table of contents, trailer
//!
//! contents    "TOC!" · sections (4) · (position (8) · bytes (8) · name bytes (2) · name), …
//! trailer     "SFA!" · 1 · 0 · checksum of the contents (16) · position of the contents (8) · their bytes (8)
//! ```
//!
//! Numbers are little-endian. fjall checks the blocks of records when it reads them, but neither the manifest, whose checksum
//! it has, nor how many sections a table of contents says that there are before it asks for memory for them: with
//! one bit wrong it opens as an older state, or ends the process. Both are checked here. Files that the manifest does not
//! name are what a crash left unfinished; fjall removes them.

use super::fjall_journal::Reader;
use super::guard::Fault;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use xxhash_rust::xxh3::xxh3_128;

const CURRENT_BYTES: usize = 8 + 16 + 1;
const TRAILER_BYTES: usize = 4 + 1 + 1 + 16 + 8 + 8;
const TRAILER: &[u8] = b"SFA!\x01\x00";
const CONTENTS: &[u8] = b"TOC!";

/// Bytes of a table of contents at the most; it has a handful of sections.
const CONTENTS_BYTES_MAX: u64 = 1 << 16;

/// Refuses a tree whose manifest or whose tables' contents are not what was written.
pub(super) fn check(dir: &Path) -> Result<(), Fault> {
    let manifest = manifest(dir).map_err(|error| refuse(dir, "the manifest", error))?;
    for number in manifest {
        let table = dir.join("tables").join(number.to_string());
        File::open(&table)
            .and_then(|mut file| contents(&mut file))
            .map_err(|error| refuse(&table, "the table of contents", error))?;
    }
    Ok(())
}

fn refuse(path: &Path, what: &str, error: io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound => {
            Fault::Corrupt(format!("{what} of {} is damaged: {error}", path.display()))
        }
        _ => Fault::Io(error),
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is not what was written")
}

/// The tables that the manifest names.
fn manifest(dir: &Path) -> io::Result<Vec<u64>> {
    let current = fs::read(dir.join("current"))?;
    let current: [u8; CURRENT_BYTES] = current.try_into().map_err(|_| damaged())?;
    let (number, rest) = current.split_at(8);
    let (checksum, kind) = rest.split_at(16);
    let number = u64::from_le_bytes(number.try_into().expect("eight bytes"));
    let mut file = File::open(dir.join(format!("v{number}")))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    if kind != [0] || checksum != xxh3_128(&bytes).to_le_bytes() {
        return Err(damaged());
    }
    let contents = contents(&mut file)?;
    tables(&bytes, &contents).ok_or_else(damaged)
}

/// A file's table of contents, whole.
fn contents(file: &mut File) -> io::Result<Vec<u8>> {
    let length = file.seek(SeekFrom::End(0))?;
    let trailer_at = length.checked_sub(TRAILER_BYTES as u64).ok_or_else(damaged)?;
    file.seek(SeekFrom::Start(trailer_at))?;
    let mut trailer = [0; TRAILER_BYTES];
    file.read_exact(&mut trailer)?;
    let (head, rest) = trailer.split_at(TRAILER.len());
    let (checksum, rest) = rest.split_at(16);
    let (position, bytes) = rest.split_at(8);
    let position = u64::from_le_bytes(position.try_into().expect("eight bytes"));
    let bytes = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let end = position.checked_add(bytes);
    if head != TRAILER || bytes > CONTENTS_BYTES_MAX || end != Some(trailer_at) {
        return Err(damaged());
    }
    file.seek(SeekFrom::Start(position))?;
    let mut contents = vec![0; bytes as usize];
    file.read_exact(&mut contents)?;
    if !contents.starts_with(CONTENTS) || checksum != xxh3_128(&contents).to_le_bytes() {
        return Err(damaged());
    }
    Ok(contents)
}

/// What the manifest's section of tables says: levels (1) of runs (1) of tables (4), each with its number first.
fn tables(manifest: &[u8], contents: &[u8]) -> Option<Vec<u64>> {
    let (from, bytes) = section(contents, b"tables")?;
    let mut reader = Reader { bytes: manifest.get(from..from.checked_add(bytes)?)?, at: 0 };
    let mut found = Vec::new();
    for _ in 0..reader.number::<1>()? {
        for _ in 0..reader.number::<1>()? {
            for _ in 0..reader.number::<4>()? {
                found.push(reader.number::<8>()? as u64);
                // Kind and checksum of the file, and a sequence number.
                reader.take(1 + 16 + 8)?;
            }
        }
    }
    Some(found)
}

/// Where the section of that name is, and how long.
fn section(contents: &[u8], wanted: &[u8]) -> Option<(usize, usize)> {
    let mut reader = Reader { bytes: contents, at: CONTENTS.len() };
    for _ in 0..reader.number::<4>()? {
        let place = (reader.number::<8>()?, reader.number::<8>()?);
        let name_bytes = reader.number::<2>()?;
        if reader.take(name_bytes)? == wanted {
            return Some(place);
        }
    }
    None
}
