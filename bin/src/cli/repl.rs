//! The interactive prompt.
//!
//! A line is a command as on the command line, without the program's name. One connection pool serves the
//! whole session. History is kept in a file of the user's.
//!
//! Between `begin` and `commit` or `abort` data commands work within the transaction, which the prompt shows. One that
//! has failed stays there until it is ended, so that what follows in a script is refused and not done outside of it.

use super::args::{Format, Global, Online};
use super::failure::Failure;
use super::place::Place;
use clap::{Parser, Subcommand};
use reedline::{DefaultPrompt, DefaultPromptSegment, FileBackedHistory, Reedline, Signal};
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use trandb_client::{Client, Txn};

/// Lines of history kept: enough to find last week's, small enough to load without notice.
const HISTORY_LINES_MAX: usize = 10_000;

/// What other databases take in capitals, too.
const TRANSACTIONS: [&str; 4] = ["begin", "commit", "abort", "rollback"];

#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Where lines are remembered; by default trandb/history in the user's state directory.
    #[arg(long, env = "TRANDB_HISTORY")]
    history: Option<PathBuf>,
}

/// One line.
#[derive(Parser)]
#[command(name = "", multicall = true, disable_help_flag = true)]
struct Line {
    #[command(subcommand)]
    command: LineCommand,
}

#[derive(Subcommand)]
enum LineCommand {
    #[command(flatten)]
    Online(Online),
    /// Open a transaction: `begin snapshot`, `begin read only`; serializable unless told otherwise.
    Begin {
        /// `read_committed`, `snapshot` or `serializable`; `read only`.
        #[arg(trailing_var_arg = true)]
        words: Vec<String>,
    },
    /// Do all that the transaction has written; prints when.
    Commit,
    /// End the transaction without effect.
    #[command(alias = "rollback")]
    Abort,
    /// Lock a key until the transaction ends.
    Lock {
        /// The key.
        key: String,
    },
    /// Choose how results are printed.
    Output {
        /// How.
        #[arg(value_enum)]
        format: Format,
    },
    /// Leave; so does ctrl-d.
    #[command(alias = "quit")]
    Exit,
}

/// Reads and runs lines until the end: from the terminal with editing and history, else from stdin as it is.
pub(crate) fn run(global: &Global, args: Args) -> Result<ExitCode, Failure> {
    let runtime = super::runtime()?;
    let client = runtime.block_on(super::connect(global))?;
    let mut session =
        Session { runtime, client, txn: None, global: Global { in_lines: true, ..global.clone() } };
    if !std::io::stdin().is_terminal() {
        let mut exit = ExitCode::SUCCESS;
        for line in std::io::stdin().lock().lines() {
            match session.run(&line?) {
                Turn::Next(code) => exit = code,
                Turn::End => break,
            }
        }
        session.leave();
        return Ok(exit);
    }
    let mut editor =
        Reedline::create().with_ansi_colors(std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()));
    match args.history.or_else(default_history) {
        Some(path) => match FileBackedHistory::with_file(HISTORY_LINES_MAX, path.clone()) {
            Ok(history) => editor = editor.with_history(Box::new(history)),
            Err(error) => eprintln!("trandb: no history in {}: {error}", path.display()),
        },
        None => eprintln!("trandb: no history, because neither XDG_STATE_HOME nor HOME is set"),
    }
    eprintln!("connected to {}; `help` lists the commands, ctrl-d leaves", global.addr);
    loop {
        let prompt = DefaultPromptSegment::Basic(session.prompt());
        match editor.read_line(&DefaultPrompt::new(prompt, DefaultPromptSegment::Empty))? {
            Signal::Success(line) => {
                if let Turn::End = session.run(&line) {
                    break;
                }
            }
            Signal::CtrlD => break,
            // Drops the line that was being typed.
            _ => {}
        }
    }
    session.leave();
    Ok(ExitCode::SUCCESS)
}

enum Turn {
    Next(ExitCode),
    End,
}

struct Session {
    runtime: tokio::runtime::Runtime,
    client: Client,
    /// The one that is open.
    txn: Option<Txn>,
    global: Global,
}

impl Session {
    fn prompt(&self) -> String {
        match &self.txn {
            None => format!("trandb {}", self.global.addr),
            Some(txn) => format!("trandb {} txn {}", self.global.addr, txn.id()),
        }
    }

    /// Ends what is open.
    fn leave(&mut self) {
        if let Some(txn) = self.txn.take() {
            eprintln!("trandb: transaction {} is aborted", txn.id());
            // Its node ends it by itself if it cannot be told.
            let _ = self.runtime.block_on(txn.abort());
        }
    }

