//! Ids of internal errors. Each id that a caller gets is in the log.
//!
//! Errors with the same text within ten seconds share an id and one line, so that a fault which many calls meet does not bury
//! the rest of the log. The limit on repeated lines does not apply to incidents.

use std::sync::LazyLock;
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use crate::telemetry::INCIDENT;

/// How long errors with the same text share an id.
const WINDOW: Duration = Duration::from_secs(10);
/// Texts that are remembered.
const TEXTS_MAX: usize = 1_000;

static INCIDENTS: LazyLock<Incidents> = LazyLock::new(Incidents::default);

/// Logs the text of an internal error. Returns the id for the caller.
pub fn report(text: &str) -> Uuid {
    INCIDENTS.report(text)
}

#[derive(Default)]
struct Incidents {
    by_text: Mutex<HashMap<String, Incident>>,
}

struct Incident {
    id: Uuid,
    since: Instant,
    /// Errors that share the id, without the first one.
    repeated: u64,
}

impl Incidents {
    fn report(&self, text: &str) -> Uuid {
        let now = Instant::now();
        let mut by_text = self.by_text.lock();
        let is_recent = |incident: &Incident| now.duration_since(incident.since) < WINDOW;
        let repeated = match by_text.get_mut(text) {
            Some(incident) if is_recent(incident) => {
                incident.repeated += 1;
                return incident.id;
            }
            Some(incident) => incident.repeated,
            None => 0,
        };
        if by_text.len() >= TEXTS_MAX {
            by_text.retain(|_, incident| is_recent(incident));
            if by_text.len() >= TEXTS_MAX {
                by_text.clear();
            }
        }
        let id = Uuid::new_v4();
        by_text.insert(text.to_owned(), Incident { id, since: now, repeated: 0 });
        // Under the lock, so that no caller gets the id before it is in the log.
        tracing::error!(name: INCIDENT, incident = %id, error = text, repeated, "internal error");
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn errors_with_the_same_text_share_an_id_for_ten_seconds() {
        let incidents = Incidents::default();
        let (first, other) = (incidents.report("no disk"), incidents.report("no memory"));
        assert_ne!(first, other);
        assert_eq!(incidents.report("no disk"), first);
        tokio::time::advance(WINDOW).await;
        assert_ne!(incidents.report("no disk"), first);
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_texts_is_bounded_and_each_has_its_own_id() {
        let incidents = Incidents::default();
        let ids: std::collections::HashSet<_> =
            (0..5_000).map(|number| incidents.report(&number.to_string())).collect();
        assert_eq!(ids.len(), 5_000);
        assert!(incidents.by_text.lock().len() <= TEXTS_MAX);
    }
}
