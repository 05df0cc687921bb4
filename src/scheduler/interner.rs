//! Sharing of equal task options, so that a queued task needs little memory.

use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashSet};

use crate::model::TaskOptions;

#[derive(Default)]
pub(super) struct OptionsInterner {
    options: HashSet<Arc<TaskOptions>, DefaultHashBuilder>,
    /// Number of options at which unused ones are removed.
    sweep_at: usize,
}

impl OptionsInterner {
    pub fn intern(&mut self, options: TaskOptions) -> Arc<TaskOptions> {
        if let Some(shared) = self.options.get(&options) {
            return shared.clone();
        }
        if self.options.len() >= self.sweep_at {
            self.options.retain(|options| Arc::strong_count(options) > 1);
            self.sweep_at = 1_024 + 2 * self.options.len();
        }
        let options = Arc::new(options);
        self.options.insert(options.clone());
        options
    }
}
