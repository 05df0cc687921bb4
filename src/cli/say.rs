//! What commands write: data to standard output, talk to standard error.
//!
//! Whoever has closed the pipe has read enough. Then a command that only shows ends quietly, and one whose exit
//! code is a verdict goes on to it without words. Whatever else keeps data from being written, such as a full
//! disk, is an error. Talk that nobody hears is no reason for anything.

use std::fmt::Display;
use std::io::{self, ErrorKind, StdoutLock, Write as _};
use std::process::ExitCode;
use std::sync::OnceLock;

use tokio::sync::Notify;

/// Why standard output takes no more; nothing is written after that.
static LOST: OnceLock<io::Error> = OnceLock::new();
static LOSES: Notify = Notify::const_new();

/// Writes a line of data.
pub fn line(text: impl Display) {
    put(|out| writeln!(out, "{text}"));
}

/// Writes data as it is.
pub fn bytes(data: &[u8]) {
    put(|out| out.write_all(data).and_then(|()| out.flush()));
}

/// Writes a line of talk.
pub fn talk(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Begins a line of talk, which the next one ends.
pub fn begin_to_talk(text: impl Display) {
    let _ = write!(io::stderr(), "{text}");
}

/// Data was written in another way.
pub fn wrote(result: io::Result<()>) {
    put(|_| result);
}

fn put(write: impl FnOnce(&mut StdoutLock<'_>) -> io::Result<()>) {
    if LOST.get().is_none()
        && let Err(error) = write(&mut io::stdout().lock())
    {
        // Another thread may have been the first to see it.
        let _ = LOST.set(error);
        LOSES.notify_one();
    }
}

/// Waits until data cannot be written any more.
pub async fn lost() {
    LOSES.notified().await;
}

/// The exit code of a command that would end with this one.
pub fn ending(code: ExitCode) -> ExitCode {
    put(|out| out.flush());
    match LOST.get() {
        Some(error) if error.kind() != ErrorKind::BrokenPipe => {
            talk(format_args!("error: standard output cannot be written: {error}"));
            if code == ExitCode::SUCCESS { ExitCode::FAILURE } else { code }
        }
        _ => code,
    }
}
