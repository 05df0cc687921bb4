//! Settings that all scenarios share.

use std::path::PathBuf;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Settings {
    /// Parent directory of the stores.
    pub directory: PathBuf,
    /// Time for which each rate is measured.
    pub duration: Duration,
    pub connections: usize,
    /// Concurrent calls per connection.
    pub in_flight: usize,
    /// Smaller amounts, for a quick look.
    pub quick: bool,
}
