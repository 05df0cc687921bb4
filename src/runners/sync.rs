//! The primitives through which the threads of a pool, and the links to remote workers, act on each other.
//!
//! Outside of unit tests they are those of parking_lot, std and tokio. In unit tests each use of one is also a point at
//! which shuttle can let another thread continue; see the `interleaving_tests` of `pool`.

#[cfg(not(test))]
pub(crate) use std::{
    sync::atomic::{AtomicBool, AtomicU8, AtomicU64},
    thread::yield_now,
};

#[cfg(not(test))]
pub(crate) use parking_lot::Mutex;
#[cfg(not(test))]
pub(crate) use tokio::sync::Notify;

#[cfg(test)]
pub(crate) use switching::{AtomicBool, AtomicU8, AtomicU64, Mutex, Notify, run_interleaved, yield_now};

#[cfg(test)]
mod switching {
    use std::cell::Cell;
    use std::ops::Deref;
    use std::sync::atomic;

    use parking_lot::MutexGuard;
    use shuttle::scheduler::Scheduler;

    pub type AtomicBool = Switching<atomic::AtomicBool>;
    pub type AtomicU8 = Switching<atomic::AtomicU8>;
    pub type AtomicU64 = Switching<atomic::AtomicU64>;
    pub type Notify = Switching<tokio::sync::Notify>;

    /// Stack of a coroutine: the loop of a worker in a debug build.
    const STACK_BYTES: usize = 1 << 18;

    thread_local! {
        /// Shuttle runs all threads of a test as coroutines of one thread of the system.
        static IS_INTERLEAVED: Cell<bool> = const { Cell::new(false) };
    }

    /// Runs a test under many interleavings of its threads, which must be those of shuttle.
    ///
    /// # Panics
    /// If the test panics, or its threads wait for each other. Prints the interleaving, with which `shuttle::replay` runs
    /// it again.
    pub fn run_interleaved(scheduler: impl Scheduler + 'static, test: impl Fn() + Send + Sync + 'static) {
        let mut config = shuttle::Config::new();
        config.stack_size = STACK_BYTES;
        let runner = shuttle::Runner::new(scheduler, config);
        runner.run(move || {
            IS_INTERLEAVED.set(true);
            test();
        });
        IS_INTERLEAVED.set(false);
    }

    /// Lets another thread continue, or not, as shuttle decides.
    fn switch() {
        if IS_INTERLEAVED.get() {
            shuttle::sync::atomic::AtomicBool::new(false).load(atomic::Ordering::SeqCst);
        }
    }

    pub fn yield_now() {
        if IS_INTERLEAVED.get() {
            shuttle::thread::yield_now();
        } else {
            std::thread::yield_now();
        }
    }

    /// Each use of the value is preceded by a switch.
    #[derive(Debug, Default)]
    pub struct Switching<T>(T);

    impl<T> Deref for Switching<T> {
        type Target = T;

        fn deref(&self) -> &T {
            switch();
            &self.0
        }
    }

    #[derive(Debug, Default)]
    pub struct Mutex<T>(parking_lot::Mutex<T>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Self(parking_lot::Mutex::new(value))
        }

        pub fn lock(&self) -> MutexGuard<'_, T> {
            switch();
            while IS_INTERLEAVED.get() {
                match self.0.try_lock() {
                    Some(guard) => return guard,
                    // Another coroutine of this thread has the lock.
                    None => shuttle::thread::yield_now(),
                }
            }
            self.0.lock()
        }
    }
}
