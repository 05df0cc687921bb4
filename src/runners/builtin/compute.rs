//! `compute`: sums and prime counts that keep one core busy for a time that depends on `n`.

use std::hint::black_box;

use serde::Deserialize;

use super::payload::{in_range, invalid, parse};
use super::work::{Progress, WorkError, run_blocking};
use crate::model::Failure;
use crate::runners::{BoxFuture, Run, RunReport, Runner};

/// Largest n of `sum`.
const SUM_MAX: u64 = 1_000_000_000_000;
/// Largest n of `primes`.
const PRIMES_MAX: u64 = 1_000_000_000;

/// Additions between two checks for a stop; a few microseconds.
const SUM_STEPS: u64 = 8_192;
/// Odd numbers per segment of the sieve: fits the first-level cache.
const SIEVE_SEGMENT: usize = 32 * 1024;

#[derive(Clone, Copy, Debug)]
pub struct Compute;

impl Runner for Compute {
    fn run(&self, run: Run) -> BoxFuture<RunReport> {
        run_blocking(run, |run| {
            let Request { op, n } = Request::parse(&run.payload)?;
            let (name, value) = match op {
                Op::Sum => ("sum", sum(run, in_range("n", n, 0, SUM_MAX)?)?),
                Op::Primes => ("primes", primes(run, in_range("n", n, 0, PRIMES_MAX)?)?.into()),
            };
            Ok(format!(r#"{{"op":"{name}","n":{n},"value":{value}}}"#))
        })
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Op {
    #[default]
    Sum,
    Primes,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, expecting = "an object with `n` and optional `op`")]
struct Request {
    #[serde(default)]
    op: Op,
    n: u64,
}

impl Request {
    fn parse(payload: &[u8]) -> Result<Self, Failure> {
        let text = payload.trim_ascii();
        match text.first() {
            None => Err(invalid("payload: is empty, expected a number or an object with `n`")),
            // The common case, a plain number, needs no JSON parser.
            Some(b'0'..=b'9') => match std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()) {
                Some(n) => Ok(Self { op: Op::Sum, n }),
                None => parse(text).map(|n| Self { op: Op::Sum, n }),
            },
            Some(b'{') => parse(text),
            Some(_) => parse(text).map(|n| Self { op: Op::Sum, n }),
        }
    }
}

/// The sum of 0..n, computed by addition and not by formula.
fn sum(run: &Run, n: u64) -> Result<u128, WorkError> {
    let mut progress = None;
    let (mut total, mut next) = (0_u128, 0);
    while next < n {
        let end = n.min(next + SUM_STEPS);
        let mut part = 0_u64;
        for term in next..end {
            part = black_box(part + term);
        }
        total += u128::from(part);
        next = end;
        // Created after the first part, so that a small n never reads the clock.
        progress.get_or_insert_with(|| Progress::new(run)).step(next, n)?;
    }
    Ok(total)
}

/// The number of primes up to `n`, by a segmented sieve over the odd numbers.
fn primes(run: &Run, n: u64) -> Result<u64, WorkError> {
    if n < 2 {
        return Ok(0);
    }
    let mut progress = Progress::new(run);
    let base = odd_primes_up_to(n.isqrt());
    // The next odd multiple of each base prime to mark as composite.
    let mut multiples: Vec<u64> = base.iter().map(|prime| prime * prime).collect();
    let mut composite = vec![false; SIEVE_SEGMENT];
    let mut count = 1; // 2, the only even prime.
    let mut low = 3;
    while low <= n {
        let length = SIEVE_SEGMENT.min(index((n - low) / 2 + 1));
        let segment = &mut composite[..length];
        segment.fill(false);
        let high = low + 2 * length as u64;
        for (prime, multiple) in base.iter().zip(&mut multiples) {
            while *multiple < high {
                segment[index((*multiple - low) / 2)] = true;
                *multiple += 2 * prime;
            }
        }
        count += segment.iter().filter(|composite| !**composite).count() as u64;
        low = high;
        progress.step(low.min(n), n)?;
    }
    Ok(count)
}

fn odd_primes_up_to(limit: u64) -> Vec<u64> {
    let mut composite = vec![false; index(limit) + 1];
    let mut primes = Vec::new();
    for number in (3..=limit).step_by(2) {
        if composite[index(number)] {
            continue;
        }
        primes.push(number);
        for multiple in (number * number..=limit).step_by(index(2 * number)) {
            composite[index(multiple)] = true;
        }
    }
    primes
}

/// Converts a number that fits: all numbers here are far below 2^32.
fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_a_number_or_an_object_with_an_operation() {
        assert_eq!(Request::parse(b" 500\n").unwrap(), Request { op: Op::Sum, n: 500 });
        assert_eq!(Request::parse(br#"{"n":7}"#).unwrap(), Request { op: Op::Sum, n: 7 });
        assert_eq!(Request::parse(br#"{"op":"primes","n":7}"#).unwrap(), Request { op: Op::Primes, n: 7 });
        for bad in
            ["", "-1", "1.5", "\"9\"", "{}", r#"{"n":1,"m":2}"#, r#"{"op":"product","n":1}"#, "99999999999999999999"]
        {
            let failure = Request::parse(bad.as_bytes()).unwrap_err();
            assert!(failure.message.starts_with("payload: ") && !failure.retryable, "{bad}: {failure:?}");
        }
    }
}