    fn run(&mut self, line: &str) -> Turn {
        let mut words = match split(line) {
            Ok(words) if words.is_empty() => return Turn::Next(ExitCode::SUCCESS),
            Ok(words) => words,
            Err(reason) => return Turn::Next(Failure::new(super::failure::USAGE, reason).report()),
        };
        if TRANSACTIONS.iter().any(|word| words[0].eq_ignore_ascii_case(word)) {
            words[0].make_ascii_lowercase();
        }
        let command = match Line::try_parse_from(words) {
            Ok(line) => line.command,
            Err(error) => {
                // Nothing is left to do if even the terminal is gone.
                let _ = error.print();
                return Turn::Next(ExitCode::from(error.exit_code() as u8));
            }
        };
        match command {
            LineCommand::Exit => Turn::End,
            LineCommand::Output { format } => {
                self.global.output = format;
                Turn::Next(ExitCode::SUCCESS)
            }
            command => {
                let mut out = std::io::stdout().lock();
                let result = self.carry_out(command, &mut out);
                let _ = out.flush();
                Turn::Next(result.unwrap_or_else(|failure| failure.report()))
            }
        }
    }

    fn carry_out(&mut self, command: LineCommand, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let Self { runtime, client, txn, global } = self;
        match command {
            LineCommand::Begin { words } => {
                if let Some(txn) = txn {
                    let reason = format!("transaction {} is open: commit or abort it first", txn.id());
                    return Err(Failure::new(super::failure::USAGE, reason));
                }
                let options = super::txn::options(&words)?;
                let begun = runtime.block_on(client.begin_with(options))?;
                super::txn::begun(&begun, global, out)?;
                *txn = Some(begun);
            }
            LineCommand::Commit => {
                let ended = txn.take().ok_or_else(none_open)?;
                let at = runtime.block_on(ended.commit())?;
                super::txn::committed(at, global, out)?;
            }
            LineCommand::Abort => {
                let ended = txn.take().ok_or_else(none_open)?;
                runtime.block_on(ended.abort())?;
            }
            LineCommand::Lock { key } => {
                let txn = txn.as_ref().ok_or_else(none_open)?;
                runtime.block_on(txn.lock(key))?;
            }
            LineCommand::Online(command) => {
                let place = match txn {
                    Some(txn) => Place::Txn(client, txn),
                    None => Place::Cluster(client),
                };
                return runtime.block_on(super::online(command, global, place, out));
            }
            LineCommand::Output { .. } | LineCommand::Exit => {}
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn none_open() -> Failure {
    Failure::new(super::failure::USAGE, "no transaction is open: `begin` opens one")
}

/// The history file in the user's state directory, whose folder is made if need be.
fn default_history() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local/state")))?;
    let folder = state.join("trandb");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}

/// Splits a line into words as a shell would: blanks separate, quotes and backslashes keep together.
fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some('"') | None, '\\') => {
                let escaped = chars.next().ok_or("nothing after the last backslash")?;
                word.get_or_insert_default().push(escaped);
            }
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                // Two quotes with nothing between them are an empty word.
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(open) = quote {
        return Err(format!("a quote is not closed: {open}"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn lines_are_split_as_a_shell_does() {
        let good: [(&str, &[&str]); 8] = [
            ("", &[]),
            ("  get  a ", &["get", "a"]),
            ("put k 'two words'", &["put", "k", "two words"]),
            (r#"put "a \"b\"" '\n'"#, &["put", "a \"b\"", "\\n"]),
            (r"put a\ b ''", &["put", "a b", ""]),
            ("put pre'fix'ed x", &["put", "prefixed", "x"]),
            ("get a # why", &["get", "a"]),
            ("get a#b", &["get", "a#b"]),
        ];
        for (line, words) in good {
            assert_eq!(
                split(line).as_deref(),
                Ok(words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>().as_slice())
            );
        }
        assert!(split("get 'a").is_err() && split("get a\\").is_err());
    }

    #[test]
    fn lines_are_commands_without_the_program() {
        Line::command().debug_assert();
        let line = Line::try_parse_from(["put", "k", "v", "--if-absent"]).expect("a command");
        assert!(matches!(line.command, LineCommand::Online(Online::Put(put)) if put.if_absent));
        let line = Line::try_parse_from(["begin", "snapshot", "read", "only"]).expect("a command");
        assert!(matches!(line.command, LineCommand::Begin { words } if words.len() == 3));
        assert!(matches!(Line::try_parse_from(["rollback"]).expect("one").command, LineCommand::Abort));
        assert!(Line::try_parse_from(["frobnicate"]).is_err());
    }
}
