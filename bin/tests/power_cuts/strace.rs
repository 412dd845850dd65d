//! Reads what `strace` says a process did to the files below a folder.
//!
//! A line is a call with its arguments and what it returned; when another thread's line comes between, it is two lines, the
//! first `unfinished`, the second `resumed`. A call may show its effect from its first line on, and has ended with
//! its last. Whatever could change a file in a way that is not understood here fails the run.

use crate::harness::eventually;
use crate::recording::{Clock, FileId, Recording, What};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// What is traced: all that changes files, and all that says which file a number stands for.
const CALLS: &str = "open,openat,openat2,creat,close,dup,dup2,dup3,fcntl,lseek,write,pwrite64,writev,pwritev,pwritev2,\
                     ftruncate,truncate,fallocate,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,\
                     link,linkat,symlink,symlinkat,fsync,fdatasync,sync_file_range,sync,syncfs,msync,mmap,\
                     copy_file_range,sendfile,splice,io_uring_setup";

/// Bytes of a value and what is around it: no write may be cut short in the trace.
const STRING_BYTES: usize = 64 << 20;

/// The command line before the one of the program; the process stays the child of whoever starts it.
pub(crate) fn wrapper(trace: &Path) -> Vec<String> {
    let trace = trace.to_str().expect("our own folder").to_owned();
    let (calls, bytes) = (format!("trace={CALLS}"), STRING_BYTES.to_string());
    let arguments = [
        "strace",
        "-D",
        "-f",
        "--seccomp-bpf",
        "-q",
        "-ttt",
        "-xx",
        "-s",
        &bytes,
        "-e",
        &calls,
        "-o",
        &trace,
    ];
    arguments.map(str::to_owned).to_vec()
}

/// As [`wrapper`], to make calls fail: `fault` is what `strace` is to inject.
pub(crate) fn faulty(trace: &Path, fault: &str) -> Vec<String> {
    let trace = trace.to_str().expect("our own folder").to_owned();
    let (calls, fault) = ("trace=fdatasync", format!("inject={fault}"));
    ["strace", "-D", "-f", "-q", "-e", calls, "-e", &fault, "-o", &trace].map(str::to_owned).to_vec()
}

/// Whether this machine has a `strace` that may be used.
pub(crate) fn is_there() -> bool {
    let tried = std::process::Command::new("strace").args(["-f", "-qq", "-e", "trace=none", "true"]).output();
    tried.is_ok_and(|output| output.status.success())
}

/// What was done, and when.
#[derive(Default)]
pub(crate) struct Trace {
    pub(crate) recording: Recording,
    /// Microseconds since 1970 and the recording's clock at each line, both ascending.
    times: Vec<(u64, Clock)>,
}

impl Trace {
    /// How far the recording was at that time: all that ended before it has, though what was under way may have, too.
    pub(crate) fn clock_at(&self, micros: u64) -> Clock {
        let at = self.times.partition_point(|(time, _)| *time < micros);
        self.times.get(at).map_or(self.recording.now(), |(_, clock)| *clock)
    }
}

/// Between two looks at whether the trace is complete.
const LOOK: Duration = Duration::from_millis(100);

/// Waits until a trace of a process that was killed is complete and reads what the process did below `root`.
///
/// # Errors
/// The line that shows that the trace is not of what the process did.
pub(crate) fn read_when_done(trace: &Path, root: &Path) -> Result<Trace, String> {
    let mut bytes = None;
    eventually("a complete trace", || {
        // The process is waited for, but whoever traced it may still write.
        std::thread::sleep(LOOK);
        let now = std::fs::metadata(trace).map(|meta| meta.len()).unwrap_or_default();
        let same = bytes.replace(now) == Some(now) && is_complete(trace, now);
        if same { Ok(()) } else { Err(format!("{now} bytes")) }
    });
    read(trace, root)
}

/// Whether the last line says that somebody has ended.
fn is_complete(trace: &Path, bytes: u64) -> bool {
    let mut end = [0; 4];
    let read =
        std::fs::File::open(trace).and_then(|file| file.read_exact_at(&mut end, bytes.saturating_sub(4)));
    read.is_ok() && &end == b"+++\n"
}

fn read(trace: &Path, root: &Path) -> Result<Trace, String> {
    let lines = BufReader::new(std::fs::File::open(trace).expect("strace writes it")).split(b'\n');
    let mut reader = Reader { root: root.to_owned(), ..Reader::default() };
    for line in lines {
        let line = line.expect("is read");
        let line = std::str::from_utf8(&line).expect("strings are in hexadecimal");
        reader.line(line);
    }
    reader.done()
}

