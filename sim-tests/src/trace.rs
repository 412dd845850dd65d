//! What a simulation did, as one hash: every message delivered, all bytes that were read, every connection made and broken,
//! and every line that nodes log, each with its simulated time.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::mem;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tracing::Event;
use tracing::field::{Field, Visit};
use xxhash_rust::xxh3::Xxh3;

/// A running hash over what happens. Clones are the same trace.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<State>>);

struct State {
    hash: Xxh3,
    events: u64,
    /// Messages that arrived.
    delivered: u64,
    /// Messages that the network lost or held back.
    withheld: u64,
    /// Simulated time.
    now: Duration,
    /// Where the trace is written in full, for finding where two runs part.
    file: Option<BufWriter<File>>,
    /// Room for the next event's text.
    text: String,
}

impl Trace {
    /// A trace with nothing in it. With `file`, every event is also written there.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn new(file: Option<&Path>) -> io::Result<Self> {
        let file = file.map(File::create).transpose()?.map(BufWriter::new);
        let state = State {
            hash: Xxh3::new(),
            events: 0,
            delivered: 0,
            withheld: 0,
            now: Duration::ZERO,
            file,
            text: String::new(),
        };
        Ok(Self(Arc::new(Mutex::new(state))))
    }

    /// Events from now on are of this time.
    pub fn now(&self, elapsed: Duration) {
        self.state().now = elapsed;
    }

    /// Something has happened.
    pub fn event(&self, event: &Event<'_>) {
        let (mut text, shows) = {
            let mut state = self.state();
            (mem::take(&mut state.text), state.file.is_some())
        };
        text.clear();
        let mut line = Line { text, content: shows.then(String::new), dull: false, fate: Fate::None };
        event.record(&mut line);
        let Line { text, content, dull, fate } = line;
        let mut state = self.state();
        match fate {
            Fate::Delivered => state.delivered += 1,
            Fate::Withheld => state.withheld += 1,
            Fate::None => {}
        }
        if !dull {
            state.take(event.metadata().target(), &text, content);
        }
        state.text = text;
    }

    /// Hash and number of events so far.
    pub fn digest(&self) -> (u128, u64) {
        let state = self.state();
        (state.hash.digest128(), state.events)
    }

    /// Messages that arrived so far, each after a random time of its own.
    pub fn delivered(&self) -> u64 {
        self.state().delivered
    }

    /// Messages that the network lost or held back so far.
    pub fn withheld(&self) -> u64 {
        self.state().withheld
    }

    /// Writes out what is buffered for the file.
    ///
    /// # Errors
    /// The file's.
    pub fn flush(&self) -> io::Result<()> {
        self.state().file.as_mut().map_or(Ok(()), Write::flush)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A hash has no invariant that a panicking holder could have broken.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, target: &str, text: &str, content: Option<String>) {
        self.events += 1;
        self.hash.update(&self.now.as_nanos().to_le_bytes());
        self.hash.update(target.as_bytes());
        self.hash.update(text.as_bytes());
        self.hash.update(b"\n");
        if let Some(file) = &mut self.file {
            let content = content.unwrap_or_default();
            let line = format!("{} {target}{text}{content}\n", self.now.as_millis());
            if let Err(error) = file.write_all(line.as_bytes()) {
                eprintln!("the trace is not written any more: {error}");
                self.file = None;
            }
        }
    }
}

/// What is kept of a field, and shown of a message: the beginning.
const FIELD_BYTES_MAX: usize = 256;

/// The field of a network event that holds what was sent, byte by byte: `TCP [0x0, 0x1F, ...]`.
const SENT: &str = "protocol";

/// Takes as much text as there is room for, and refuses more.
struct Beginning<'a> {
    text: &'a mut String,
    room: usize,
}

impl fmt::Write for Beginning<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.room = self.room.checked_sub(text.len()).ok_or(fmt::Error)?;
        self.text.push_str(text);
        Ok(())
    }
}

/// Takes what kind of message it is, and refuses its bytes.
struct Kind<'a>(&'a mut String);

impl fmt::Write for Kind<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = text.find('[').unwrap_or(text.len());
        self.0.push_str(&text[..end]);
        if end < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

/// An event's fields as text.
struct Line {
    text: String,
    /// The beginning of a message, if that is shown: its bytes are part of the trace where they are read
    /// ([`crate::net::READS`]), all of them and not as text, which took a tenth of a run's time.
    content: Option<String>,
    /// Says nothing that another event does not: steps of the simulation, and messages at their sender and
    /// reader, which are traced where they are delivered.
    dull: bool,
    /// What became of a message, if it says that.
    fate: Fate,
}

/// What became of a message.
#[derive(Clone, Copy)]
enum Fate {
    /// It arrived.
    Delivered,
    /// It was lost, or is held back.
    Withheld,
    /// Something else is said.
    None,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.dull {
            return;
        }
        let from = self.text.len();
        // Writing to a string does not fail, and what is cut off stops being formatted.
        let _ = write!(self.text, " {}=", field.name());
        if field.name() == SENT {
            let _ = write!(Kind(&mut self.text), "{value:?}");
            if let Some(content) = &mut self.content {
                let _ = write!(Beginning { text: content, room: FIELD_BYTES_MAX }, " {value:?}");
            }
            return;
        }
        let _ = write!(Beginning { text: &mut self.text, room: FIELD_BYTES_MAX }, "{value:?}");
        if field.name() == "message" {
            let message = &self.text[from + " message=".len()..];
            self.dull = message.starts_with("step ") || ["Send", "Recv", "Peek"].contains(&message);
            self.fate = match message {
                "Delivered" => Fate::Delivered,
                "Drop" | "Hold" => Fate::Withheld,
                _ => Fate::None,
            };
        }
    }
}
