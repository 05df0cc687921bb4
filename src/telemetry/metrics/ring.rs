//! Measurements of one worker that have not been passed to the SDK yet.
//!
//! The SDK keeps a histogram behind a lock, at which workers would wait for each other. So each worker writes its
//! measurements to its own ring, with plain stores. Before a collection the measurements of all rings go to the
//! SDK; a worker whose ring is full drains it itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Measurements that a ring holds.
const SLOTS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Measurement {
    /// Number of the series, chosen by the writer.
    pub series: usize,
    pub value: u64,
}

#[derive(Default)]
struct Slot {
    series: AtomicUsize,
    value: AtomicU64,
}

/// Written by one [`RingWriter`], drained by any thread.
#[repr(align(128))]
pub(super) struct Ring {
    slots: [Slot; SLOTS],
    /// Measurements written since the start.
    written: AtomicU64,
    reader: Reader,
}

/// On separate cache lines: the writer reads this counter often, and it changes seldom.
#[derive(Default)]
#[repr(align(128))]
struct Reader {
    /// Measurements drained since the start.
    drained: AtomicU64,
    draining: Mutex<()>,
}

impl Ring {
    /// Passes the measurements that were not drained yet to `consume`, in order, each once.
    pub fn drain(&self, consume: impl FnOnce(&mut dyn Iterator<Item = Measurement>)) {
        let _exclusive = self.reader.draining.lock();
        let (from, to) = (self.reader.drained.load(Ordering::Relaxed), self.written.load(Ordering::Acquire));
        consume(&mut (from..to).map(|number| {
            let slot = self.slot(number);
            Measurement { series: slot.series.load(Ordering::Relaxed), value: slot.value.load(Ordering::Relaxed) }
        }));
        // From here on the writer may reuse the slots.
        self.reader.drained.store(to, Ordering::Release);
    }

    #[expect(clippy::cast_possible_truncation, reason = "the remainder is small")]
    fn slot(&self, number: u64) -> &Slot {
        &self.slots[number as usize % SLOTS]
    }
}

/// The only writer of a ring.
pub(super) struct RingWriter {
    ring: Arc<Ring>,
    written: u64,
}

impl RingWriter {
    pub fn new() -> Self {
        let slots = std::array::from_fn(|_| Slot::default());
        Self { ring: Arc::new(Ring { slots, written: AtomicU64::new(0), reader: Reader::default() }), written: 0 }
    }

    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// Writes a measurement. A full ring is drained into `consume` first.
    pub fn write(&mut self, measurement: Measurement, consume: impl FnOnce(&mut dyn Iterator<Item = Measurement>)) {
        if self.written - self.ring.reader.drained.load(Ordering::Acquire) >= SLOTS as u64 {
            self.ring.drain(consume);
        }
        let slot = self.ring.slot(self.written);
        slot.series.store(measurement.series, Ordering::Relaxed);
        slot.value.store(measurement.value, Ordering::Relaxed);
        self.written += 1;
        self.ring.written.store(self.written, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(value: u64) -> Measurement {
        Measurement { series: usize::try_from(value % 5).unwrap(), value }
    }

    #[test]
    fn every_measurement_is_drained_once_and_in_order() {
        let mut writer = RingWriter::new();
        let mut drained = Vec::new();
        for value in 0..1_000 {
            writer.write(measurement(value), |all| drained.extend(all));
            if value % 100 == 7 {
                writer.ring().drain(|all| drained.extend(all));
            }
        }
        assert!(drained.len() >= 1_000 - SLOTS, "{} were drained when the ring was full", drained.len());
        writer.ring().drain(|all| drained.extend(all));
        writer.ring().drain(|all| assert_eq!(all.next(), None, "drained twice"));
        assert_eq!(drained, (0..1_000).map(measurement).collect::<Vec<_>>());
    }

    #[test]
    fn draining_beside_the_writer_loses_and_repeats_nothing() {
        const MEASUREMENTS: u64 = 200_000;
        let mut writer = RingWriter::new();
        let ring = writer.ring().clone();
        let seen = Mutex::new(0);
        let check = |all: &mut dyn Iterator<Item = Measurement>| {
            for found in all {
                assert_eq!(found, measurement(found.value), "a torn measurement");
                let mut seen = seen.lock();
                assert_eq!(found.value, *seen, "out of order");
                *seen += 1;
            }
        };
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| (0..MEASUREMENTS).for_each(|value| writer.write(measurement(value), check)));
            while !writing.is_finished() {
                ring.drain(check);
            }
        });
        ring.drain(check);
        assert_eq!(*seen.lock(), MEASUREMENTS);
    }
}
