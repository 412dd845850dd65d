//! The write-ahead log: one per node, for all its Raft groups.
//!
//! A write is one batch of records of any groups: one write to the file, one `fdatasync`, and then all of
//! it is durable. [`Writer`] gathers what many actors want written into such batches.
//!
//! # On disk
//!
//! Segments, named by their sequence number, each preallocated (integers are little-endian):
//!
//! ```text
//! segment  header 64 B │ batch │ batch │ … │ anything (zeros, or what the file held in an earlier life)
//! batch    magic u32 │ crc u32 │ number u64 │ bytes u32 │ records u32 │ record … │ padding to 64 B
//! record   payload bytes u32 │ crc u32 │ kind u8, 3 zeros │ group u32 │ term u64 │ index u64 │ payload
//! ```
//!
//! Every checksum is CRC32C and begins with the log's salt and the segment's sequence number, so what a
//! recycled file held before can never pass for part of it. Batches are numbered without gaps over the whole log, and a
//! segment's header says with which number it begins: a batch missing between two segments is noticed.
//!
//! A new segment opens with the hard state, commit point, and purge mark of every group (the *carry*), so any
//! run of the newest segments is complete by itself. The carry also says which entries live in the segments before
//! it: those that recovery finds neither there nor purged since were in a segment that is lost. Segments go from the
//! oldest on, when no group has a live entry in them; one or two are kept to be recycled.
//!
//! # A torn tail, or rot?
//!
//! A batch is written only after the one before it is durable, and after any failure nothing is written at
//! all until the log was opened anew. So a crash can damage the last batch only, though in any of its sectors.
//! When a batch does not check out, then:
//!
//! - a valid header of a *later* batch anywhere after it, or a later segment, proves that it was durable
//!   once: the disk rotted, and opening fails with [`WalError::Corrupt`];
//! - otherwise it was never acknowledged: it is cut, its place zeroed, and the log goes on from there.
//!
//! Batches begin at multiples of 64 bytes, so that search is quick, and the salt keeps clients from planting
//! such a header in a value. The last batch found valid is written once more and synced before anything else: after
//! a failed sync the page cache may show what the disk does not hold.
//!
//! # No room
//!
//! A write that finds no room has done nothing that counts: a segment that could not be made is taken away again, and what
//! was written of a batch is written over by the same batch. So it is tried again until there is room, by
//! [`Writer`], which says that it waits. A sync that fails is another matter, whatever it says of room.
//!
//! # Caveats
//!
//! Rot of the very last batch cannot be told from a tear, so it is cut. The other replicas still have it, and nodes that have
//! heard of it do not link to who lacks it. To tell the two apart would take a second write after every sync.

mod batches;
mod error;
mod format;
#[cfg(test)]
mod full_tests;
mod index;
mod log;
mod reader;
mod recovery;
#[cfg(test)]
mod rot_tests;
mod segment;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod twin_tests;
mod writer;

pub use error::WalError;
pub use format::{Location, RECORD_BYTES_MAX, Record, RecordKind};
pub use index::Pinned;
pub use log::{Durable, Wal, WalOptions, WalStats};
pub use reader::WalReader;
pub use recovery::{Recovered, RecoveredGroup};
pub use writer::{Done, Refused, Writer, WriterOptions};