/// What an open file's number stands for.
#[derive(Debug, Clone)]
enum Open {
    File { id: FileId, at: usize, append: bool },
    Dir(PathBuf),
}

/// A call that has not returned.
struct Call {
    name: String,
    arguments: String,
    /// What it began to do, where that shows before it returns.
    event: Option<usize>,
}

#[derive(Default)]
struct Reader {
    root: PathBuf,
    trace: Trace,
    /// By file number; several may stand for the same open file.
    open: BTreeMap<i64, usize>,
    opened: Vec<Open>,
    /// How long files are.
    lengths: BTreeMap<FileId, u64>,
    /// By thread.
    calls: BTreeMap<u32, Call>,
    /// The first call that was given another one's end.
    mistaken: Option<String>,
}

impl Reader {
    fn done(self) -> Result<Trace, String> {
        self.mistaken.map_or(Ok(self.trace), Err)
    }

    fn line(&mut self, line: &str) {
        let Some((thread, rest)) = line.trim_start().split_once(' ') else { return };
        let Some((time, rest)) = rest.trim_start().split_once(' ') else { return };
        let thread: u32 = thread.parse().unwrap_or_else(|_| panic!("no thread: {}", start(line)));
        let (seconds, micros) = time.split_once('.').unwrap_or_else(|| panic!("no time: {}", start(line)));
        let number = |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("no time: {}", start(line)));
        let time = number(seconds) * 1_000_000 + number(micros);
        self.trace.times.push((time, self.trace.recording.now()));
        if rest.starts_with("---") || rest.starts_with("+++") {
            return;
        }
        if let Some(resumed) = rest.strip_prefix("<... ") {
            let (_, tail) = resumed.split_once(" resumed>").unwrap_or_else(|| panic!("{}", start(line)));
            // Threads that were there before the trace was may end a call that it has not seen begin.
            if let Some(mut call) = self.calls.remove(&thread) {
                let (more, result, said) = split_result(tail);
                call.arguments.push_str(more);
                self.end(call, result, said);
            }
            return;
        }
        let (name, tail) = rest.split_once('(').unwrap_or_else(|| panic!("no call: {}", start(line)));
        if let Some(arguments) = tail.strip_suffix(" <unfinished ...>") {
            let call = self.begin(name, arguments);
            self.calls.insert(thread, call);
            return;
        }
        let (arguments, result, said) = split_result(tail);
        let call = self.begin(name, arguments);
        self.end(call, result, said);
    }

    /// A call begins: what it writes may be there from now on.
    fn begin(&mut self, name: &str, arguments: &str) -> Call {
        let what = self.effect(name, arguments);
        self.measure(what.as_ref());
        let event = what.map(|what| self.trace.recording.begin(what));
        if name == "close" {
            // The number may be given out again before the call is seen to return.
            self.open.remove(&fd(arguments));
        }
        Call { name: name.to_owned(), arguments: arguments.to_owned(), event }
    }

    /// Notes how long a file is after that.
    fn measure(&mut self, what: Option<&What>) {
        let (file, bytes, shrinks) = match what {
            Some(What::Write { file, offset, data }) => (*file, offset + data.len() as u64, false),
            Some(What::Allocate { file, bytes }) => (*file, *bytes, false),
            Some(What::Length { file, bytes }) => (*file, *bytes, true),
            _ => return,
        };
        let length = self.lengths.entry(file).or_default();
        *length = if shrinks { bytes } else { bytes.max(*length) };
    }

    /// What a call does to what is recorded.
    fn effect(&mut self, name: &str, arguments: &str) -> Option<What> {
        let opened = || self.open.get(&fd(arguments)).map(|&at| self.opened[at].clone());
        let file = || match opened() {
            Some(Open::File { id, .. }) => Some(id),
            _ => None,
        };
        let last = || number(arguments.rsplit(", ").next().unwrap_or_default()) as u64;
        match name {
            "write" | "writev" | "pwrite64" | "pwritev" => {
                let Some(Open::File { id, at, append }) = opened() else { return None };
                let data = strings(arguments).concat();
                let offset = if append {
                    self.lengths.get(&id).copied().unwrap_or_default()
                } else if name.starts_with('p') {
                    last()
                } else {
                    at as u64
                };
                Some(What::Write { file: id, offset, data: data.into() })
            }
            "ftruncate" => Some(What::Length { file: file()?, bytes: last() }),
            "fallocate" => {
                let file = file()?;
                let parts: Vec<&str> = arguments.split(", ").collect();
                assert_eq!(parts[1], "0", "the file is allocated in a way of its own: {arguments}");
                Some(What::Allocate { file, bytes: (number(parts[2]) + number(parts[3])) as u64 })
            }
            "fsync" | "fdatasync" => match opened()? {
                Open::File { id, .. } => Some(What::Sync(id)),
                Open::Dir(path) => Some(What::SyncDir(path)),
            },
            "rename" | "renameat" | "renameat2" => {
                let paths = strings(arguments);
                let path = |at: usize| self.path(&paths[at]);
                match (path(0), path(1)) {
                    (Some(from), Some(to)) => Some(What::Rename(from, to)),
                    (None, None) => None,
                    _ => panic!("a file comes or goes: {arguments}"),
                }
            }
            "unlink" | "unlinkat" | "rmdir" => {
                let path = strings(arguments).pop().expect("a path");
                self.path_at(name, arguments, &path).map(What::Remove)
            }
            "mkdir" | "mkdirat" => {
                let path = strings(arguments).pop().expect("a path");
                self.path_at(name, arguments, &path).map(What::MakeDir)
            }
            "truncate" | "link" | "linkat" | "symlink" | "symlinkat" => {
                let ours = strings(arguments).iter().any(|path| self.path(path).is_some());
                assert!(!ours, "{name} is not understood: {arguments}");
                None
            }
            "msync" | "copy_file_range" | "sendfile" | "splice" => {
                assert!(file().is_none(), "{name} is not understood: {arguments}");
                None
            }
            "mmap" => {
                let parts: Vec<&str> = arguments.split(", ").collect();
                let ours = parts.get(4).is_some_and(|fd| self.open.contains_key(&number(fd)));
                let shared = arguments.contains("MAP_SHARED") && arguments.contains("PROT_WRITE");
                assert!(!ours || !shared, "a file is written through memory: {arguments}");
                None
            }
            "io_uring_setup" => panic!("io_uring does not show in a trace"),
            // `sync_file_range` promises nothing that outlasts a power cut.
            _ => None,
        }
    }

    /// A call returns, with a result of which the trace has `said` more.
    fn end(&mut self, call: Call, result: Option<i64>, said: &str) {
        let Call { name, arguments, event } = call;
        // It ended with its process, having done what it was to do, or a part of that.
        let Some(result) = result else { return };
        if let Some(event) = event {
            if result < 0 {
                assert!(
                    !matches!(name.as_str(), "write" | "pwrite64"),
                    "a write failed with {said}: {}",
                    start(&arguments)
                );
                // It did nothing: an event that never ends and whose effect is none.
                self.trace.recording.events[event].what = What::SyncDir(PathBuf::from("/"));
                return;
            }
            let whole = match &self.trace.recording.events[event].what {
                What::Write { data, .. } => data.len() as i64,
                _ => 0,
            };
            if result != whole {
                // On a busy machine `strace` rarely misses how a call ended, and takes a later one's end for it. A write
                // that is cut short is useless, too.
                let what = format!("{name} is said to return {result}, not {whole}: {}", start(&arguments));
                self.mistaken.get_or_insert(what);
                return;
            }
            self.trace.recording.end(event);
        }
        if result < 0 {
            return;
        }
        match name.as_str() {
            "open" | "openat" | "openat2" | "creat" => self.opened(&name, &arguments, result),
            "dup" | "dup2" | "dup3" => self.same(&arguments, result),
            "fcntl" if arguments.contains("F_DUPFD") => self.same(&arguments, result),
            "lseek" => self.seek(&arguments, |_| result as usize),
            "write" | "writev" => self.seek(&arguments, |at| at + result as usize),
            _ => {}
        }
    }

    fn opened(&mut self, name: &str, arguments: &str, fd: i64) {
        let path = strings(arguments).pop().expect("a path");
        let Some(path) = self.path_at(name, arguments, &path) else {
            self.open.remove(&fd);
            return;
        };
        let is_dir = self.trace.recording.is_dir(&path) || self.root.join(&path).is_dir();
        let open = if arguments.contains("O_DIRECTORY") || is_dir {
            Open::Dir(path)
        } else {
            let recording = &mut self.trace.recording;
            let id = recording.file(&path).unwrap_or_else(|| {
                assert!(arguments.contains("O_CREAT"), "a file comes from nowhere: {path:?}");
                let id = recording.name(&path);
                let event = recording.begin(What::Create(id, path.clone()));
                recording.end(event);
                id
            });
            if arguments.contains("O_TRUNC") {
                let event = recording.begin(What::Length { file: id, bytes: 0 });
                recording.end(event);
                self.lengths.insert(id, 0);
            }
            Open::File { id, at: 0, append: arguments.contains("O_APPEND") }
        };
        self.opened.push(open);
        self.open.insert(fd, self.opened.len() - 1);
    }

    /// Another number for the same open file.
    fn same(&mut self, arguments: &str, new: i64) {
        match self.open.get(&fd(arguments)).copied() {
            Some(opened) => self.open.insert(new, opened),
            None => self.open.remove(&new),
        };
    }

    fn seek(&mut self, arguments: &str, to: impl FnOnce(usize) -> usize) {
        if let Some(&opened) = self.open.get(&fd(arguments))
            && let Open::File { at, .. } = &mut self.opened[opened]
        {
            *at = to(*at);
        }
    }

    /// A path that a call names, below the root; the call may name the directory that it starts from.
    fn path_at(&self, name: &str, arguments: &str, path: &Bytes) -> Option<PathBuf> {
        let number = arguments.split(", ").next().and_then(|number| number.parse::<i64>().ok());
        match number.filter(|_| name.ends_with("at")).and_then(|fd| self.open.get(&fd)) {
            Some(&opened) => match &self.opened[opened] {
                Open::Dir(dir) => Some(dir.join(text(path))),
                Open::File { .. } => panic!("a file is taken for a directory: {arguments}"),
            },
            None => self.path(path),
        }
    }

    /// A path below the root; none if it is elsewhere.
    fn path(&self, path: &Bytes) -> Option<PathBuf> {
        let path = Path::new(text(path));
        let within = path.strip_prefix(&self.root).ok()?;
        assert!(within.components().all(|part| matches!(part, Component::Normal(_))), "{path:?}");
        Some(within.to_owned())
    }
}

