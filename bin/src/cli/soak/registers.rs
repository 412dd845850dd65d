//! Single keys that are written and read outside of transactions: they are linearizable.

use super::board::Board;
use super::{Step, Workload};
use rand::RngExt;
use rand::rngs::StdRng;
use std::sync::atomic::{AtomicI64, Ordering};
use trandb_client::{Client, Error};
use trandb_judge::{Micro, Seen};

const KEYS: usize = 8;

#[derive(Default)]
pub(super) struct Registers {
    /// Numbers written so far.
    numbers: AtomicI64,
}

async fn operation(client: &Client, mut step: Micro) -> Result<Vec<Micro>, Error> {
    match &mut step {
        Micro::Write(key, number) => {
            client.put(&*key, number.to_string()).await?;
        }
        Micro::Read(key, seen) => {
            *seen = match client.get(&*key).await? {
                None => Seen::Nothing,
                Some(found) => {
                    let text = String::from_utf8_lossy(&found.value);
                    let number =
                        text.parse().map_err(|_| Error::internal(format!("{text:?} is no number")))?;
                    Seen::Number(number)
                }
            };
        }
        Micro::Append(..) => unreachable!("registers are no lists"),
    }
    Ok(vec![step])
}

impl Workload for Registers {
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
        let key = format!("soak/register/{}", random.random_range(0..KEYS));
        let step = match random.random_ratio(1, 2) {
            true => Micro::Write(key, self.numbers.fetch_add(1, Ordering::Relaxed) + 1),
            false => Micro::Read(key, Seen::Nothing),
        };
        Box::pin(async move {
            board.record(at, std::slice::from_ref(&step), operation(client, step.clone())).await;
        })
    }

    fn close<'a>(&'a self, _: &'a Client, _: &'a Board) -> Step<'a> {
        Box::pin(std::future::ready(()))
    }
}
