//! A partition's state machine, with a storage engine that forgets like a real one.

use crate::args::{named, next, optional};
use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command, Context};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use trandb_cluster::command::{Applied, Command as Entry, Condition, Write, WriteBatch, WriteOutcome};
use trandb_cluster::mvcc::{StoredVersion, Version};
use trandb_cluster::partition::{PartitionHeader, PartitionRestore, PartitionState, SnapshotCursor};
use trandb_cluster::wire::RangeScan;
use trandb_cluster::{EncodedKey, KeyspaceId, Timestamp};

#[test]
fn partition() {
    crate::run_all::<Runner>("partition");
}

/// Records by key and timestamp.
type Records = BTreeMap<(EncodedKey, Timestamp), Version>;

#[derive(Default)]
struct Runner {
    state: PartitionState,
    /// The engine's records.
    engine: Records,
    /// Removed since the last commit: power loss may bring them back.
    removed: Records,
    /// To be removed after the running checkpoint's commit.
    to_remove: Vec<(EncodedKey, Timestamp)>,
    /// The header of the checkpoint that is running.
    running: Option<PartitionHeader>,
    committed: Option<PartitionHeader>,
    /// A snapshot stream: its header, where it stands, and what the receiver has.
    pinned: Option<PartitionHeader>,
    cursor: Option<SnapshotCursor>,
    received: Option<PartitionRestore>,
}

fn key(text: &str) -> EncodedKey {
    EncodedKey::from_parts(KeyspaceId::DEFAULT, text.as_bytes())
}

fn name(key: &EncodedKey) -> String {
    String::from_utf8_lossy(&key.user_key()).into_owned()
}

fn show(version: &Version) -> String {
    let value = version.value.as_ref().map_or("deleted".into(), |value| String::from_utf8_lossy(value));
    format!("{value}@{} i{}", version.timestamp, version.index)
}

fn show_stored(stored: &[StoredVersion]) -> String {
    stored.iter().map(|one| format!("{}={}\n", name(&one.key), show(&one.version))).collect()
}

fn condition(text: &str) -> Result<Condition, Box<dyn Error>> {
    Ok(match text {
        "absent" => Condition::Absent,
        "present" => Condition::Present,
        version => Condition::Version(version.parse()?),
    })
}

fn write(target: &str, value: Option<&str>) -> Result<Write, Box<dyn Error>> {
    let (target, condition) = match target.split_once('@') {
        Some((target, text)) => (target, condition(text)?),
        None => (target, Condition::Any),
    };
    let value = value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
    Ok(Write { key: key(target), value, condition })
}

