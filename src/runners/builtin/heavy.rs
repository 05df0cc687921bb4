//! `heavy`: allocates memory and mixes it repeatedly, to test limits and loaded machines.

use serde::Deserialize;

use super::payload::{in_range, parse};
use super::work::{Progress, WorkError, run_blocking};
use crate::model::{Failure, FailureReason};
use crate::runners::{BoxFuture, Run, RunReport, Runner};

/// Unless another limit is configured.
const MEGABYTES_MAX: u64 = 64;
const ROUNDS_MAX: u64 = 100_000;

/// 64-bit words per MiB.
const WORDS_PER_MEGABYTE: u64 = (1 << 20) / 8;
/// Words between two checks for a stop: 64 KiB.
const CHUNK: usize = 8_192;

#[derive(Clone, Copy, Debug)]
pub struct Heavy {
    megabytes_max: u64,
}

impl Heavy {
    /// `memory_max` is the largest amount of memory that a task may fill, in bytes.
    pub fn new(memory_max: Option<u64>) -> Self {
        Self { megabytes_max: memory_max.map_or(MEGABYTES_MAX, |bytes| bytes >> 20) }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `megabytes` and optional `rounds`")]
struct Request {
    megabytes: u64,
    #[serde(default = "one")]
    rounds: u64,
}

fn one() -> u64 {
    1
}

impl Runner for Heavy {
    fn run(&self, run: Run) -> BoxFuture<RunReport> {
        let megabytes_max = self.megabytes_max;
        run_blocking(run, move |run| {
            let Request { megabytes, rounds } = parse(&run.payload)?;
            in_range("megabytes", megabytes, 1, megabytes_max)?;
            in_range("rounds", rounds, 1, ROUNDS_MAX)?;
            let checksum = fill_and_mix(run, megabytes, rounds)?;
            Ok(format!(r#"{{"megabytes":{megabytes},"rounds":{rounds},"checksum":"{checksum:016x}"}}"#))
        })
    }
}

/// Fills the memory, then mixes each word with the checksum of all words before it. Returns the checksum.
fn fill_and_mix(run: &Run, megabytes: u64, rounds: u64) -> Result<u64, WorkError> {
    let words = usize::try_from(megabytes * WORDS_PER_MEGABYTE).unwrap_or(usize::MAX);
    let chunks = words.div_ceil(CHUNK) as u64;
    let total = chunks * (rounds + 1);
    let mut memory: Vec<u64> = Vec::new();
    memory
        .try_reserve_exact(words)
        .map_err(|_| Failure::new(FailureReason::OutOfMemory, format!("failed to allocate {megabytes} MiB")))?;
    let mut progress = Progress::new(run);
    let mut done = 0;
    let mut checksum = 0;
    while memory.len() < words {
        let end = words.min(memory.len() + CHUNK);
        memory.extend((memory.len()..end).map(|index| mix(index as u64)));
        done += 1;
        progress.step(done, total)?;
    }
    for round in 0..rounds {
        for chunk in memory.chunks_mut(CHUNK) {
            for word in chunk {
                checksum = mix(*word ^ checksum ^ round);
                *word = checksum;
            }
            done += 1;
            progress.step(done, total)?;
        }
    }
    Ok(checksum)
}

/// One step of SplitMix64.
fn mix(seed: u64) -> u64 {
    let mut word = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}
