//! Settings that all scenarios share.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time from the start of a load over which a burst is counted. Work that a server leaves for later does not slow it.
const BURST: Duration = Duration::from_secs(3);

#[derive(Clone, Debug)]
pub struct Settings {
    /// Parent directory of the stores.
    pub directory: PathBuf,
    /// Time for which a load lasts whose sustained rate is measured.
    pub duration: Duration,
    /// How often each of these loads is measured.
    pub rounds: usize,
    pub connections: usize,
    /// Concurrent calls per connection.
    pub in_flight: usize,
    /// Smaller amounts, for a quick look.
    pub quick: bool,
    /// The binary whose server is measured.
    pub program: PathBuf,
    /// Another version of it, which is measured by turns.
    pub other: Option<PathBuf>,
}

impl Settings {
    pub fn burst(&self) -> Duration {
        self.duration.min(BURST)
    }

    /// For loads that are measured as a burst only.
    pub fn short(&self) -> Self {
        Self { duration: self.burst(), ..self.clone() }
    }

    /// With the server of another binary.
    pub fn with_program(&self, program: &Path) -> Self {
        Self { program: program.to_owned(), ..self.clone() }
    }
}
