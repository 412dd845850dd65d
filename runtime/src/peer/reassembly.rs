//! The receiving side of a bulk lane as a function of its inputs: which transfers are open, how much memory
//! they may take, and what to tell the sender.

use super::envelope::Head;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// Largest message that can travel: a batch with a largest value in it, and a log record around that with
/// room to spare. At the limit: [`crate::rpc::RpcError::TooLarge`].
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Bytes of one chunk: small enough that a chunk never delays a small message noticeably, large enough
/// that its frame costs nothing.
pub(super) const CHUNK_BYTES: usize = 64 << 10;

/// Chunks of one transfer that may be under way: with 64 KiB, 256 KiB per round trip.
pub(super) const WINDOW_CHUNKS: u32 = 4;

/// Memory for the transfers of one peer that are being put together. At the limit: further ones wait for
/// their first credit, in order, while their callers' deadlines run.
pub(super) const REASSEMBLY_BYTES_MAX: usize = 64 << 20;

/// Transfers of one peer, waiting ones included. At the limit: refused.
pub(super) const TRANSFERS_MAX: usize = 4096;

/// How long a transfer with credit may stand still before its memory is taken back.
pub(super) const TRANSFER_IDLE_MAX: Duration = Duration::from_secs(10);

/// What to do after an input, in this order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Let the sender send that many chunks more.
    Credit { transfer: u64, chunks: u32 },
    /// Tell the sender to give up.
    Refuse { transfer: u64 },
    /// A message is whole.
    Deliver { head: Head, body: Vec<u8> },
}

/// The sender broke the rules; the lane is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bulk protocol violated: {0}")]
pub(super) struct Violation(pub(super) &'static str);

#[derive(Debug)]
struct Transfer {
    head: Head,
    bytes: usize,
    body: Vec<u8>,
    /// Chunks that the sender may still send; 0 while waiting for memory.
    credit: u32,
    /// Chunks not yet granted.
    ungranted: u32,
    touched: Instant,
}

/// Open transfers of one peer.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    transfers: BTreeMap<u64, Transfer>,
    waiting: VecDeque<u64>,
    reserved_bytes: usize,
}

impl Reassembly {
    /// A transfer of `bytes` begins.
    pub(super) fn open(
        &mut self,
        now: Instant,
        transfer: u64,
        bytes: usize,
        head: Head,
    ) -> Result<Vec<Effect>, Violation> {
        if bytes == 0 || bytes > MESSAGE_BYTES_MAX {
            return Err(Violation("a transfer is empty or above the largest message"));
        }
        if self.transfers.contains_key(&transfer) {
            return Err(Violation("a transfer is opened twice"));
        }
        if self.transfers.len() >= TRANSFERS_MAX {
            return Ok(vec![Effect::Refuse { transfer }]);
        }
        let ungranted = bytes.div_ceil(CHUNK_BYTES) as u32;
        let body = Vec::new();
        self.transfers.insert(transfer, Transfer { head, bytes, body, credit: 0, ungranted, touched: now });
        self.waiting.push_back(transfer);
        Ok(self.admit(now))
    }

    /// A chunk has come.
    pub(super) fn chunk(
        &mut self,
        now: Instant,
        transfer: u64,
        bytes: &[u8],
    ) -> Result<Vec<Effect>, Violation> {
        // Given up here while the chunk was under way: no fault of the sender's.
        let Some(open) = self.transfers.get_mut(&transfer) else { return Ok(Vec::new()) };
        if open.credit == 0 {
            return Err(Violation("a chunk without credit"));
        }
        let left = open.bytes - open.body.len();
        if bytes.len() != left.min(CHUNK_BYTES) {
            return Err(Violation("a chunk of the wrong size"));
        }
        open.body.extend_from_slice(bytes);
        open.credit -= 1;
        open.touched = now;
        if bytes.len() == left {
            let done = self.remove(transfer).expect("it was there a moment ago");
            let mut effects = vec![Effect::Deliver { head: done.head, body: done.body }];
            effects.extend(self.admit(now));
            return Ok(effects);
        }
        if open.ungranted == 0 {
            return Ok(Vec::new());
        }
        open.ungranted -= 1;
        open.credit += 1;
        Ok(vec![Effect::Credit { transfer, chunks: 1 }])
    }

    /// The sender has given up.
    pub(super) fn cancel(&mut self, now: Instant, transfer: u64) -> Vec<Effect> {
        self.remove(transfer);
        self.admit(now)
    }

    /// Gives up transfers that stand still although they have credit.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<Effect> {
        let stale: Vec<u64> = self
            .transfers
            .iter()
            .filter(|(_, open)| open.credit > 0 && now - open.touched >= TRANSFER_IDLE_MAX)
            .map(|(transfer, _)| *transfer)
            .collect();
        let mut effects = Vec::new();
        for transfer in stale {
            self.remove(transfer);
            effects.push(Effect::Refuse { transfer });
        }
        effects.extend(self.admit(now));
        effects
    }

    /// Bytes set aside for transfers that have credit.
    #[cfg(test)]
    pub(super) fn reserved_bytes(&self) -> usize {
        self.reserved_bytes
    }

    fn remove(&mut self, transfer: u64) -> Option<Transfer> {
        let removed = self.transfers.remove(&transfer)?;
        if let Some(place) = self.waiting.iter().position(|waiting| *waiting == transfer) {
            self.waiting.remove(place);
        } else {
            self.reserved_bytes -= removed.bytes;
        }
        Some(removed)
    }

    /// Grants first credits while there is memory, in the order of arrival.
    fn admit(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(transfer) = self.waiting.front().copied() {
            let open = self.transfers.get_mut(&transfer).expect("waiting transfers are open");
            if self.reserved_bytes + open.bytes > REASSEMBLY_BYTES_MAX {
                break;
            }
            self.waiting.pop_front();
            self.reserved_bytes += open.bytes;
            open.body.reserve_exact(open.bytes);
            open.credit = open.ungranted.min(WINDOW_CHUNKS);
            open.ungranted -= open.credit;
            open.touched = now;
            effects.push(Effect::Credit { transfer, chunks: open.credit });
        }
        effects
    }
}

