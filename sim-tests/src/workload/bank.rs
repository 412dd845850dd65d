//! Transfers between accounts in transactions over all partitions, and audits in read-only ones: the total holds in every
//! snapshot, and no transfer is lost or done twice.

use super::{Board, Kind, Work, Workload};
use crate::cluster::Cluster;
use crate::history::History;
use rand::RngExt;
use rand::rngs::StdRng;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use trandb_client::{Client, Condition, Error, ErrorCode, ScanRequest, Txn, TxnOptions, Versioned};

/// The kind.
pub(super) const KIND: Kind = Kind {
    name: "bank",
    about: "transfers in transactions, and audits of the total",
    make: |board| Rc::new(Bank { board, wrong: RefCell::default() }),
};

/// Few, so that transfers get into each other's way, and more than partitions often are.
const ACCOUNTS: u32 = 6;
const OPENING: u64 = 100;
const TOTAL: u64 = ACCOUNTS as u64 * OPENING;

struct Bank {
    board: Board,
    wrong: RefCell<Vec<String>>,
}

/// What a client knows of its own transfers: the last that is surely done, and those after it that may be.
#[derive(Default)]
struct Ledger {
    done: u64,
    open: BTreeSet<u64>,
}

impl Workload for Bank {
    fn client(self: Rc<Self>, cluster: Cluster, node: usize, mut random: StdRng) -> Work {
        Box::pin(async move {
            let client = cluster.user(node, random.random())?;
            let (name, mut ledger, mut nth) = (format!("bank-ledger-{node}"), Ledger::default(), 0);
            while self.board.goes_on(&mut random).await {
                if random.random_ratio(1, 3) {
                    self.audit(&client).await;
                    continue;
                }
                let (from, to) = (random.random_range(0..ACCOUNTS), random.random_range(0..ACCOUNTS));
                let amount = random.random_range(1..20);
                nth += 1;
                let seen = RefCell::new(0);
                let result =
                    client.transact(|txn| transfer(txn, from, to, amount, name.clone(), nth, &seen)).await;
                // What was read of a transfer that did not commit may be old, or never have been read.
                if result.is_ok() {
                    let seen = seen.into_inner();
                    if seen != ledger.done && !ledger.open.contains(&seen) {
                        let open = &ledger.open;
                        self.wrong.borrow_mut().push(format!(
                            "{name} says {seen}, and {} was done, {open:?} perhaps",
                            ledger.done
                        ));
                    }
                    ledger = Ledger { done: nth, open: BTreeSet::new() };
                } else if result.is_err_and(|error| error.code == ErrorCode::Unknown) {
                    ledger.open.insert(nth);
                }
            }
            Ok(())
        })
    }

    fn violations(&self, _: &History) -> Vec<String> {
        self.wrong.borrow().clone()
    }
}

impl Bank {
    async fn audit(&self, client: &Client) {
        if let Ok(accounts) = accounts(client).await
            && !accounts.is_empty()
        {
            let total: u64 = accounts.iter().sum();
            if total != TOTAL || accounts.len() != ACCOUNTS as usize {
                self.wrong.borrow_mut().push(format!("a snapshot holds {accounts:?}, together {total}"));
            }
        }
    }
}

async fn accounts(client: &Client) -> Result<Vec<u64>, Error> {
    let options = TxnOptions { read_only: true, ..TxnOptions::default() };
    let txn = client.begin_with(options).await?;
    let scan = ScanRequest { prefix: "bank-account-".into(), ..ScanRequest::default() };
    let page = txn.scan(scan).await?;
    txn.commit().await?;
    Ok(page.entries.iter().map(|entry| number(&entry.value)).collect())
}

/// Opens the accounts if nobody has, moves money, and writes the ledger; what that said before is put into `seen`.
async fn transfer(
    txn: Txn,
    from: u32,
    to: u32,
    amount: u64,
    ledger: String,
    nth: u64,
    seen: &RefCell<u64>,
) -> Result<(), Error> {
    let account = |number: u32| format!("bank-account-{number}");
    let held = |found: &Option<Versioned>| found.as_ref().map_or(OPENING, |found| number(&found.value));
    let (paying, paid) = (txn.get(account(from)).await?, txn.get(account(to)).await?);
    if paying.is_none() {
        for number in 0..ACCOUNTS {
            txn.put_if(account(number), OPENING.to_string(), Condition::Absent).await?;
        }
    }
    let before = txn.get(&ledger).await?.map_or(0, |found| number(&found.value));
    seen.replace(before);
    if let Some(rest) = held(&paying).checked_sub(amount).filter(|_| from != to) {
        txn.put(account(from), rest.to_string()).await?;
        txn.put(account(to), (held(&paid) + amount).to_string()).await?;
    }
    txn.put(ledger, nth.to_string()).await
}

/// A number as it is stored; one that is none shows in the total.
fn number(value: &[u8]) -> u64 {
    String::from_utf8_lossy(value).parse().unwrap_or(u64::from(u32::MAX))
}
