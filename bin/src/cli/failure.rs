//! What a command that failed says, and its exit code.

use std::io;
use std::process::ExitCode;

/// The command line was wrong.
pub(crate) const USAGE: u8 = 2;
/// Something answered, and the answer is no: no such key, replicas that differ.
pub(crate) const FAILED: u8 = 1;
/// Nothing answered.
pub(crate) const UNAVAILABLE: u8 = 69;
/// Reading or writing failed on this machine.
pub(crate) const IO: u8 = 74;

/// A message for stderr and an exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) exit: u8,
}

impl Failure {
    pub(crate) fn new(exit: u8, message: impl Into<String>) -> Self {
        Self { message: message.into(), exit }
    }

    /// Says what happened on stderr.
    pub(crate) fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            eprintln!("trandb: {}", self.message);
        }
        ExitCode::from(self.exit)
    }
}

impl From<trandb_client::Error> for Failure {
    fn from(error: trandb_client::Error) -> Self {
        Self::new(error.code.row().exit, error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // The reader of our output has seen enough, as `head` does: no fault, nothing to say.
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(0, "");
        }
        Self::new(IO, error.to_string())
    }
}
