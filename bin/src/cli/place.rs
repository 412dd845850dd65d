//! Where data commands work.

use super::data::Get;
use super::failure::{Failure, USAGE};
use trandb_client::{Client, Condition, Page, ScanRequest, Timestamp, Txn, Versioned, Written};

/// The cluster itself, or an open transaction on it.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    Cluster(&'a Client),
    Txn(&'a Client, &'a Txn),
}

impl<'a> Place<'a> {
    /// For what is not about data.
    pub(crate) fn client(self) -> &'a Client {
        match self {
            Self::Cluster(client) | Self::Txn(client, _) => client,
        }
    }

    pub(crate) async fn get(self, args: &Get) -> Result<Option<Versioned>, Failure> {
        Ok(match (self, args.at) {
            (Self::Cluster(_), _) if args.for_update => {
                return Err(Failure::new(USAGE, "--for-update is only for an open transaction"));
            }
            (Self::Cluster(client), Some(at)) => client.get_at(&args.key, at).await?,
            (Self::Cluster(client), None) => client.get(&args.key).await?,
            (Self::Txn(..), Some(_)) => return Err(own_time()),
            (Self::Txn(_, txn), None) if args.for_update => txn.get_for_update(&args.key).await?,
            (Self::Txn(_, txn), None) => txn.get(&args.key).await?,
        })
    }

    pub(crate) async fn exists(self, key: &str) -> Result<Option<Timestamp>, Failure> {
        Ok(match self {
            Self::Cluster(client) => client.exists(key).await?,
            Self::Txn(_, txn) => txn.exists(key).await?,
        })
    }

    /// What was written; none within a transaction, where it is not yet.
    pub(crate) async fn put_if(
        self,
        key: &str,
        value: Vec<u8>,
        condition: Condition,
    ) -> Result<Option<Written>, Failure> {
        Ok(match self {
            Self::Cluster(client) => Some(client.put_if(key, value, condition).await?),
            Self::Txn(_, txn) => {
                txn.put_if(key, value, condition).await?;
                None
            }
        })
    }

    /// As [`put_if`](Self::put_if).
    pub(crate) async fn delete_if(self, key: &str, condition: Condition) -> Result<Option<Written>, Failure> {
        Ok(match self {
            Self::Cluster(client) => Some(client.delete_if(key, condition).await?),
            Self::Txn(_, txn) => {
                txn.delete_if(key, condition).await?;
                None
            }
        })
    }

    pub(crate) async fn scan(self, scan: ScanRequest) -> Result<Page, Failure> {
        Ok(match self {
            Self::Cluster(client) => client.scan(scan).await?,
            Self::Txn(..) if scan.at.is_some() => return Err(own_time()),
            Self::Txn(_, txn) => txn.scan(scan).await?,
        })
    }
}

fn own_time() -> Failure {
    Failure::new(USAGE, "the open transaction reads at its own point in time: no --at")
}
