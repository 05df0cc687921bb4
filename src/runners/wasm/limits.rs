//! The limits of the memory and the tables of a guest.

use wasmtime::{Error, ResourceLimiter, Result};

/// Memory of a guest, unless its handler sets another limit.
pub(super) const MEMORY_DEFAULT: u64 = 128 << 20;
/// Elements of all tables of a guest, mostly functions that it calls indirectly.
pub(super) const TABLE_ELEMENTS_MAX: usize = 100_000;
/// A component can consist of several instances; a module is one.
const INSTANCES_MAX: usize = 100;
const TABLES_MAX: usize = 100;
pub(super) const MEMORIES_MAX: usize = 10;

/// What a guest uses, and may use.
pub(super) struct GuestLimits {
    memory_max: usize,
    memory: Use,
    table: Use,
}

/// Bytes of memories or elements of tables.
#[derive(Default)]
struct Use {
    used: usize,
    /// Of the growth that was allowed last; it can still fail.
    last_growth: usize,
    was_refused: bool,
}

impl GuestLimits {
    pub(super) fn new(memory_max: usize) -> Self {
        Self { memory_max, memory: Use::default(), table: Use::default() }
    }

    /// Memories do not shrink, so this is also the most that was used.
    pub(super) fn memory_used(&self) -> usize {
        self.memory.used
    }

    /// The limit at which the guest was refused something, as text.
    pub(super) fn reached(&self) -> Option<String> {
        if self.memory.was_refused {
            return Some(format!("reached the memory limit of {} bytes", self.memory_max));
        }
        let text = || format!("reached the limit of {TABLE_ELEMENTS_MAX} table elements");
        self.table.was_refused.then(text)
    }
}

impl Use {
    fn grow(&mut self, current: usize, desired: usize, max: usize) -> bool {
        let growth = desired.saturating_sub(current);
        self.last_growth = 0;
        if growth > max.saturating_sub(self.used) {
            self.was_refused = true;
            return false;
        }
        self.used += growth;
        self.last_growth = growth;
        true
    }

    fn grow_failed(&mut self) {
        self.used -= std::mem::take(&mut self.last_growth);
    }
}

impl ResourceLimiter for GuestLimits {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        Ok(self.memory.grow(current, desired, self.memory_max))
    }

    fn memory_grow_failed(&mut self, _error: Error) -> Result<()> {
        self.memory.grow_failed();
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        Ok(self.table.grow(current, desired, TABLE_ELEMENTS_MAX))
    }

    fn table_grow_failed(&mut self, _error: Error) -> Result<()> {
        self.table.grow_failed();
        Ok(())
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memories_of_a_guest_share_the_limit() {
        let mut limits = GuestLimits::new(100);
        assert!(limits.memory_growing(0, 60, None).unwrap());
        assert!(!limits.memory_growing(0, 60, None).unwrap());
        assert!(limits.memory_growing(60, 100, None).unwrap());
        assert_eq!(limits.memory_used(), 100);
        assert_eq!(limits.reached().as_deref(), Some("reached the memory limit of 100 bytes"));
    }

    #[test]
    fn growth_that_fails_is_not_counted() {
        let mut limits = GuestLimits::new(100);
        assert!(limits.memory_growing(0, 90, None).unwrap());
        // Refused growth also fails.
        assert!(!limits.memory_growing(90, 101, None).unwrap());
        limits.memory_grow_failed(Error::msg("refused")).unwrap();
        assert_eq!(limits.memory_used(), 90);
        assert!(limits.memory_growing(90, 95, None).unwrap());
        limits.memory_grow_failed(Error::msg("no memory")).unwrap();
        assert_eq!(limits.memory_used(), 90);
    }
}
