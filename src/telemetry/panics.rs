//! Panics: each is logged, and one in a part that the server cannot do without ends the process.
//!
//! The state of such a part is lost with it: calls would never be answered, or changes no longer be written. So
//! the process exits at once, which is a crash to the store and to the processes of handlers, and the next start
//! recovers.

use std::cell::Cell;
use std::panic::PanicHookInfo;
use std::pin::pin;

/// Exit code after a panic, as of every Rust program.
pub const EXIT_CODE: i32 = 101;

thread_local! {
    static IS_ESSENTIAL: Cell<bool> = const { Cell::new(false) };
}

/// Logs the panics of this process from now on, in addition to the message on stderr.
pub fn install_hook() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        default(panic);
        report(panic);
    }));
}

/// Declares that the server cannot do without the calling thread.
pub fn mark_thread_essential() {
    IS_ESSENTIAL.set(true);
}

/// Runs a task of the runtime that the server cannot do without.
pub async fn essential<F: Future>(task: F) -> F::Output {
    let mut task = pin!(task);
    std::future::poll_fn(|context| {
        let before = IS_ESSENTIAL.replace(true);
        let polled = task.as_mut().poll(context);
        IS_ESSENTIAL.set(before);
        polled
    })
    .await
}

fn report(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let at = panic.location().map(ToString::to_string).unwrap_or_default();
    let cause = panic.payload_as_str().unwrap_or("without a message");
    if IS_ESSENTIAL.get() {
        tracing::error!(thread, at, cause, "the server exits: a part that it cannot do without has panicked");
        std::process::exit(EXIT_CODE);
    }
    tracing::error!(thread, at, cause, "panicked");
}

/// Runs the test `name` of this binary, which is ignored otherwise, in a process of its own. Returns its exit code
/// and what it wrote.
#[cfg(test)]
pub fn run_ignored_test(name: &str) -> (Option<i32>, String) {
    #[expect(clippy::disallowed_methods, reason = "starts this test binary")]
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", name, "--ignored", "--nocapture"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

/// Installs the hook and a log on stdout, as `lineshaft serve` does.
#[cfg(test)]
pub fn install_for_test() {
    use super::log::{self, LogFormat, Options};
    let options = Options { format: LogFormat::Json, filter: "info".to_owned(), export_level: None, repeats_max: 0 };
    log::init(&options, log::Export::default()).unwrap();
    install_hook();
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "a part that it cannot do without has panicked";

    #[test]
    fn a_panic_of_an_essential_thread_ends_the_process_with_a_log_line() {
        let (code, text) = run_ignored_test("telemetry::panics::tests::an_essential_thread_panics");
        assert_eq!(code, Some(EXIT_CODE), "{text}");
        let line = text.lines().find(|line| line.contains(LINE)).unwrap_or_else(|| panic!("{text}"));
        assert!(line.contains("\"thread\":\"journal\"") && line.contains("\"cause\":\"no luck\""), "{line}");
    }

    #[test]
    fn a_panic_of_an_essential_task_ends_the_process_and_one_of_another_task_is_logged() {
        let (code, text) = run_ignored_test("telemetry::panics::tests::tasks_panic");
        assert_eq!(code, Some(EXIT_CODE), "{text}");
        assert!(text.contains("\"cause\":\"harmless\"") && text.contains("\"cause\":\"fatal\""), "{text}");
        assert_eq!(text.matches(LINE).count(), 1, "{text}");
    }

    #[test]
    #[ignore = "ends the process; another test starts it"]
    fn an_essential_thread_panics() {
        install_for_test();
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(|| {
            mark_thread_essential();
            panic!("no luck");
        });
        let _ = thread.unwrap().join();
    }

    #[tokio::test]
    #[ignore = "ends the process; another test starts it"]
    async fn tasks_panic() {
        install_for_test();
        essential(tokio::task::yield_now()).await;
        tokio::spawn(async { panic!("harmless") }).await.unwrap_err();
        let fatal = async {
            tokio::task::yield_now().await;
            panic!("fatal");
        };
        tokio::spawn(essential(fatal)).await.unwrap_err();
    }
}
