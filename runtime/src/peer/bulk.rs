//! The bulk lane: a second connection beside a link, for messages above one chunk.
//!
//! ractor_cluster keeps one session per pair of nodes and writes whole frames in order, so whatever is sent
//! in one piece stands in front of everything behind it; and pieces sent over the session would share its
//! socket buffers with heartbeats. So large messages have a connection of their own, with credits: a sender
//! has at most [`WINDOW_CHUNKS`] chunks of a message under way, chunks of different messages take turns, and
//! the receiver grants the first credit only when there is memory for the whole
//! ([`super::reassembly`] decides). Whole messages go exactly where those of the session go.
//!
//! Frames are length-delimited (`u32`): a kind (`u8`), the transfer (`u64`), then
//!
//! ```text
//!   open     sender → receiver   u32 total bytes, then the head in MessagePack
//!   chunk    sender → receiver   up to 64 KiB
//!   credit   receiver → sender   u32 chunks
//!   cancel   sender → receiver
//!   refuse   receiver → sender
//! ```

use super::envelope::{Envelope, Head};
use super::hub::Hub;
use super::link::{Link, lock};
use super::reassembly::{CHUNK_BYTES, Effect, Reassembly, Violation, WINDOW_CHUNKS};
use crate::net::BoxedStream;
use crate::rpc::RpcError;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufWriter, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;

/// Largest frame: a chunk, or an opening whose head names an actor and a variant.
const FRAME_BYTES_MAX: usize = CHUNK_BYTES + (4 << 10);

/// Openings and chunks queued for the writer. Few, so that senders take turns here and not in a queue.
const QUEUE_FRAMES: usize = 4;

/// How often transfers that stand still are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

const OPEN: u8 = 1;
const CHUNK: u8 = 2;
const CREDIT: u8 = 3;
const CANCEL: u8 = 4;
const REFUSE: u8 = 5;

/// One bulk connection.
pub(super) struct Lane {
    /// Credits, cancels, refusals: small, overtaking, and at most one per frame received or message sent.
    control: mpsc::UnboundedSender<Frame>,
    data: mpsc::Sender<Frame>,
    /// Credit of each message being sent; closed when refused. The writer drops frames of those not in here.
    outgoing: Mutex<BTreeMap<u64, Arc<Semaphore>>>,
    next_transfer: AtomicU64,
    /// The connection is over.
    pub(super) closed: CancellationToken,
}

struct Frame {
    transfer: u64,
    part: Part,
}

enum Part {
    Open { bytes: u32, head: Vec<u8> },
    Chunk { bytes: Bytes, last: bool },
    Credit { chunks: u32 },
    Cancel,
    Refuse,
}

impl Lane {
    /// Runs a lane on `stream` until either side closes it or the link dies.
    pub(super) fn start(hub: Arc<Hub>, link: &Arc<Link>, stream: BoxedStream) -> Arc<Self> {
        let (control, controls) = mpsc::unbounded_channel();
        let (data, datas) = mpsc::channel(QUEUE_FRAMES);
        let lane = Arc::new(Self {
            control,
            data,
            outgoing: Mutex::default(),
            next_transfer: AtomicU64::new(1),
            closed: link.kill.child_token(),
        });
        let (read, write) = tokio::io::split(stream);
        let (reader, writer) = (lane.clone(), lane.clone());
        let label = link.label();
        tokio::spawn(async move {
            let ended = tokio::select! {
                biased;
                () = writer.closed.cancelled() => Ok(()),
                ended = writer.write(write, controls, datas) => ended,
            };
            writer.close(&label, ended.err().map(|error| error.to_string()));
        });
        let label = link.label();
        tokio::spawn(async move {
            let ended = tokio::select! {
                biased;
                () = reader.closed.cancelled() => Ok(()),
                ended = reader.read(&hub, read) => ended,
            };
            reader.close(&label, ended.err().map(|error| error.to_string()));
        });
        lane
    }

    /// Sends one message. `Ok` says that its last chunk is queued; an error, that it cannot arrive whole.
    pub(super) async fn send(&self, head: Head, body: Bytes) -> Result<(), RpcError> {
        let transfer = self.next_transfer.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("trandb_peer_bulk_messages_total").increment(1);
        let credit = Arc::new(Semaphore::new(0));
        lock(&self.outgoing).insert(transfer, credit.clone());
        let mut sending = Sending { lane: self, transfer, done: false };
        if self.closed.is_cancelled() {
            return Err(RpcError::Unreachable);
        }
        let head = rmp_serde::to_vec(&head).map_err(|_| RpcError::Decode)?;
        self.queue(transfer, Part::Open { bytes: body.len() as u32, head }).await?;
        let mut rest = body;
        while !rest.is_empty() {
            let Ok(permit) = credit.acquire().await else {
                let closed = self.closed.is_cancelled();
                return Err(if closed { RpcError::Unreachable } else { RpcError::Overloaded });
            };
            permit.forget();
            let bytes = rest.split_to(rest.len().min(CHUNK_BYTES));
            self.queue(transfer, Part::Chunk { bytes, last: rest.is_empty() }).await?;
        }
        sending.done = true;
        Ok(())
    }

    async fn queue(&self, transfer: u64, part: Part) -> Result<(), RpcError> {
        self.data.send(Frame { transfer, part }).await.map_err(|_| RpcError::Unreachable)
    }

