//! The write-ahead log's actor: the only one on a node that writes to it. Groups send it their records; it
//! hands them to the log's writer, which makes everything that is waiting durable with one sync.

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use std::fmt;
use std::time::Duration;
use trandb_runtime::raft::LogSink;
use trandb_runtime::wal::{Done, Pinned, Record, Refused, WalError, Writer};

/// How long to wait before a full queue is tried again: about one sync.
const FULL_WAIT: Duration = Duration::from_millis(2);

/// What the log's actor is sent.
pub enum WalMessage {
    /// Make these durable, after everything sent before.
    Append(Vec<Record>, Done),
    /// Which groups keep alive segments more than so many before the current one.
    PinnedBy(usize, RpcReplyPort<Vec<Pinned>>),
}

impl fmt::Debug for WalMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Append(records, _) => write!(f, "Append of {} records", records.len()),
            Self::PinnedBy(segments_behind, _) => write!(f, "PinnedBy {segments_behind} segments behind"),
        }
    }
}

impl ractor::Message for WalMessage {}

/// The actor. See the module.
pub struct WalActor;

impl Actor for WalActor {
    type Msg = WalMessage;
    type State = Writer;
    type Arguments = Writer;

    async fn pre_start(
        &self,
        _me: ActorRef<WalMessage>,
        writer: Writer,
    ) -> Result<Writer, ActorProcessingErr> {
        Ok(writer)
    }

    async fn handle(
        &self,
        _me: ActorRef<WalMessage>,
        message: WalMessage,
        writer: &mut Writer,
    ) -> Result<(), ActorProcessingErr> {
        let (mut records, mut done) = match message {
            WalMessage::Append(records, done) => (records, done),
            WalMessage::PinnedBy(segments_behind, reply) => {
                // Aside: the log answers between two batches, and appends must not wait for that.
                let writer = writer.clone();
                tokio::spawn(async move {
                    if let Ok(pinned) = writer.pinned_by(segments_behind).await {
                        let _ = reply.send(pinned);
                    }
                });
                return Ok(());
            }
        };
        // A full queue means that the disk is slower than the load: this mailbox then waits with it, in front of
        // it the groups, whose proposals in flight are bounded.
        while let Err(refused) = writer.submit(records, done) {
            let Refused { full, records: given_back, done: unheard } = refused;
            if !full {
                unheard(Err(WalError::Closed));
                return Err("the write-ahead log's writer has stopped".into());
            }
            (records, done) = (given_back, unheard);
            tokio::time::sleep(FULL_WAIT).await;
        }
        Ok(())
    }
}

/// The log's actor as the groups see it.
pub struct WalSink(pub ActorRef<WalMessage>);

impl LogSink for WalSink {
    fn submit(&self, records: Vec<Record>, done: Done) {
        if let Err(ractor::MessagingErr::SendErr(WalMessage::Append(_, done))) =
            self.0.cast(WalMessage::Append(records, done))
        {
            done(Err(WalError::Closed));
        }
    }
}