#[cfg(test)]
mod tests {
    use super::super::envelope::Kind;
    use super::*;
    use trandb_cluster::ids::NodeId;

    fn head() -> Head {
        Head { from: NodeId(1), link: 1, kind: Kind::Beat { gossip: false, batch: 0 } }
    }

    #[test]
    fn a_message_comes_back_whole_within_its_window() {
        let now = Instant::now();
        let sent: Vec<u8> = (0..CHUNK_BYTES * 6 + 7).map(|i| (i % 251) as u8).collect();
        let mut reassembly = Reassembly::default();
        let mut effects = reassembly.open(now, 9, sent.len(), head()).expect("is allowed");
        let mut chunks = sent.chunks(CHUNK_BYTES);
        let mut credit = 0;
        loop {
            for effect in effects.drain(..) {
                match effect {
                    Effect::Credit { transfer: 9, chunks } => credit += chunks,
                    Effect::Deliver { body, .. } => {
                        assert_eq!(body, sent);
                        assert_eq!((reassembly.reserved_bytes(), chunks.next()), (0, None));
                        return;
                    }
                    other => panic!("unexpected {other:?}"),
                }
            }
            assert!(credit > 0 && credit <= WINDOW_CHUNKS, "credit is {credit}");
            credit -= 1;
            let chunk = chunks.next().expect("the message is not whole yet");
            effects = reassembly.chunk(now, 9, chunk).expect("has credit");
        }
    }

    #[test]
    fn memory_is_bounded_and_handed_on_in_order() {
        let now = Instant::now();
        let mut reassembly = Reassembly::default();
        let fit = REASSEMBLY_BYTES_MAX / MESSAGE_BYTES_MAX;
        for transfer in 0..fit as u64 + 2 {
            let effects = reassembly.open(now, transfer, MESSAGE_BYTES_MAX, head()).expect("is allowed");
            assert_eq!(effects.is_empty(), transfer >= fit as u64, "transfer {transfer}");
        }
        assert_eq!(reassembly.reserved_bytes(), REASSEMBLY_BYTES_MAX);
        assert!(reassembly.chunk(now, fit as u64, &[0; CHUNK_BYTES]).is_err(), "it has no credit yet");
        let effects = reassembly.cancel(now, 0);
        assert_eq!(effects, [Effect::Credit { transfer: fit as u64, chunks: WINDOW_CHUNKS }]);
    }

    #[test]
    fn what_breaks_the_rules_is_named() {
        let now = Instant::now();
        let mut reassembly = Reassembly::default();
        assert!(reassembly.open(now, 1, MESSAGE_BYTES_MAX + 1, head()).is_err());
        assert!(reassembly.open(now, 1, 0, head()).is_err());
        reassembly.open(now, 1, CHUNK_BYTES + 1, head()).expect("is allowed");
        assert!(reassembly.open(now, 1, 1, head()).is_err());
        assert!(reassembly.chunk(now, 1, &[0; CHUNK_BYTES - 1]).is_err());
        assert_eq!(reassembly.chunk(now, 2, &[0]), Ok(Vec::new()));
    }

    #[test]
    fn what_stands_still_is_given_up_but_not_what_waits() {
        let start = Instant::now();
        let mut reassembly = Reassembly::default();
        for transfer in 0..=(REASSEMBLY_BYTES_MAX / MESSAGE_BYTES_MAX) as u64 {
            reassembly.open(start, transfer, MESSAGE_BYTES_MAX, head()).expect("is allowed");
        }
        let later = start + TRANSFER_IDLE_MAX;
        reassembly.chunk(later, 0, &[0; CHUNK_BYTES]).expect("has credit");
        let effects = reassembly.sweep(later);
        let refused = effects.iter().filter(|effect| matches!(effect, Effect::Refuse { .. })).count();
        assert_eq!(refused, 3, "all that had credit, except the one that moved");
        assert_eq!(effects.last(), Some(&Effect::Credit { transfer: 4, chunks: WINDOW_CHUNKS }));
    }

    #[test]
    fn the_number_of_transfers_is_bounded() {
        let now = Instant::now();
        let mut reassembly = Reassembly::default();
        for transfer in 0..TRANSFERS_MAX as u64 {
            reassembly.open(now, transfer, CHUNK_BYTES * 2, head()).expect("is allowed");
        }
        let one_more = TRANSFERS_MAX as u64;
        let effects = reassembly.open(now, one_more, 1, head()).expect("is no violation");
        assert_eq!(effects, [Effect::Refuse { transfer: one_more }]);
    }
}
