//! What a simulated disk refuses, and when.

use std::io;

/// A call that can fail by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// A read of a file; it shows nothing.
    Read,
    /// A write to a file; half of it is done.
    Write,
}

/// What a full disk has no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// New files and longer ones: what was allocated can be written, as on most file systems.
    ToGrow,
    /// Anything: a file system that copies on write needs room to change a file as well.
    ToChange,
}

/// What is to go wrong.
#[derive(Clone, Default)]
pub(super) struct Mishaps {
    /// Mutating calls left before the power goes; none for ever.
    pub(super) calls_left: Option<u64>,
    /// Whether a call has met the end of the power.
    pub(super) off: bool,
    /// Whether the next sync fails.
    pub(super) fail_sync: bool,
    /// Reads or writes that go well before one of them fails, once.
    pub(super) fail_call: Option<(Call, u64)>,
    /// Whether there is no room, and for what.
    pub(super) full: Option<Full>,
}

impl Mishaps {
    /// The machine loses its power: what was to go wrong was about that boot, but there is no more room than before.
    pub(super) fn crash(&mut self) {
        *self = Self { full: self.full, ..Self::default() };
    }

    /// Counts a mutating call, and fails if the power is gone.
    pub(super) fn spend(&mut self) -> io::Result<()> {
        match &mut self.calls_left {
            Some(0) => {
                self.off = true;
                Err(failed(io::Error::other("the power is off")))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Fails if this call is the one that was chosen.
    pub(super) fn chance(&mut self, call: Call) -> io::Result<()> {
        match &mut self.fail_call {
            Some((chosen, 0)) if *chosen == call => {
                self.fail_call = None;
                Err(failed(io::Error::other("the disk reports an I/O error")))
            }
            Some((chosen, left)) if *chosen == call => {
                *left -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Fails if there is no room to grow, or to change what is there.
    pub(super) fn room(&self, grows: bool) -> io::Result<()> {
        match self.full {
            Some(Full::ToGrow) if grows => Err(failed(io::ErrorKind::StorageFull.into())),
            Some(Full::ToChange) => Err(failed(io::ErrorKind::StorageFull.into())),
            _ => Ok(()),
        }
    }
}

/// Says that a call fails, so that it can be counted how often one did.
pub(super) fn failed(why: io::Error) -> io::Error {
    tracing::debug!(%why, "the disk fails a call");
    why
}
