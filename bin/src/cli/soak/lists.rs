//! Transactions that read lists and add to them: what tells most about isolation.

use super::board::Board;
use super::{Step, Workload};
use rand::RngExt;
use rand::rngs::StdRng;
use std::sync::{Mutex, PoisonError};
use trandb_client::{Client, Error, Isolation, TxnOptions};
use trandb_judge::{Lists, Micro, Seen, list_from_value, list_to_value};

/// Keys in use at a time.
const KEYS: usize = 6;

/// Numbers in a list.
const LENGTH_MAX: i64 = 100;

/// How often the reading of everything at the end is tried.
const LAST_TRIES: usize = 100;

pub(super) struct ListsWork {
    isolation: Isolation,
    lists: Mutex<Lists>,
}

impl ListsWork {
    pub(super) fn new(isolation: Isolation) -> Self {
        let prefix = format!("soak/lists/{}/", isolation.name());
        Self { isolation, lists: Mutex::new(Lists::new(prefix, KEYS, LENGTH_MAX)) }
    }

    async fn transaction(&self, client: &Client, mut steps: Vec<Micro>) -> Result<Vec<Micro>, Error> {
        let txn =
            client.begin_with(TxnOptions { isolation: self.isolation, ..TxnOptions::default() }).await?;
        for step in &mut steps {
            let found = txn.get(step.key()).await?;
            let list =
                found.map(|found| list_from_value(&found.value).map_err(Error::internal)).transpose()?;
            match step {
                Micro::Append(key, number) => {
                    let mut list = list.unwrap_or_default();
                    list.push(*number);
                    txn.put(&*key, list_to_value(&list)).await?;
                }
                Micro::Read(_, seen) => *seen = list.map_or(Seen::Nothing, Seen::List),
                Micro::Write(..) => unreachable!("lists are not overwritten"),
            }
        }
        txn.commit().await?;
        Ok(steps)
    }
}

impl Workload for ListsWork {
    fn open<'a>(&'a self, _: &'a Client, _: &'a Board) -> Step<'a> {
        Box::pin(std::future::ready(()))
    }

    fn work<'a>(
        &'a self,
        client: &'a Client,
        board: &'a Board,
        at: usize,
        random: &'a mut StdRng,
    ) -> Step<'a> {
        let choose = |among| random.random_range(0..among);
        let steps = self.lists.lock().unwrap_or_else(PoisonError::into_inner).transaction(choose);
        Box::pin(async move {
            board.record(at, &steps, self.transaction(client, steps.clone())).await;
        })
    }

    fn close<'a>(&'a self, client: &'a Client, board: &'a Board) -> Step<'a> {
        let all = self.lists.lock().unwrap_or_else(PoisonError::into_inner).all();
        Box::pin(async move {
            for steps in all {
                let mut tries = 0;
                while !board.record(usize::MAX, &steps, self.transaction(client, steps.clone())).await {
                    tries += 1;
                    if tries == LAST_TRIES {
                        board.complain("lists cannot be read at the end".to_owned());
                        return;
                    }
                }
            }
        })
    }
}
