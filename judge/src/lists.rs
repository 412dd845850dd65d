//! Lists kept as the values of keys, and random transactions over them.

use crate::history::{Micro, Seen};

/// Steps of a transaction, at most.
const STEPS_MAX: usize = 4;

/// What transactions on lists do. A few keys are in use at a time, so that clients get into each other's way; each is
/// left for a new one before its list grows long, since every read of it shows all.
#[derive(Debug)]
pub struct Lists {
    prefix: String,
    /// How many numbers have been added to each key; those in use come last.
    added: Vec<i64>,
    in_use: usize,
    length_max: i64,
}

impl Lists {
    /// Keys begin with `prefix`, `in_use` at a time, for up to `length_max` numbers each.
    pub fn new(prefix: impl Into<String>, in_use: usize, length_max: i64) -> Self {
        Self { prefix: prefix.into(), added: vec![0; in_use], in_use, length_max }
    }

    fn key(&self, at: usize) -> String {
        format!("{}{at}", self.prefix)
    }

    /// The steps of the next transaction; `choose(n)` is a random number below `n`.
    pub fn transaction(&mut self, mut choose: impl FnMut(usize) -> usize) -> Vec<Micro> {
        let steps = 1 + choose(STEPS_MAX);
        (0..steps).map(|_| self.step(&mut choose)).collect()
    }

    fn step(&mut self, choose: &mut impl FnMut(usize) -> usize) -> Micro {
        let at = self.added.len() - 1 - choose(self.in_use);
        let key = self.key(at);
        if choose(2) == 0 {
            return Micro::Read(key, Seen::Nothing);
        }
        self.added[at] += 1;
        let number = self.added[at];
        if number == self.length_max {
            self.added.push(0);
        }
        Micro::Append(key, number)
    }

    /// Transactions that read every list there has been, a few at a time: what nobody sees nobody can judge.
    pub fn all(&self) -> Vec<Vec<Micro>> {
        let reads: Vec<Micro> =
            (0..self.added.len()).map(|at| Micro::Read(self.key(at), Seen::Nothing)).collect();
        reads.chunks(STEPS_MAX).map(<[Micro]>::to_vec).collect()
    }
}

/// A list as a value.
pub fn list_to_value(list: &[i64]) -> String {
    let numbers: Vec<String> = list.iter().map(i64::to_string).collect();
    numbers.join(",")
}

/// A value as the list it is.
///
/// # Errors
/// If it is none.
pub fn list_from_value(value: &[u8]) -> Result<Vec<i64>, String> {
    let text = String::from_utf8_lossy(value);
    let numbers: Result<Vec<i64>, _> = text.split(',').map(str::parse).collect();
    numbers.map_err(|_| format!("{text:?} is no list of numbers"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_are_never_added_twice_and_every_key_is_read_at_the_end() {
        let (mut lists, mut at) = (Lists::new("l", 2, 5), 0_usize);
        let mut seen = BTreeSet::new();
        for _ in 0..100 {
            let steps = lists.transaction(|among| {
                at += 7;
                at / 3 % among
            });
            for step in steps {
                if let Micro::Append(key, number) = step {
                    assert!(number <= 5, "{number} of {key}");
                    assert!(seen.insert((key, number)));
                }
            }
        }
        let read: BTreeSet<String> = lists.all().iter().flatten().map(|step| step.key().to_owned()).collect();
        assert!(read.len() > 10);
        assert!(seen.iter().all(|(key, _)| read.contains(key)));
    }

    #[test]
    fn values() {
        assert_eq!(list_to_value(&[1, 2, 30]), "1,2,30");
        assert_eq!(list_from_value(b"1,2,30"), Ok(vec![1, 2, 30]));
        assert!(list_from_value(b"1,,2").is_err());
    }
}
