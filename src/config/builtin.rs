//! The handlers that come with the server, as the operator names them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A handler that comes with the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Builtin {
    /// Sums and primes on one core.
    Compute,
    /// Waits without using a thread.
    Io,
    /// Common Expression Language.
    Expression,
    /// Fills memory and mixes it.
    Heavy,
}

impl Builtin {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Compute, Self::Io, Self::Expression, Self::Heavy];

    /// Its own name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Io => "io",
            Self::Expression => "expression",
            Self::Heavy => "heavy",
        }
    }

    /// Whether it computes on its worker, so that it may not run in an async pool.
    pub const fn blocking(self) -> bool {
        !matches!(self, Self::Io)
    }

    /// What it does, for people.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Compute => "Adds up 0..n, or counts the primes up to n, on one core.",
            Self::Io => "Waits for a number of seconds without using a thread.",
            Self::Expression => "Evaluates an expression of the Common Expression Language (CEL).",
            Self::Heavy => "Fills memory and mixes it, round by round, on one core.",
        }
    }

    /// What its payload looks like, for people.
    pub const fn payload_description(self) -> &'static str {
        match self {
            Self::Compute => {
                r#"A number n, or {"op": "sum" | "primes", "n": number}; n is at most 1e12 for sum, 1e9 for primes. Result: {"op", "n", "value"}."#
            }
            Self::Io => r#"Seconds as a number, or {"seconds": number}; 0 to 86400. Result: {"waited_seconds"}."#,
            Self::Expression => {
                r#"{"expression": "...", "variables": {...}}; at most 4096 bytes of expression, 10,000 elements in variables, 1,000,000 steps. Result: the value as JSON."#
            }
            Self::Heavy => {
                r#"{"megabytes": 1 to 1024, "rounds": 1 to 100000}. Result: {"megabytes", "rounds", "checksum"}."#
            }
        }
    }
}
