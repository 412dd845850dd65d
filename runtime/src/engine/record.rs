//! How versions and metas are laid out in a tree of small entries.
//!
//! ```text
//! version, chunk 0     key length (2) · key · timestamp (8) · 0 (4)  ▶  index (8) · kind (1) · value length (4) · value…
//! version, chunk n     key length (2) · key · timestamp (8) · n (4)  ▶  value…
//! meta, chunk 0        0xffff · 0 (4)                                ▶  length (4) · meta…
//! meta, chunk n        0xffff · n (4)                                ▶  meta…
//! ```
//!
//! All numbers are big-endian. The key's length stands first so that no key's record can fall between two
//! chunks of another's; the price is that records lie in order of key length, which no one needs. Engines that
//! take entries of any size leave a record whole, as its chunk 0.

use crate::engine::EngineError;
use bytes::{BufMut, Bytes, BytesMut};
use trandb_cluster::mvcc::{StoredVersion, Version};
use trandb_cluster::{EncodedKey, Timestamp};

/// Bytes of one entry's value at the most. Sled writes a page that outgrows its segments into a file of its
/// own, which it never syncs; a page holds up to 17 entries, and at this size stays far below that.
pub(super) const CHUNK_BYTES: usize = 4096;

/// No bound: each record is one entry.
pub(super) const WHOLE: usize = usize::MAX;

/// What a length field must not say, since metas begin so.
pub(super) const META_PREFIX: [u8; 2] = [0xff, 0xff];

const LENGTH_BYTES: usize = 2;
const CHUNK_NUMBER_BYTES: usize = 4;
const SUFFIX_BYTES: usize = 8 + CHUNK_NUMBER_BYTES;
const VERSION_HEADER_BYTES: usize = 8 + 1 + 4;
const META_HEADER_BYTES: usize = 4;

const KIND_TOMBSTONE: u8 = 0;
const KIND_VALUE: u8 = 1;

/// The names of a record's entries, which differ in their last bytes only.
pub(super) struct EntryKey(Vec<u8>);

impl EntryKey {
    /// The name of a version's first entry.
    pub(super) fn version(key: &EncodedKey, timestamp: Timestamp) -> Result<Self, EngineError> {
        let key = key.as_bytes();
        let length = u16::try_from(key.len())
            .ok()
            .filter(|length| length.to_be_bytes() != META_PREFIX)
            .ok_or_else(|| EngineError::failed(format!("a key of {} bytes does not fit", key.len())))?;
        let mut name = Vec::with_capacity(LENGTH_BYTES + key.len() + SUFFIX_BYTES);
        name.put_u16(length);
        name.put_slice(key);
        name.put_u64(timestamp.0);
        name.put_u32(0);
        Ok(Self(name))
    }

    /// The name of a meta's first entry.
    pub(super) fn meta() -> Self {
        let mut name = META_PREFIX.to_vec();
        name.put_u32(0);
        Self(name)
    }

    /// The name of the record's entry number `chunk`.
    pub(super) fn chunk(&mut self, chunk: u32) -> &[u8] {
        let number = self.0.len() - CHUNK_NUMBER_BYTES;
        self.0[number..].copy_from_slice(&chunk.to_be_bytes());
        &self.0
    }
}

/// A record's content, cut into entries.
pub(super) struct Entries<'a> {
    first: Vec<u8>,
    rest: &'a [u8],
    entry_bytes_max: usize,
}

impl<'a> Entries<'a> {
    /// A version's entries, none of them longer than `entry_bytes_max`: [`CHUNK_BYTES`] where size matters, else
    /// [`WHOLE`].
    pub(super) fn version(version: &'a Version, entry_bytes_max: usize) -> Result<Self, EngineError> {
        let value = version.value.as_deref().unwrap_or_default();
        let mut first = Vec::with_capacity(VERSION_HEADER_BYTES + value.len().min(entry_bytes_max));
        first.put_u64(version.index);
        first.put_u8(if version.value.is_some() { KIND_VALUE } else { KIND_TOMBSTONE });
        Self::new(first, value, entry_bytes_max)
    }