fn text(path: &Bytes) -> &str {
    std::str::from_utf8(path).expect("our paths are text")
}

/// For messages: lines may have millions of characters.
fn start(line: &str) -> &str {
    &line[..line.len().min(200)]
}

/// Arguments and what was returned.
fn split_result(tail: &str) -> (&str, Option<i64>, &str) {
    let (arguments, result) =
        tail.rsplit_once(") = ").or_else(|| split_padded(tail)).unwrap_or_else(|| panic!("{}", start(tail)));
    // Files interrupt only who is being killed: that is no failure, but an end with its process. So is an error without
    // a name: `strace` was told of the kill as the call began, and takes the call's own number for what it returned.
    let ended = ["?", "-1 EINTR ", "-1 (errno "].iter().any(|end| result.starts_with(end));
    (arguments, (!ended).then(|| number(result.split(' ').next().unwrap_or_default())), result)
}

/// Short lines are padded before their result.
fn split_padded(tail: &str) -> Option<(&str, &str)> {
    let (arguments, result) = tail.rsplit_once(" = ")?;
    Some((arguments.trim_end().strip_suffix(')')?, result))
}

fn number(text: &str) -> i64 {
    let text = text.trim();
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.unwrap_or_else(|_| panic!("no number: {}", start(text)))
}

