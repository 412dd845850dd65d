//! Scans that go on from page to page.

use crate::client::Client;
use crate::txn::Txn;
use futures_util::stream::{self, Stream};
use trandb_cluster::Error;
use trandb_cluster::wire::{Entry, Page, ScanRequest};

/// The pages of one scan, see [`Client::pages`] and [`Txn::pages`]. Fetches a page when asked for it, never ahead.
pub struct Pages {
    source: Source,
    /// None after the last page.
    next: Option<ScanRequest>,
}

/// Who fetches.
pub(crate) enum Source {
    Client(Client),
    Txn(Txn),
}

impl Pages {
    pub(crate) fn new(source: Source, scan: ScanRequest) -> Self {
        Self { source, next: Some(scan) }
    }

    /// The next page; none after the last. After an error it may be called again for the same page.
    ///
    /// # Errors
    /// As [`Client::scan`].
    pub async fn next(&mut self) -> Result<Option<Page>, Error> {
        let Some(scan) = &self.next else { return Ok(None) };
        let page = match &self.source {
            Source::Client(client) => client.scan(scan.clone()).await?,
            Source::Txn(txn) => txn.scan(scan.clone()).await?,
        };
        self.next = page
            .cursor
            .clone()
            .map(|cursor| ScanRequest { cursor: Some(cursor), ..self.next.take().expect("looked at above") });
        Ok(Some(page))
    }

    /// The pages as a stream, which ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Page, Error>> + Send {
        stream::try_unfold(self, |mut pages| async move { Ok(pages.next().await?.map(|page| (page, pages))) })
    }

    /// All entries from here on, in memory: at the most `entries_max`, and whether there are more.
    ///
    /// # Errors
    /// As [`Client::scan`].
    pub async fn collect(mut self, entries_max: usize) -> Result<(Vec<Entry>, bool), Error> {
        let mut entries = Vec::new();
        while let Some(page) = self.next().await? {
            entries.extend(page.entries);
            if entries.len() >= entries_max {
                let more = entries.len() > entries_max || self.next.is_some();
                entries.truncate(entries_max);
                return Ok((entries, more));
            }
        }
        Ok((entries, false))
    }
}
