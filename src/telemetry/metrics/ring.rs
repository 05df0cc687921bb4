//! What one worker has measured and the SDK has not been told yet.
//!
//! The SDK keeps a distribution behind a lock, at which workers would wait for each other. So each of
//! them notes what it measures in a ring of its own, with plain stores. Whoever collects tells the SDK
//! first what all rings hold, and a worker whose ring is full tells what is in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Notes that a ring holds.
const PLACES: usize = 64;

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// Which series; a number of the writer's choice.
    pub series: usize,
    /// What was measured.
    pub value: u64,
}

#[derive(Default)]
struct Place {
    series: AtomicUsize,
    value: AtomicU64,
}

/// Written by one [`Pen`], read by anybody.
#[repr(align(128))]
pub(super) struct Ring {
    places: [Place; PLACES],
    /// How many notes there have been.
    noted: AtomicU64,
    reader: Reader,
}

/// On cache lines of its own: the writer looks at it and seldom finds it changed.
#[derive(Default)]
#[repr(align(128))]
struct Reader {
    /// How many of the notes were told.
    told: AtomicU64,
    telling: Mutex<()>,
}

impl Ring {
    /// Tells what was noted and not told yet, in order, each note once.
    pub fn tell(&self, whom: impl FnOnce(&mut dyn Iterator<Item = Note>)) {
        let _alone = self.reader.telling.lock();
        let (from, to) = (self.reader.told.load(Ordering::Relaxed), self.noted.load(Ordering::Acquire));
        whom(&mut (from..to).map(|number| {
            let place = self.place(number);
            Note { series: place.series.load(Ordering::Relaxed), value: place.value.load(Ordering::Relaxed) }
        }));
        // From here on the writer may use the places again.
        self.reader.told.store(to, Ordering::Release);
    }

    #[expect(clippy::cast_possible_truncation, reason = "the remainder is small")]
    fn place(&self, number: u64) -> &Place {
        &self.places[number as usize % PLACES]
    }
}

/// The only writer of a ring.
pub(super) struct Pen {
    ring: Arc<Ring>,
    noted: u64,
}

impl Pen {
    /// An empty ring, and who writes it.
    pub fn new() -> Self {
        let places = std::array::from_fn(|_| Place::default());
        Self { ring: Arc::new(Ring { places, noted: AtomicU64::new(0), reader: Reader::default() }), noted: 0 }
    }

    /// What it writes.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// Notes. When the ring is full, `whom` is told first what is in it.
    pub fn note(&mut self, note: Note, whom: impl FnOnce(&mut dyn Iterator<Item = Note>)) {
        if self.noted - self.ring.reader.told.load(Ordering::Acquire) >= PLACES as u64 {
            self.ring.tell(whom);
        }
        let place = self.ring.place(self.noted);
        place.series.store(note.series, Ordering::Relaxed);
        place.value.store(note.value, Ordering::Relaxed);
        self.noted += 1;
        self.ring.noted.store(self.noted, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(value: u64) -> Note {
        Note { series: usize::try_from(value % 5).unwrap(), value }
    }

    #[test]
    fn every_note_is_told_once_and_in_order_however_often_one_looks() {
        let mut pen = Pen::new();
        let mut told = Vec::new();
        for value in 0..1_000 {
            pen.note(note(value), |notes| told.extend(notes));
            if value % 100 == 7 {
                pen.ring().tell(|notes| told.extend(notes));
            }
        }
        assert!(told.len() >= 1_000 - PLACES, "{} were told when the ring was full", told.len());
        pen.ring().tell(|notes| told.extend(notes));
        pen.ring().tell(|notes| assert_eq!(notes.next(), None, "told twice"));
        let all: Vec<_> = (0..1_000).map(note).collect();
        assert_eq!(told, all);
    }

    #[test]
    fn a_reader_beside_the_writer_loses_nothing_and_counts_nothing_twice() {
        const NOTES: u64 = 200_000;
        let mut pen = Pen::new();
        let ring = pen.ring().clone();
        let seen = Mutex::new(0);
        let look = |notes: &mut dyn Iterator<Item = Note>| {
            for note in notes {
                assert_eq!(note, self::note(note.value), "a note is whole");
                let mut seen = seen.lock();
                assert_eq!(note.value, *seen, "in order");
                *seen += 1;
            }
        };
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| (0..NOTES).for_each(|value| pen.note(note(value), look)));
            while !writer.is_finished() {
                ring.tell(look);
            }
        });
        ring.tell(look);
        assert_eq!(*seen.lock(), NOTES);
    }
}
