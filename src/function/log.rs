//! Log lines of functions as the output of their tasks.

use std::io;

use tracing_subscriber::fmt::MakeWriter;

use super::context::TaskContext;

/// Writes the log lines of a function to the standard error of its task. It is a writer for a layer of `tracing-subscriber`:
///
/// ```
/// use tracing_subscriber::prelude::*;
///
/// let of_tasks = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(lineshaft::TaskLog);
/// tracing_subscriber::registry().with(tracing_subscriber::fmt::layer()).with(of_tasks).init();
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct TaskLog;

impl<'a> MakeWriter<'a> for TaskLog {
    type Writer = Box<dyn io::Write + 'a>;

    fn make_writer(&'a self) -> Self::Writer {
        match TaskContext::current() {
            Some(context) => Box::new(context.stderr()),
            None => Box::new(io::sink()),
        }
    }
}