fn fd(arguments: &str) -> i64 {
    arguments.split(", ").next().and_then(|fd| fd.parse().ok()).unwrap_or(-1)
}

/// The strings among the arguments, which are wholly in hexadecimal.
fn strings(arguments: &str) -> Vec<Bytes> {
    assert!(!arguments.contains("\"..."), "a string was cut short: {}", start(arguments));
    let hex = |digits: &[u8]| {
        let digit = |digit: u8| (digit as char).to_digit(16).expect("hexadecimal") as u8;
        digit(digits[2]) << 4 | digit(digits[3])
    };
    let quoted = arguments.split('"').skip(1).step_by(2);
    quoted.map(|text| text.as_bytes().chunks(4).map(hex).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> String {
        let digits: String = text.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
        format!("\"{digits}\"")
    }

    fn read_lines(lines: &[String]) -> Result<Trace, String> {
        let mut reader = Reader { root: "/root".into(), ..Reader::default() };
        lines.iter().for_each(|line| reader.line(line));
        reader.done()
    }

    #[test]
    fn calls_become_events_with_a_beginning_and_an_end() {
        let lines = [
            format!("7 1.000001 openat(AT_FDCWD, {}, O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 5", hex("/root/f")),
            format!("7 1.000002 openat(AT_FDCWD, {}, O_RDONLY) = 6", hex("/elsewhere")),
            format!("7 1.000003 write(6, {}, 1) = 1", hex("x")),
            format!("7 1.000004 write(5, {}, 2) = 2", hex("ab")),
            format!("7 1.000005 writev(5, [{{iov_base={}, iov_len=1}}], 1) = 1", hex("c")),
            "8 1.000006 fdatasync(5 <unfinished ...>".to_owned(),
            format!("7 1.000007 pwrite64(5, {}, 1, 9)       = 1", hex("z")),
            "8 1.000008 <... fdatasync resumed>)    = 0".to_owned(),
            "7 1.000009 fsync(6) = 0".to_owned(),
            "7 1.000010 close(5) = 0".to_owned(),
            format!("7 1.000011 write(5, {}, 1) = 1", hex("x")),
            format!("7 1.000012 rename({}, {}) = 0", hex("/root/f"), hex("/root/g")),
            format!("7 1.000013 mkdir({}, 0700) = -1 EEXIST (File exists)", hex("/root/d")),
            format!("7 1.000014 openat(AT_FDCWD, {}, O_WRONLY|O_APPEND) = 5", hex("/root/g")),
            format!("7 1.000014 write(5, {}, 1) = 1", hex("e")),
            format!("7 1.000014 write(5, {}, 1) = -1 EINTR (Interrupted system call)", hex("f")),
            format!("7 1.000014 pwrite64(5, {}, 1, 4) = -1 (errno 18446744073709551598)", hex("g")),
            "7 1.000014 +++ exited with 0 +++".to_owned(),
        ];
        let trace = read_lines(&lines).expect("a trace of what was done");
        let events: Vec<String> =
            trace.recording.events.iter().map(|event| format!("{:?}", event.what)).collect();
        assert_eq!(
            events,
            [
                "Create(1, \"f\")",
                "Write { file: 1, offset: 0, data: b\"ab\" }",
                "Write { file: 1, offset: 2, data: b\"c\" }",
                "Sync(1)",
                "Write { file: 1, offset: 9, data: b\"z\" }",
                "Rename(\"f\", \"g\")",
                "SyncDir(\"/\")",
                "Write { file: 1, offset: 10, data: b\"e\" }",
                "Write { file: 1, offset: 11, data: b\"f\" }",
                "Write { file: 1, offset: 12, data: b\"g\" }",
            ]
        );
        assert!(trace.recording.events[8..].iter().all(|interrupted| interrupted.ended.is_none()));
        let (sync, write) = (&trace.recording.events[3], &trace.recording.events[4]);
        assert!(sync.begun < write.begun && sync.ended > write.ended);
        // Told between the sync's end and the next line: a cut from there on must show what it covers.
        assert_eq!(trace.clock_at(1_000_009), sync.ended.expect("ended"));
        assert!(trace.clock_at(1_000_008) < sync.ended.expect("ended"));
    }

    #[test]
    fn a_call_with_the_end_of_another_is_noticed() {
        let said = |began: String, ended: &str| {
            let opened = format!(
                "7 1.000001 openat(AT_FDCWD, {}, O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 5",
                hex("/root/f")
            );
            read_lines(&[opened, format!("7 1.000002 {began} <unfinished ...>"), ended.to_owned()]).err()
        };
        let (write, sync) = (format!("pwrite64(5, {}, 2, 0", hex("ab")), "fdatasync(5".to_owned());
        for ended in ["7 1.000003 <... pwrite64 resumed>) = 66512", "7 1.000003 <... pwrite64 resumed>) = 1"]
        {
            let said = said(write.clone(), ended).expect("two bytes were to be written");
            assert!(
                said.starts_with("pwrite64 is said to return ") && said.contains(", not 2: 5, "),
                "{said}"
            );
        }
        assert_eq!(said(write, "7 1.000003 <... pwrite64 resumed>) = 2"), None);
        let said = said(sync, "7 1.000003 <... fdatasync resumed>) = 25").expect("a sync returns nothing");
        assert_eq!(said, "fdatasync is said to return 25, not 0: 5");
    }
}
