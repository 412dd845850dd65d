//! Commit indexes that travel along with the next entries, instead of in messages of their own.
//!
//! ```text
//!   Raft:   entry 5    commit 5    entry 6            commit 6
//!   sent:   entry 5                entry 6, commit 5              commit 6, HOLD later
//! ```
//!
//! A leader tells followers of every commit, so that they apply it. Appends to a follower go one after the other: one that
//! carries nothing but a commit index keeps the entries behind it from leaving for a round trip, and costs a busy group as much
//! as its entries do. So it waits for a moment, and what comes meanwhile takes its place: each append carries the newest
//! commit index.
//!
//! Nobody waits for it: leaders answer as soon as a majority has an entry. What it delays is the state of followers, by
//! [`HOLD`] where nothing else is written.

use super::types::TypeConfig;
use futures_util::{Stream, StreamExt};
use openraft::raft::AppendEntriesRequest;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// How long a commit index waits for entries to go along with. Followers that answer for the past are behind by as much,
/// which is little beside what one of them takes to hear of an entry and sync it.
const HOLD: Duration = Duration::from_millis(10);

type Request = AppendEntriesRequest<TypeConfig>;

/// The appends of a stream, without those that the next one makes needless.
///
/// What a stream begins with is sent at once: that is how heartbeats go, and the search for where logs part.
pub(super) struct CommitsAlong<S> {
    appends: S,
    began: bool,
    ended: bool,
    held: Option<(Request, Pin<Box<Sleep>>)>,
}

impl<S> CommitsAlong<S> {
    pub(super) fn new(appends: S) -> Self {
        Self { appends, began: false, ended: false, held: None }
    }
}

impl<S: Stream<Item = Request> + Unpin> Stream for CommitsAlong<S> {
    type Item = Request;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Request>> {
        let this = &mut *self;
        while !this.ended {
            match this.appends.poll_next_unpin(context) {
                Poll::Ready(Some(append)) if this.began && append.entries.is_empty() => {
                    // The first one's time is everybody's, or commits that follow each other would never leave.
                    let timer = this.held.take().map_or_else(|| Box::pin(sleep(HOLD)), |(_, timer)| timer);
                    this.held = Some((append, timer));
                }
                Poll::Ready(Some(append)) => {
                    this.began = true;
                    this.held = None;
                    return Poll::Ready(Some(append));
                }
                Poll::Ready(None) => this.ended = true,
                Poll::Pending => {
                    let Some((_, timer)) = &mut this.held else { return Poll::Pending };
                    std::task::ready!(timer.as_mut().poll(context));
                    break;
                }
            }
        }
        Poll::Ready(this.held.take().map(|(append, _)| append))
    }
}

#[cfg(test)]
mod tests {
    use super::super::log::log_id;
    use super::*;
    use futures_util::stream;
    use openraft::{EntryPayload, Vote};
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    /// An append with so many entries that says that everything is committed up to `commit`.
    fn append(entries: u64, commit: u64) -> Request {
        let entry = |nth| openraft::Entry { log_id: log_id(1, commit + nth), payload: EntryPayload::Blank };
        Request {
            vote: Vote::new_committed(1, 0),
            prev_log_id: None,
            entries: (1..=entries).map(entry).collect(),
            leader_commit: Some(log_id(1, commit)),
        }
    }

    fn shape(append: Option<Request>) -> Option<(usize, u64)> {
        append.map(|append| (append.entries.len(), append.leader_commit.expect("they all have one").index))
    }

    /// Sends appends into a stream while it is read.
    fn channel() -> (mpsc::UnboundedSender<Request>, CommitsAlong<impl Stream<Item = Request> + Unpin>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let appends = stream::unfold(receiver, |mut receiver: mpsc::UnboundedReceiver<_>| async {
            receiver.recv().await.map(|append| (append, receiver))
        });
        (sender, CommitsAlong::new(Box::pin(appends)))
    }

    #[tokio::test(start_paused = true)]
    async fn entries_take_the_commit_before_them_along() {
        let (sender, mut along) = channel();
        let began = Instant::now();
        for append in [append(1, 4), append(0, 5), append(0, 6), append(2, 6)] {
            sender.send(append).expect("the stream is there");
        }
        assert_eq!(shape(along.next().await), Some((1, 4)));
        assert_eq!(shape(along.next().await), Some((2, 6)));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_that_nothing_follows_goes_by_itself() {
        let (sender, mut along) = channel();
        sender.send(append(1, 4)).expect("the stream is there");
        assert_eq!(shape(along.next().await), Some((1, 4)));
        let began = Instant::now();
        sender.send(append(0, 5)).expect("the stream is there");
        let later = async {
            sleep(HOLD / 2).await;
            sender.send(append(0, 6)).expect("the stream is there");
        };
        // A newer one takes its place, and its time.
        let (append, ()) = tokio::join!(along.next(), later);
        assert_eq!(shape(append), Some((0, 6)));
        assert!(began.elapsed() >= HOLD && began.elapsed() < HOLD * 3 / 2, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_first_does_not_wait_and_what_is_last_is_not_lost() {
        let began = Instant::now();
        let mut along = CommitsAlong::new(stream::iter([append(0, 4), append(0, 5)]));
        assert_eq!(shape(along.next().await), Some((0, 4)));
        assert_eq!(shape(along.next().await), Some((0, 5)));
        assert_eq!(shape(along.next().await), None);
        assert_eq!(shape(along.next().await), None);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