    /// The same for a meta.
    pub(super) fn meta(meta: &'a [u8], entry_bytes_max: usize) -> Result<Self, EngineError> {
        let first = Vec::with_capacity(META_HEADER_BYTES + meta.len().min(entry_bytes_max));
        Self::new(first, meta, entry_bytes_max)
    }

    fn new(mut first: Vec<u8>, payload: &'a [u8], entry_bytes_max: usize) -> Result<Self, EngineError> {
        let length = u32::try_from(payload.len())
            .map_err(|_| EngineError::failed(format!("a record of {} bytes does not fit", payload.len())))?;
        first.put_u32(length);
        let (inline, rest) = payload.split_at(payload.len().min(entry_bytes_max - first.len()));
        first.put_slice(inline);
        Ok(Self { first, rest, entry_bytes_max })
    }

    /// How many entries there are, at least one.
    pub(super) fn count(&self) -> u32 {
        1 + self.rest.len().div_ceil(self.entry_bytes_max) as u32
    }

    /// The only entry of a record that is stored whole.
    pub(super) fn into_whole(self) -> Vec<u8> {
        debug_assert!(self.rest.is_empty(), "it was not cut");
        self.first
    }

    /// The entries, first to last.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(self.first.as_slice()).chain(self.rest.chunks(self.entry_bytes_max))
    }
}

/// How many entries the version has whose first entry is `first`.
pub(super) fn version_entries(first: &[u8]) -> Result<u32, String> {
    Ok(entries_of(VersionHeader::parse(first)?.value_bytes, VERSION_HEADER_BYTES))
}

/// How many entries the meta has whose first entry is `first`, and its length in bytes.
pub(super) fn meta_entries(first: &[u8]) -> Result<(u32, usize), String> {
    let length = first
        .first_chunk()
        .map(|length| u32::from_be_bytes(*length) as usize)
        .ok_or_else(|| format!("a meta entry has only {} bytes", first.len()))?;
    Ok((entries_of(length, META_HEADER_BYTES), length))
}

/// What a meta's first entry holds of the meta.
pub(super) fn meta_payload(first: &[u8]) -> &[u8] {
    first.get(META_HEADER_BYTES..).unwrap_or_default()
}

/// The meta that is stored whole in `entry`.
pub(super) fn whole_meta(entry: &[u8]) -> Result<Bytes, String> {
    let (_, length) = meta_entries(entry)?;
    let meta = meta_payload(entry);
    if meta.len() != length {
        return Err(format!("the meta has {} bytes instead of {length}", meta.len()));
    }
    Ok(Bytes::copy_from_slice(meta))
}

fn entries_of(payload_bytes: usize, header_bytes: usize) -> u32 {
    1 + payload_bytes.saturating_sub(CHUNK_BYTES - header_bytes).div_ceil(CHUNK_BYTES) as u32
}

struct VersionHeader {
    index: u64,
    is_value: bool,
    value_bytes: usize,
}

impl VersionHeader {
    fn parse(first: &[u8]) -> Result<Self, String> {
        let header: &[u8; VERSION_HEADER_BYTES] =
            first.first_chunk().ok_or_else(|| format!("an entry has only {} bytes", first.len()))?;
        let (index, kind_and_length) = header.split_at(8);
        let (kind, length) = kind_and_length.split_at(1);
        let is_value = match kind[0] {
            KIND_TOMBSTONE => false,
            KIND_VALUE => true,
            other => return Err(format!("an entry is of the unknown kind {other}")),
        };
        Ok(Self {
            index: u64::from_be_bytes(index.try_into().expect("eight bytes")),
            is_value,
            value_bytes: u32::from_be_bytes(length.try_into().expect("four bytes")) as usize,
        })
    }
}

/// Puts versions together from a tree's entries, which it must get in order.
#[derive(Default)]
pub(super) struct Assembler {
    pending: Option<Pending>,
}

/// A version of which some entries are still to come.
struct Pending {
    /// The record's name without the chunk's number.
    prefix: Vec<u8>,
    next_chunk: u32,
    key: EncodedKey,
    timestamp: Timestamp,
    index: u64,
    value: BytesMut,
    value_bytes: usize,
}