impl Runner {
    /// write INDEX t=TIMESTAMP [floor=TIMESTAMP] [KEY[@CONDITION]=VALUE | KEY[@CONDITION]]...: puts and deletes.
    fn write(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String, Box<dyn Error>> {
        let index = next(args)?;
        let timestamp = named(args, "t")?;
        let gc_floor = optional(args, "floor")?.unwrap_or_default();
        let mut writes = Vec::new();
        for argument in args.by_ref() {
            writes.push(match argument {
                goldenscript::Argument::KeyValue(key, value) => write(key, Some(value))?,
                goldenscript::Argument::Positional(key) => write(key, None)?,
                other => return Err(format!("what is {other}").into()),
            });
        }
        let batch = WriteBatch { timestamp, gc_floor, writes };
        Ok(match self.state.apply(index, Entry::Write(batch)) {
            Applied::StaleTimestamp(last) => format!("stale, last is {last}"),
            Applied::Txns(answers) => return Err(format!("writes were answered with {answers:?}").into()),
            Applied::Writes(outcomes) => outcomes
                .into_iter()
                .map(|outcome| match outcome {
                    WriteOutcome::Done { version, previous: None } => format!("done @{version}\n"),
                    WriteOutcome::Done { version, previous: Some(old) } => {
                        format!("done @{version} after @{old}\n")
                    }
                    WriteOutcome::Blocked(blocker) => format!("blocked by {}\n", blocker.txn),
                    WriteOutcome::ConditionFailed { current: None } => "failed, absent\n".to_owned(),
                    WriteOutcome::ConditionFailed { current: Some(current) } => {
                        format!("failed, is @{current}\n")
                    }
                })
                .collect(),
        })
    }

    fn read(&mut self, command: &str, args: &mut ArgumentConsumer<'_>) -> Result<String, Box<dyn Error>> {
        let at = optional(args, "at")?.unwrap_or(Timestamp::MAX);
        Ok(match command {
            // get KEY [at=TIMESTAMP]
            "get" => match self.state.get(&key(&next::<String>(args)?), at) {
                Some(found) => format!("{}@{}", String::from_utf8_lossy(&found.value), found.version),
                None => "nothing".to_owned(),
            },
            // exists KEY
            "exists" => match self.state.exists(&key(&next::<String>(args)?)) {
                Some(version) => format!("@{version}"),
                None => "no".to_owned(),
            },
            // scan [start=KEY] [end=KEY] [at=T] [limit=N] [bytes=N] [keys_only=true]
            _ => {
                let page = self.state.scan(&RangeScan {
                    start: key(args.take_key("start").unwrap_or_default()),
                    end: args.take_key("end").map(key),
                    at,
                    limit: optional(args, "limit")?.unwrap_or(100),
                    bytes_max: optional(args, "bytes")?.unwrap_or(1 << 20),
                    keys_only: optional(args, "keys_only")?.unwrap_or(false),
                });
                let mut out = String::new();
                for (key, found) in &page.entries {
                    writeln!(
                        out,
                        "{}={}@{}",
                        name(key),
                        String::from_utf8_lossy(&found.value),
                        found.version
                    )?;
                }
                out + if page.more { "and more" } else { "end" }
            }
        })
    }

    fn checkpoint(
        &mut self,
        command: &str,
        args: &mut ArgumentConsumer<'_>,
    ) -> Result<String, Box<dyn Error>> {
        let mut out = String::new();
        match command {
            "begin" => {
                let header = self.state.begin_checkpoint();
                write!(out, "up to i{}", header.index)?;
                self.running = Some(header);
            }
            // puts [bytes=N]: one chunk.
            "puts" => {
                let puts = self.state.checkpoint_puts(optional(args, "bytes")?.unwrap_or(usize::MAX));
                out = puts.as_ref().map_or("none\n".to_owned(), |puts| show_stored(puts));
                for put in puts.into_iter().flatten() {
                    self.engine.insert((put.key, put.version.timestamp), put.version);
                }
            }
            "commit" => {
                self.committed = Some(self.running.take().ok_or("no checkpoint is running")?);
                self.removed.clear();
                drop(self.state.end_checkpoint(true));
                let removes = std::mem::take(&mut self.to_remove);
                self.remove(removes)?;
            }
            "fail" => {
                self.running = None;
                self.to_remove.clear();
                drop(self.state.end_checkpoint(false));
            }
            "removes" => {
                let removes = self.state.checkpoint_removes(optional(args, "max")?.unwrap_or(usize::MAX));
                out = removes.iter().map(|(key, timestamp)| format!("{}@{timestamp}\n", name(key))).collect();
                if out.is_empty() {
                    out.push_str("none\n");
                }
                if self.running.is_some() {
                    self.to_remove = removes;
                } else {
                    self.remove(removes)?;
                }
            }
            // checkpoint: all of it.
            _ => {
                self.checkpoint("begin", args)?;
                out += &self.checkpoint("puts", args)?;
                self.checkpoint("commit", args)?;
                let removes = self.checkpoint("removes", args)?;
                write!(out, "removed:\n{removes}")?;
            }
        }
        Ok(out)
    }

    fn remove(&mut self, records: Vec<(EncodedKey, Timestamp)>) -> Result<(), Box<dyn Error>> {
        for record in records {
            let version = self.engine.remove(&record).ok_or("the engine never had it")?;
            self.removed.insert(record, version);
        }
        Ok(())
    }

    /// crash [unremove=KEY]: back to the committed checkpoint. Puts after it stay in the engine; removals since
    /// then stay done, but those of `unremove`.
    fn crash(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String, Box<dyn Error>> {
        if let Some(back) = args.take_key("unremove") {
            self.engine
                .extend(std::mem::take(&mut self.removed).into_iter().filter(|(at, _)| at.0 == key(back)));
        }
        self.removed.clear();
        self.running = None;
        let header = self.committed.clone().ok_or("nothing is committed")?;
        let mut restore = PartitionState::restore_from_checkpoint(header);
        // Any order will do.
        for ((key, _), version) in self.engine.clone().into_iter().rev() {
            restore.add(StoredVersion { key, version });
        }
        self.state = restore.finish()?;
        self.status()
    }

    fn snapshot(&mut self, command: &str, args: &mut ArgumentConsumer<'_>) -> Result<String, Box<dyn Error>> {
        Ok(match command {
            "pin" => {
                let header = self.state.pin_snapshot();
                self.received = Some(PartitionState::restore_from_snapshot(header.clone()));
                self.cursor = None;
                let out = format!("at i{}", header.index);
                self.pinned = Some(header);
                out
            }
            // chunk [bytes=N]
            "chunk" => {
                let index = self.pinned.as_ref().ok_or("nothing is pinned")?.index;
                let bytes = optional(args, "bytes")?.unwrap_or(usize::MAX);
                let (chunk, cursor) = self.state.snapshot_chunk(index, self.cursor.as_ref(), bytes);
                let out = show_stored(&chunk) + if cursor.is_some() { "and more" } else { "end" };
                self.cursor = cursor;
                chunk.into_iter().for_each(|stored| self.received.as_mut().expect("pinned").add(stored));
                out
            }
            "unpin" => {
                let header = self.pinned.take().ok_or("nothing is pinned")?;
                self.state.unpin_snapshot(header.index);
                String::new()
            }
            // become: this replica is now the receiver, with an empty engine.
            _ => {
                self.state = self.received.take().ok_or("nothing was received")?.finish()?;
                (self.engine, self.removed, self.committed) = Default::default();
                self.status()?
            }
        })
    }

    fn status(&self) -> Result<String, Box<dyn Error>> {
        let state = &self.state;
        Ok(format!(
            "i{} last @{} floor @{}, {} live keys, {} versions",
            state.applied(),
            state.last_timestamp(),
            state.gc_floor(),
            state.live_keys(),
            state.versions()
        ))
    }
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let output = match command.name.as_str() {
            "write" => self.write(&mut args)?,
            "skip" => {
                self.state.skip(next(&mut args)?);
                String::new()
            }
            command @ ("get" | "exists" | "scan") => self.read(command, &mut args)?,
            "gc" => format!("{} gone", self.state.gc_step(next(&mut args)?)),
            "status" => self.status()?,
            // dump: every version.
            "dump" => show_stored(&self.state.snapshot_chunk(u64::MAX, None, usize::MAX).0),
            // digest INDEX
            "digest" => match self.state.digest_at(next(&mut args)?) {
                Some((digest, keys)) => format!("{digest} of {keys}"),
                None => "unknown".to_owned(),
            },
            command @ ("begin" | "puts" | "commit" | "fail" | "removes" | "checkpoint") => {
                self.checkpoint(command, &mut args)?
            }
            "crash" => self.crash(&mut args)?,
            command @ ("pin" | "chunk" | "unpin" | "become") => self.snapshot(command, &mut args)?,
            name => return Err(format!("no command {name}").into()),
        };
        args.reject_next()?;
        Ok(output)
    }

    fn end_command(&mut self, _: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        assert_eq!(self.state.digest(), self.state.recompute_digest(), "the digest drifted");
        Ok(String::new())
    }
}
