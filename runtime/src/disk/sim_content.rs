//! What a simulated file holds, and how a write to it can go half done.

use std::collections::BTreeMap;
use std::io;

/// Memory is kept in pages of this size, so that a preallocated file costs nothing.
const PAGE_BYTES: u64 = 4096;

/// What a disk writes wholly or not at all.
const SECTOR_BYTES: usize = 512;

/// A change of a file that no sync has covered yet.
#[derive(Clone)]
pub(super) enum Write {
    Data { offset: u64, data: Vec<u8> },
    Length(u64),
}

#[derive(Clone, Default)]
pub(super) struct Content {
    pages: BTreeMap<u64, Vec<u8>>,
    bytes: u64,
}

impl Content {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if offset + buffer.len() as u64 > self.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (page, within, range) in pieces(offset, buffer.len()) {
            match self.pages.get(&page) {
                Some(bytes) => buffer[range.clone()].copy_from_slice(&bytes[within..within + range.len()]),
                None => buffer[range].fill(0),
            }
        }
        Ok(())
    }

    pub(super) fn write(&mut self, data: &[u8], offset: u64) {
        for (page, within, range) in pieces(offset, data.len()) {
            let bytes = self.pages.entry(page).or_insert_with(|| vec![0; PAGE_BYTES as usize]);
            bytes[within..within + range.len()].copy_from_slice(&data[range]);
        }
        self.bytes = self.bytes.max(offset + data.len() as u64);
    }

    pub(super) fn set_len(&mut self, bytes: u64) {
        if bytes < self.bytes {
            self.pages.retain(|page, _| page * PAGE_BYTES < bytes);
            if let Some(last) = self.pages.get_mut(&(bytes / PAGE_BYTES)) {
                last[(bytes % PAGE_BYTES) as usize..].fill(0);
            }
        }
        self.bytes = bytes;
    }

    pub(super) fn apply(&mut self, write: &Write) {
        match write {
            Write::Data { offset, data } => self.write(data, *offset),
            Write::Length(bytes) => self.set_len(*bytes),
        }
    }

    /// Keeps all, nothing, a beginning, or any sectors of a write.
    pub(super) fn apply_torn(&mut self, write: &Write, random: &mut SplitMix) {
        let Write::Data { offset, data } = write else {
            if random.flip() {
                self.apply(write);
            }
            return;
        };
        match random.next() % 4 {
            0 => self.apply(write),
            1 => {}
            2 => {
                let bytes = (random.next() % (data.len() as u64 + 1)) as usize;
                self.write(&data[..bytes], *offset);
            }
            _ => {
                let mut from = 0;
                while from < data.len() {
                    // Sectors lie at multiples of their size in the file, not in the write.
                    let at = offset + from as u64;
                    let room = SECTOR_BYTES - (at % SECTOR_BYTES as u64) as usize;
                    let to = data.len().min(from + room);
                    if random.flip() {
                        self.write(&data[from..to], at);
                    }
                    from = to;
                }
            }
        }
    }
}

/// Cuts a range at the borders of pages: page, offset in it, range in the buffer.
fn pieces(offset: u64, bytes: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        if from == bytes {
            return None;
        }
        let at = offset + from as u64;
        let within = (at % PAGE_BYTES) as usize;
        let to = bytes.min(from + PAGE_BYTES as usize - within);
        let piece = (at / PAGE_BYTES, within, from..to);
        from = to;
        Some(piece)
    })
}

/// The generator of Steele, Lea and Flood ("Fast splittable pseudorandom number generators", 2014): small,
/// and the same on every platform for ever.
pub(super) struct SplitMix(u64);

impl SplitMix {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn flip(&mut self) -> bool {
        self.next().is_multiple_of(2)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
