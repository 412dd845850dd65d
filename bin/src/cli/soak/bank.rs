//! Transfers between accounts over all partitions, and audits: the total holds in every snapshot. In the history an
//! account is a register that holds the number of its last transfer.

use super::board::Board;
use super::{Step, Workload};
use rand::RngExt;
use rand::rngs::StdRng;
use std::sync::atomic::{AtomicI64, Ordering};
use trandb_client::{Client, Error, ScanRequest, Txn, TxnOptions};
use trandb_judge::{Micro, Seen};

const ACCOUNTS: usize = 40;
const OPENING: i64 = 1000;
const TOTAL: i64 = ACCOUNTS as i64 * OPENING;

/// The most that one transfer moves.
const AMOUNT_MAX: i64 = 50;

/// Of how many transactions one is an audit.
const AUDITS: u32 = 8;

/// How often accounts are opened, or audited at the end, before that is given up.
const TRIES: usize = 100;

const PREFIX: &str = "soak/bank/";

#[derive(Default)]
pub(super) struct Bank {
    /// Numbers of transfers given out.
    numbers: AtomicI64,
}

/// An account: its last transfer, and what it holds.
#[derive(Clone, Copy)]
struct Account {
    last: i64,
    balance: i64,
}

impl Account {
    fn parse(value: &[u8]) -> Result<Self, Error> {
        let text = String::from_utf8_lossy(value);
        let parsed = text.split_once(' ').and_then(|(last, balance)| {
            Some(Self { last: last.parse().ok()?, balance: balance.parse().ok()? })
        });
        parsed.ok_or_else(|| Error::internal(format!("{text:?} is no account")))
    }

    fn value(self) -> String {
        format!("{} {}", self.last, self.balance)
    }
}

fn key(account: usize) -> String {
    format!("{PREFIX}{account:03}")
}

async fn account(txn: &Txn, key: &str) -> Result<Account, Error> {
    let found = txn.get(key).await?.ok_or_else(|| Error::internal(format!("{key} is gone")))?;
    Account::parse(&found.value)
}

impl Bank {
    fn number(&self) -> i64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    async fn transfer(client: &Client, mut steps: Vec<Micro>, amount: i64) -> Result<Vec<Micro>, Error> {
        let txn = client.begin().await?;
        let mut held = Vec::new();
        for step in &mut steps {
            if let Micro::Read(key, seen) = step {
                let account = account(&txn, key).await?;
                *seen = Seen::Number(account.last);
                held.push(account.balance);
            }
        }
        let amount = amount.min(held[0]);
        for (step, balance) in steps.iter().skip(2).zip([held[0] - amount, held[1] + amount]) {
            if let Micro::Write(key, number) = step {
                txn.put(key, Account { last: *number, balance }.value()).await?;
            }
        }
        txn.commit().await?;
        Ok(steps)
    }

    async fn audit(&self, client: &Client, board: &Board, at: usize) -> bool {
        let steps: Vec<Micro> =
            (0..ACCOUNTS).map(|account| Micro::Read(key(account), Seen::Nothing)).collect();
        let run = async {
            let txn = client.begin_with(TxnOptions { read_only: true, ..TxnOptions::default() }).await?;
            let scan = ScanRequest { prefix: PREFIX.into(), ..ScanRequest::default() };
            let page = txn.scan(scan).await?;
            txn.commit().await?;
            let (mut total, mut steps) = (0, steps.clone());
            for (step, entry) in steps.iter_mut().zip(&page.entries) {
                let account = Account::parse(&entry.value)?;
                total += account.balance;
                if let Micro::Read(key, seen) = step
                    && key.as_bytes() == &entry.key[..]
                {
                    *seen = Seen::Number(account.last);
                }
            }
            if (page.entries.len(), total) != (ACCOUNTS, TOTAL) {
                let at = page.at;
                board.complain(format!("at {at} {} accounts hold {total}", page.entries.len()));
            }
            Ok(steps)
        };
        board.record(at, &steps, run).await
    }
}

impl Workload for Bank {
    fn open<'a>(&'a self, client: &'a Client, board: &'a Board) -> Step<'a> {
        Box::pin(async move {
            for _ in 0..TRIES {
                let steps: Vec<Micro> =
                    (0..ACCOUNTS).map(|account| Micro::Write(key(account), self.number())).collect();
                let run = async {
                    let txn = client.begin().await?;
                    for step in &steps {
                        if let Micro::Write(key, number) = step {
                            txn.put(key, Account { last: *number, balance: OPENING }.value()).await?;
                        }
                    }
                    txn.commit().await?;
                    Ok(steps.clone())
                };
                if board.record(usize::MAX, &steps, run).await {
                    return;
                }
            }
            board.complain("no account could be opened".to_owned());
        })
    }

    fn work<'a>(
        &'a self,
        client: &'a Client,
        board: &'a Board,
        at: usize,
        random: &'a mut StdRng,
    ) -> Step<'a> {
        if random.random_ratio(1, AUDITS) {
            return Box::pin(async move {
                self.audit(client, board, at).await;
            });
        }
        let from = random.random_range(0..ACCOUNTS);
        let to = (from + random.random_range(1..ACCOUNTS)) % ACCOUNTS;
        let amount = random.random_range(1..=AMOUNT_MAX);
        let read = |account| Micro::Read(key(account), Seen::Nothing);
        let write = |account| Micro::Write(key(account), self.number());
        let steps = vec![read(from), read(to), write(from), write(to)];
        Box::pin(async move {
            board.record(at, &steps, Self::transfer(client, steps.clone(), amount)).await;
        })
    }

    fn close<'a>(&'a self, client: &'a Client, board: &'a Board) -> Step<'a> {
        Box::pin(async move {
            for _ in 0..TRIES {
                if self.audit(client, board, usize::MAX).await {
                    return;
                }
            }
            board.complain("no audit at the end".to_owned());
        })
    }
}
