//! The built-in handlers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A built-in handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Builtin {
    /// Computes sums and counts primes.
    Compute,
    /// Waits without using a thread.
    Io,
    /// Evaluates expressions of the Common Expression Language (CEL).
    Expression,
    /// Fills memory and computes over it.
    Heavy,
}

impl Builtin {
    pub const ALL: [Self; 4] = [Self::Compute, Self::Io, Self::Expression, Self::Heavy];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Io => "io",
            Self::Expression => "expression",
            Self::Heavy => "heavy",
        }
    }

    /// Whether it uses the CPU of its worker, so that it cannot run in an async pool.
    pub const fn blocking(self) -> bool {
        !matches!(self, Self::Io)
    }

    pub const fn description(self) -> &'static str {
        match self {
            Self::Compute => "Adds the numbers from 0 to n-1, or counts the primes up to n, on one core",
            Self::Io => "Waits for a number of seconds without using a thread",
            Self::Expression => "Evaluates an expression of the Common Expression Language (CEL)",
            Self::Heavy => "Fills memory and computes a checksum over it in rounds, on one core",
        }
    }

    pub const fn payload_description(self) -> &'static str {
        match self {
            Self::Compute => {
                r#"A number n, or {"op": "sum" | "primes", "n": number}; n is at most 1e12 for sum and 1e9 for primes. Result: {"op", "n", "value"}."#
            }
            Self::Io => r#"A number of seconds, or {"seconds": number}; 0 to 86400. Result: {"waited_seconds"}."#,
            Self::Expression => {
                r#"{"expression": "...", "variables": {...}}; at most 4096 bytes of expression, 10,000 elements in variables and 1,000,000 evaluation steps. Result: the value as JSON."#
            }
            Self::Heavy => {
                r#"{"megabytes": 1 to 64 or `limits.memory`, "rounds": 1 to 100000}. Result: {"megabytes", "rounds", "checksum"}."#
            }
        }
    }
}
