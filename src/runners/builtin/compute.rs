//! `compute`: sums and counts that keep one core busy for as long as the caller likes.

use std::hint::black_box;

use serde::Deserialize;

use super::{Halt, Pace, compute_now, in_range, invalid, parse};
use crate::model::Failure;
use crate::runners::{BoxFuture, Outcome, Run, Runner};

pub(super) const DESCRIPTION: &str = "Adds up 0..n, or counts the primes up to n, on one core.";
pub(super) const PAYLOAD: &str = r#"A number n, or {"op": "sum" | "primes", "n": number}; n is at most 1e12 for sum, 1e9 for primes. Result: {"op", "n", "value"}."#;

/// Largest n of `sum`.
pub const SUM_MAX: u64 = 1_000_000_000_000;
/// Largest n of `primes`.
pub const PRIMES_MAX: u64 = 1_000_000_000;

/// Additions between two looks at the stop; a few microseconds.
const SUM_STEPS: u64 = 8_192;
/// Odd numbers of one piece of the sieve: fits the first-level cache.
const SIEVE_PIECE: usize = 32 * 1024;

/// The runner of `compute`.
#[derive(Clone, Copy, Debug)]
pub struct Compute;

impl Runner for Compute {
    fn run(&self, run: Run) -> BoxFuture<Outcome> {
        compute_now(run, |run| {
            let Request { op, n } = Request::read(&run.payload)?;
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
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(default)]
    op: Op,
    n: u64,
}

impl Request {
    fn read(payload: &[u8]) -> Result<Self, Failure> {
        let text = payload.trim_ascii();
        match text.first() {
            None => Err(invalid("payload: is empty, expected a number or an object with `n`")),
            // A plain number is the common case and costs no JSON parser.
            Some(b'0'..=b'9') => match std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()) {
                Some(n) => Ok(Self { op: Op::Sum, n }),
                None => parse(text).map(|n| Self { op: Op::Sum, n }),
            },
            Some(b'{') => parse(text),
            Some(_) => parse(text).map(|n| Self { op: Op::Sum, n }),
        }
    }
}

/// The sum of 0..n, really added up.
fn sum(run: &Run, n: u64) -> Result<u128, Halt> {
    let mut pace = None;
    let (mut total, mut next) = (0_u128, 0);
    while next < n {
        let end = n.min(next + SUM_STEPS);
        let mut part = 0_u64;
        for term in next..end {
            part = black_box(part + term);
        }
        total += u128::from(part);
        next = end;
        // Made after the first piece, so that a tiny n never reads a clock.
        pace.get_or_insert_with(|| Pace::new(run)).step(next, n)?;
    }
    Ok(total)
}

/// How many primes there are up to `n`, by a sieve over the odd numbers, piece by piece.
fn primes(run: &Run, n: u64) -> Result<u64, Halt> {
    if n < 2 {
        return Ok(0);
    }
    let mut pace = Pace::new(run);
    let base = odd_primes_up_to(n.isqrt());
    // The next odd multiple of each base prime that is to be struck out.
    let mut multiples: Vec<u64> = base.iter().map(|prime| prime * prime).collect();
    let mut composite = vec![false; SIEVE_PIECE];
    let mut count = 1; // 2 is the only even one.
    let mut low = 3;
    while low <= n {
        let length = SIEVE_PIECE.min(index((n - low) / 2 + 1));
        let piece = &mut composite[..length];
        piece.fill(false);
        let high = low + 2 * length as u64;
        for (prime, multiple) in base.iter().zip(&mut multiples) {
            while *multiple < high {
                piece[index((*multiple - low) / 2)] = true;
                *multiple += 2 * prime;
            }
        }
        count += piece.iter().filter(|composite| !**composite).count() as u64;
        low = high;
        pace.step(low.min(n), n)?;
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

/// A number that is known to fit: everything here is far below 2^32.
fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_number_is_a_sum_and_an_object_names_its_operation() {
        assert_eq!(Request::read(b" 500\n").unwrap(), Request { op: Op::Sum, n: 500 });
        assert_eq!(Request::read(br#"{"n":7}"#).unwrap(), Request { op: Op::Sum, n: 7 });
        assert_eq!(Request::read(br#"{"op":"primes","n":7}"#).unwrap(), Request { op: Op::Primes, n: 7 });
        for bad in
            ["", "-1", "1.5", "\"9\"", "{}", r#"{"n":1,"m":2}"#, r#"{"op":"product","n":1}"#, "99999999999999999999"]
        {
            let failure = Request::read(bad.as_bytes()).unwrap_err();
            assert!(failure.message.starts_with("payload: ") && !failure.retryable, "{bad}: {failure:?}");
        }
    }
}
