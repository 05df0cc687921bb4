//! `heavy`: takes memory and walks through it, for trials of limits and of busy machines.

use serde::Deserialize;

use super::{Halt, Pace, compute_now, in_range, parse};
use crate::model::{Failure, FailureReason};
use crate::runners::{BoxFuture, Outcome, Run, Runner};

pub(super) const DESCRIPTION: &str = "Fills memory and mixes it, round by round, on one core.";
pub(super) const PAYLOAD: &str =
    r#"{"megabytes": 1 to 1024, "rounds": 1 to 100000}. Result: {"megabytes", "rounds", "checksum"}."#;

/// Most memory in MiB.
pub const MEGABYTES_MAX: u64 = 1_024;
/// Most rounds.
pub const ROUNDS_MAX: u64 = 100_000;

/// Words of one MiB.
const WORDS_PER_MEGABYTE: u64 = (1 << 20) / 8;
/// Words between two looks at the stop: 64 KiB.
const PIECE: usize = 8_192;

/// The runner of `heavy`.
#[derive(Clone, Copy, Debug)]
pub struct Heavy;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    megabytes: u64,
    #[serde(default = "one")]
    rounds: u64,
}

fn one() -> u64 {
    1
}

impl Runner for Heavy {
    fn run(&self, run: Run) -> BoxFuture<Outcome> {
        compute_now(run, |run| {
            let Request { megabytes, rounds } = parse(&run.payload)?;
            in_range("megabytes", megabytes, 1, MEGABYTES_MAX)?;
            in_range("rounds", rounds, 1, ROUNDS_MAX)?;
            let checksum = walk(run, megabytes, rounds)?;
            Ok(format!(r#"{{"megabytes":{megabytes},"rounds":{rounds},"checksum":"{checksum:016x}"}}"#))
        })
    }
}

/// Fills the memory, then mixes each word with what came before it; each word hangs on all others.
fn walk(run: &Run, megabytes: u64, rounds: u64) -> Result<u64, Halt> {
    let words = usize::try_from(megabytes * WORDS_PER_MEGABYTE).unwrap_or(usize::MAX);
    let pieces = words.div_ceil(PIECE) as u64;
    let all = pieces * (rounds + 1);
    let mut memory: Vec<u64> = Vec::new();
    memory
        .try_reserve_exact(words)
        .map_err(|_| Failure::new(FailureReason::OutOfMemory, format!("the machine has no {megabytes} MiB to give")))?;
    let mut pace = Pace::new(run);
    let mut done = 0;
    let mut checksum = 0;
    while memory.len() < words {
        let end = words.min(memory.len() + PIECE);
        memory.extend((memory.len()..end).map(|place| mix(place as u64)));
        done += 1;
        pace.step(done, all)?;
    }
    for round in 0..rounds {
        for piece in memory.chunks_mut(PIECE) {
            for word in piece {
                checksum = mix(*word ^ checksum ^ round);
                *word = checksum;
            }
            done += 1;
            pace.step(done, all)?;
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