    /// Fails everything that is being sent.
    fn close(&self, label: &str, error: Option<String>) {
        if let (false, Some(error)) = (self.closed.is_cancelled(), error) {
            tracing::warn!(link = label, %error, "bulk lane closed");
        }
        self.closed.cancel();
        for (_, credit) in std::mem::take(&mut *lock(&self.outgoing)) {
            credit.close();
        }
    }

    async fn write(
        &self,
        write: WriteHalf<BoxedStream>,
        mut controls: mpsc::UnboundedReceiver<Frame>,
        mut datas: mpsc::Receiver<Frame>,
    ) -> io::Result<()> {
        let mut write = BufWriter::with_capacity(FRAME_BYTES_MAX, write);
        let mut header = BytesMut::new();
        loop {
            let next = tokio::select! {
                biased;
                frame = controls.recv() => frame,
                frame = datas.recv() => frame,
            };
            let Some(Frame { transfer, part }) = next else { return Ok(()) };
            if matches!(part, Part::Open { .. } | Part::Chunk { .. })
                && !lock(&self.outgoing).contains_key(&transfer)
            {
                // Cancelled while it stood in the queue, which its cancel may have overtaken.
                continue;
            }
            header.clear();
            let (kind, body): (u8, &[u8]) = match &part {
                Part::Open { head, .. } => (OPEN, head),
                Part::Chunk { bytes, .. } => (CHUNK, bytes),
                Part::Credit { .. } => (CREDIT, &[]),
                Part::Cancel => (CANCEL, &[]),
                Part::Refuse => (REFUSE, &[]),
            };
            header.put_u32(0);
            header.put_u8(kind);
            header.put_u64(transfer);
            if let Part::Open { bytes: number, .. } | Part::Credit { chunks: number } = part {
                header.put_u32(number);
            }
            let bytes = header.len() - 4 + body.len();
            header[..4].copy_from_slice(&(bytes as u32).to_be_bytes());
            write.write_all(&header).await?;
            write.write_all(body).await?;
            if matches!(part, Part::Chunk { last: true, .. }) {
                lock(&self.outgoing).remove(&transfer);
            }
            if controls.is_empty() && datas.is_empty() {
                write.flush().await?;
            }
        }
    }

    async fn read(&self, hub: &Arc<Hub>, read: ReadHalf<BoxedStream>) -> io::Result<()> {
        let codec = LengthDelimitedCodec::builder().max_frame_length(FRAME_BYTES_MAX).new_codec();
        let mut frames = FramedRead::new(read, codec);
        let mut reassembly = Reassembly::default();
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let effects = tokio::select! {
                biased;
                _ = sweep.tick() => reassembly.sweep(Instant::now()),
                frame = frames.next() => match frame {
                    None => return Ok(()),
                    Some(frame) => self.received(&mut reassembly, frame?).map_err(io::Error::other)?,
                },
            };
            for effect in effects {
                match effect {
                    Effect::Credit { transfer, chunks } => self.tell(transfer, Part::Credit { chunks }),
                    Effect::Refuse { transfer } => self.tell(transfer, Part::Refuse),
                    Effect::Deliver { head, body } => hub.received(Envelope { head, body }),
                }
            }
        }
    }

    fn received(&self, reassembly: &mut Reassembly, mut frame: BytesMut) -> Result<Vec<Effect>, Violation> {
        let now = Instant::now();
        let (Ok(kind), Ok(transfer)) = (frame.try_get_u8(), frame.try_get_u64()) else {
            return Err(Violation("a frame without kind and transfer"));
        };
        match kind {
            OPEN => {
                let bytes = frame.try_get_u32().map_err(|_| Violation("an opening without a size"))?;
                let head =
                    rmp_serde::from_slice(&frame).map_err(|_| Violation("an opening without a head"))?;
                reassembly.open(now, transfer, bytes as usize, head)
            }
            CHUNK => reassembly.chunk(now, transfer, &frame),
            CANCEL => Ok(reassembly.cancel(now, transfer)),
            CREDIT => {
                let chunks = frame.try_get_u32().map_err(|_| Violation("a credit without a number"))?;
                if let Some(credit) = lock(&self.outgoing).get(&transfer) {
                    if credit.available_permits() + chunks as usize > WINDOW_CHUNKS as usize {
                        return Err(Violation("more credit than the window"));
                    }
                    credit.add_permits(chunks as usize);
                }
                Ok(Vec::new())
            }
            REFUSE => {
                if let Some(credit) = lock(&self.outgoing).remove(&transfer) {
                    credit.close();
                }
                Ok(Vec::new())
            }
            _ => Err(Violation("a frame of unknown kind")),
        }
    }

    fn tell(&self, transfer: u64, part: Part) {
        // Fails only when the writer has ended, and the lane with it.
        let _ = self.control.send(Frame { transfer, part });
    }
}

/// A message being sent; taken back when dropped before its last chunk is queued.
struct Sending<'a> {
    lane: &'a Lane,
    transfer: u64,
    done: bool,
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if !self.done && lock(&self.lane.outgoing).remove(&self.transfer).is_some() {
            self.lane.tell(self.transfer, Part::Cancel);
        }
    }
}
