//! The interactive prompt.
//!
//! A line is a command as on the command line, without the program's name. One connection pool serves the
//! whole session. History is kept in a file of the user's.

use super::args::{Format, Global, Online};
use super::failure::Failure;
use clap::{Parser, Subcommand};
use reedline::{DefaultPrompt, DefaultPromptSegment, FileBackedHistory, Reedline, Signal};
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use trandb_client::Client;

/// Lines of history kept: enough to find last week's, small enough to load without notice.
const HISTORY_LINES_MAX: usize = 10_000;

/// What people type who expect transactions: they deserve a better answer than "unrecognized".
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
    let mut session = Session { runtime, client, global: Global { in_lines: true, ..global.clone() } };
    if !std::io::stdin().is_terminal() {
        let mut exit = ExitCode::SUCCESS;
        for line in std::io::stdin().lock().lines() {
            match session.run(&line?) {
                Turn::Next(code) => exit = code,
                Turn::End => break,
            }
        }
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
    let prompt = DefaultPrompt::new(
        DefaultPromptSegment::Basic(format!("trandb {}", global.addr)),
        DefaultPromptSegment::Empty,
    );
    eprintln!("connected to {}; `help` lists the commands, ctrl-d leaves", global.addr);
    loop {
        match editor.read_line(&prompt)? {
            Signal::Success(line) => {
                if let Turn::End = session.run(&line) {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            Signal::CtrlD => return Ok(ExitCode::SUCCESS),
            // Drops the line that was being typed.
            _ => {}
        }
    }
}

enum Turn {
    Next(ExitCode),
    End,
}

struct Session {
    runtime: tokio::runtime::Runtime,
    client: Client,
    global: Global,
}

impl Session {
    fn run(&mut self, line: &str) -> Turn {
        let words = match split(line) {
            Ok(words) if words.is_empty() => return Turn::Next(ExitCode::SUCCESS),
            Ok(words) => words,
            Err(reason) => return Turn::Next(Failure::new(super::failure::USAGE, reason).report()),
        };
        if TRANSACTIONS.iter().any(|word| words[0].eq_ignore_ascii_case(word)) {
            let reason = "transactions do not exist yet; each command is atomic by itself, and `put` \
                          with --if-version or --if-absent compares and sets";
            return Turn::Next(Failure::new(super::failure::USAGE, reason).report());
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
            LineCommand::Online(command) => {
                let mut out = std::io::stdout().lock();
                let result =
                    self.runtime.block_on(super::online(command, &self.global, &self.client, &mut out));
                let _ = out.flush();
                Turn::Next(result.unwrap_or_else(|failure| failure.report()))
            }
        }
    }
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
        assert!(Line::try_parse_from(["frobnicate"]).is_err());
    }
}
