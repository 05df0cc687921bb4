//! Output of all commands: results go to stdout, messages to stderr.
//!
//! A closed stdout pipe means that the reader needs no more. A command that only prints then ends silently with
//! success; a command whose exit code is its result still runs to its end. Any other write error, such as a full
//! disk, is reported and changes a successful exit code to 1. Errors on stderr are ignored.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, StdoutLock, Write as _};
use std::process::ExitCode;
use std::sync::OnceLock;

use tokio::sync::Notify;

use super::terminal;

/// The first error of a write to stdout. Nothing is written to stdout after it.
static STDOUT_ERROR: OnceLock<io::Error> = OnceLock::new();
static STDOUT_FAILED: Notify = Notify::const_new();

/// Writes lines for people to stdout.
pub fn stdout_text(text: &str) {
    stdout_line(terminal::lines(text));
}

/// Writes a line to stdout as it is: for other programs, or text that this program made.
pub fn stdout_line(text: impl Display) {
    write_stdout(|out| writeln!(out, "{text}"));
}

/// Writes exactly these bytes to stdout, and flushes.
pub fn stdout_bytes(data: &[u8]) {
    write_stdout(|out| out.write_all(data).and_then(|()| out.flush()));
}

/// Clears the terminal and writes lines that are safe for it.
pub fn redraw(text: impl Display) {
    write_stdout(|out| writeln!(out, "\x1b[H\x1b[J{text}").and_then(|()| out.flush()));
}

/// Writes a message for people to stderr.
pub fn status(text: impl Display) {
    let _ = writeln!(io::stderr(), "{}", terminal::lines(&text.to_string()));
}

/// Whether people see stdout at once, and not a file or a program.
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether stdout shows colours, which <https://no-color.org> can switch off.
pub fn is_colored() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    is_terminal() && !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Columns of the terminal that shows stdout.
pub fn terminal_width() -> Option<usize> {
    let size = is_terminal().then(|| console::Term::stdout().size_checked()).flatten();
    size.map(|(_, columns)| usize::from(columns)).filter(|columns| *columns > 0)
}

/// Writes the first part of a message to stderr; the next [`status`] completes the line.
pub fn status_start(text: impl Display) {
    let _ = write!(io::stderr(), "{text}");
}

/// Takes note of the result of a write to stdout that other code made.
pub fn check_write(result: io::Result<()>) {
    write_stdout(|_| result);
}

fn write_stdout(write: impl FnOnce(&mut StdoutLock<'_>) -> io::Result<()>) {
    if STDOUT_ERROR.get().is_none()
        && let Err(error) = write(&mut io::stdout().lock())
    {
        // Another thread may have stored its error first.
        let _ = STDOUT_ERROR.set(error);
        STDOUT_FAILED.notify_one();
    }
}

/// Waits until a write to stdout has failed.
pub async fn stdout_failed() {
    STDOUT_FAILED.notified().await;
}

/// Flushes stdout and returns the exit code: `code`, or 1 if stdout could not be written and `code` is success.
pub fn exit_code(code: ExitCode) -> ExitCode {
    write_stdout(|out| out.flush());
    match STDOUT_ERROR.get() {
        Some(error) if error.kind() != ErrorKind::BrokenPipe => {
            status(format_args!("error: failed to write to stdout: {error}"));
            if code == ExitCode::SUCCESS { ExitCode::FAILURE } else { code }
        }
        _ => code,
    }
}