impl Assembler {
    /// Takes the next entry; answers the version that it completes.
    pub(super) fn take(&mut self, name: &[u8], entry: &[u8]) -> Result<Option<StoredVersion>, String> {
        if name.starts_with(&META_PREFIX) {
            return Ok(None);
        }
        let split = name
            .len()
            .checked_sub(CHUNK_NUMBER_BYTES)
            .ok_or_else(|| format!("an entry's name has only {} bytes", name.len()))?;
        let (prefix, chunk) = name.split_at(split);
        let chunk = u32::from_be_bytes(chunk.try_into().expect("four bytes"));
        match self.pending.take() {
            None if chunk == 0 => self.begin(prefix, entry),
            Some(pending) if pending.prefix == prefix && pending.next_chunk == chunk => {
                self.extend(pending, entry)
            }
            None => Err(format!("chunk {chunk} of a version has no beginning")),
            Some(pending) => Err(format!("chunk {} of a version is missing", pending.next_chunk)),
        }
    }

    /// Ends the tree.
    pub(super) fn finish(self) -> Result<(), String> {
        match self.pending {
            None => Ok(()),
            Some(pending) => Err(format!("chunk {} of the last version is missing", pending.next_chunk)),
        }
    }

    fn begin(&mut self, prefix: &[u8], first: &[u8]) -> Result<Option<StoredVersion>, String> {
        let (key, timestamp) = parse_prefix(prefix)?;
        let header = VersionHeader::parse(first)?;
        let inline = &first[VERSION_HEADER_BYTES..];
        if !header.is_value {
            if header.value_bytes != 0 || !inline.is_empty() {
                return Err("a tombstone has a value".into());
            }
            return Ok(Some(StoredVersion {
                key,
                version: Version { timestamp, index: header.index, value: None },
            }));
        }
        if inline.len() == header.value_bytes {
            let value = Some(Bytes::copy_from_slice(inline));
            return Ok(Some(StoredVersion {
                key,
                version: Version { timestamp, index: header.index, value },
            }));
        }
        if inline.len() > header.value_bytes {
            return Err(format!("a value of {} bytes is too long", header.value_bytes));
        }
        // What one entry claims must not decide how much memory is taken: the value grows as it comes.
        let mut value =
            BytesMut::with_capacity(header.value_bytes.min(trandb_cluster::limits::VALUE_BYTES_MAX));
        value.put_slice(inline);
        self.pending = Some(Pending {
            prefix: prefix.to_vec(),
            next_chunk: 1,
            key,
            timestamp,
            index: header.index,
            value,
            value_bytes: header.value_bytes,
        });
        Ok(None)
    }

    fn extend(&mut self, mut pending: Pending, entry: &[u8]) -> Result<Option<StoredVersion>, String> {
        pending.value.put_slice(entry);
        pending.next_chunk += 1;
        if pending.value.len() > pending.value_bytes {
            return Err(format!("a value of {} bytes is too long", pending.value_bytes));
        }
        if pending.value.len() < pending.value_bytes {
            if entry.len() != CHUNK_BYTES {
                return Err(format!("chunk {} of a version is cut short", pending.next_chunk - 1));
            }
            self.pending = Some(pending);
            return Ok(None);
        }
        let Pending { key, timestamp, index, value, .. } = pending;
        Ok(Some(StoredVersion { key, version: Version { timestamp, index, value: Some(value.freeze()) } }))
    }
}

fn parse_prefix(prefix: &[u8]) -> Result<(EncodedKey, Timestamp), String> {
    let malformed = || format!("the name of an entry is malformed: {}", prefix.escape_ascii());
    let (length, rest) = prefix.split_first_chunk::<LENGTH_BYTES>().ok_or_else(malformed)?;
    let (key, timestamp) = rest.split_last_chunk::<8>().ok_or_else(malformed)?;
    if key.len() != usize::from(u16::from_be_bytes(*length)) {
        return Err(malformed());
    }
    let key = EncodedKey::from_stored(Bytes::copy_from_slice(key)).map_err(|error| error.message)?;
    Ok((key, Timestamp(u64::from_be_bytes(*timestamp))))
}
