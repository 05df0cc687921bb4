//! What a sampling server of Jaeger wants to be recorded.
//!
//! Its answer is that of `jaeger.api_v2.SamplingManager/GetSamplingStrategy`
//! (<https://github.com/jaegertracing/jaeger-idl/blob/main/proto/api_v2/sampling.proto>), as far as samplers
//! follow it: no client of Jaeger or OpenTelemetry heeds `defaultUpperBoundTracesPerSecond`.

use std::hash::BuildHasher;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use hashbrown::{DefaultHashBuilder, HashMap};
use opentelemetry::trace::{SpanKind, TraceId};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample as _};

/// The question: `SamplingStrategyParameters`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Question {
    #[prost(string, tag = "1")]
    pub service: String,
}

/// The answer: `SamplingStrategyResponse`. Its field 1 is obsolete.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Answer {
    #[prost(message, optional, tag = "2")]
    pub probabilistic: Option<Probabilistic>,
    #[prost(message, optional, tag = "3")]
    pub rate_limiting: Option<RateLimiting>,
    #[prost(message, optional, tag = "4")]
    pub operations: Option<PerOperation>,
}

/// `ProbabilisticSamplingStrategy`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Probabilistic {
    #[prost(double, tag = "1")]
    pub rate: f64,
}

/// `RateLimitingSamplingStrategy`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RateLimiting {
    #[prost(int32, tag = "1")]
    pub traces_per_second: i32,
}

/// `PerOperationSamplingStrategies`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PerOperation {
    #[prost(double, tag = "1")]
    pub default_probability: f64,
    #[prost(double, tag = "2")]
    pub lower_bound_per_second: f64,
    #[prost(message, repeated, tag = "3")]
    pub strategies: Vec<OperationStrategy>,
}

/// `OperationSamplingStrategy`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OperationStrategy {
    #[prost(string, tag = "1")]
    pub operation: String,
    #[prost(message, optional, tag = "2")]
    pub probabilistic: Option<Probabilistic>,
}

/// Places for the lower bounds of operations that are not listed: their names are the callers' to choose, so
/// there may be any number of them.
const OTHERS: usize = 64;
/// Traces per second beyond which a bound is none.
const RATE_MAX: f64 = 1_000_000.0;
/// Traces per second below which nothing is meant: one in eleven days.
const RATE_MIN: f64 = 0.000_001;

/// What is recorded. Asked by every span: nothing here waits.
#[derive(Debug)]
pub enum Strategy {
    /// This share of the traces.
    Share(f64),
    /// At most so many traces a second.
    Limit(Allowance),
    /// Each operation, which is the name of a span, has a strategy of its own.
    Operations(Operations),
}

/// See [`Strategy::Operations`].
#[derive(Debug)]
pub struct Operations {
    listed: HashMap<String, Operation>,
    /// By the hash of the name.
    others: Vec<Operation>,
    hasher: DefaultHashBuilder,
}

/// A share of the traces, and at least so many a second.
#[derive(Clone, Debug)]
struct Operation {
    share: f64,
    at_least: Allowance,
}

impl Strategy {
    /// The next one, after this one, by the server's answer; `None` when that says nothing.
    pub fn next(&self, answer: &Answer) -> Option<Self> {
        // In the order that the contract recommends.
        if let Some(operations) = &answer.operations {
            return Some(Self::Operations(Operations::new(operations, self)));
        }
        if let Some(probabilistic) = &answer.probabilistic {
            return Some(Self::Share(share(probabilistic.rate)));
        }
        let rate = f64::from(answer.rate_limiting.as_ref()?.traces_per_second);
        let before = if let Self::Limit(before) = self { Some(before) } else { None };
        Some(Self::Limit(Allowance::new(rate, before)))
    }

    /// Whether a trace is recorded.
    pub fn chooses(&self, trace_id: TraceId, name: &str) -> bool {
        match self {
            Self::Share(share) => is_in(*share, trace_id),
            Self::Limit(allowance) => allowance.take(),
            Self::Operations(operations) => operations.of(name).chooses(trace_id),
        }
    }
}

impl std::fmt::Display for Strategy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Share(share) => write!(f, "a share of {share}"),
            Self::Limit(allowance) => write!(f, "{} a second", allowance.rate),
            Self::Operations(operations) => write!(f, "by operation, {} of them listed", operations.listed.len()),
        }
    }
}

impl Operations {
    fn new(said: &PerOperation, before: &Strategy) -> Self {
        let before = if let Strategy::Operations(before) = before { Some(before) } else { None };
        let default = share(said.default_probability);
        let rate = said.lower_bound_per_second;
        // What was used up of a bound stays used up, however often the shares change.
        let listed = said.strategies.iter().map(|strategy| {
            let share = strategy.probabilistic.as_ref().map_or(default, |probabilistic| share(probabilistic.rate));
            let known = before.and_then(|before| before.listed.get(&strategy.operation));
            let at_least = Allowance::new(rate, known.map(|known| &known.at_least));
            (strategy.operation.clone(), Operation { share, at_least })
        });
        let others = (0..OTHERS).map(|place| {
            let known = before.and_then(|before| before.others.get(place));
            Operation { share: default, at_least: Allowance::new(rate, known.map(|known| &known.at_least)) }
        });
        let hasher = before.map(|before| before.hasher.clone()).unwrap_or_default();
        Self { listed: listed.collect(), others: others.collect(), hasher }
    }

    fn of(&self, name: &str) -> &Operation {
        self.listed.get(name).unwrap_or_else(|| {
            let hash = usize::try_from(self.hasher.hash_one(name) % OTHERS as u64).unwrap_or_default();
            &self.others[hash]
        })
    }
}

impl Operation {
    fn chooses(&self, trace_id: TraceId) -> bool {
        // One that is recorded anyway counts for the lower bound as well.
        let is_due = self.at_least.take();
        is_in(self.share, trace_id) || is_due
    }
}

/// So many traces a second, and as many at once, at least one. A clone takes from the same.
#[derive(Clone, Debug)]
pub struct Allowance {
    rate: f64,
    left: Option<Arc<DefaultDirectRateLimiter>>,
}

impl Allowance {
    /// The one before goes on if it has the same rate.
    fn new(rate: f64, before: Option<&Self>) -> Self {
        let rate = if rate < RATE_MIN || rate.is_nan() { 0.0 } else { rate.min(RATE_MAX) };
        if let Some(before) = before.filter(|before| before.rate.to_bits() == rate.to_bits()) {
            return before.clone();
        }
        let interval = (rate > 0.0).then(|| Duration::from_secs_f64(1.0 / rate));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and a million")]
        let at_once = NonZeroU32::new(rate.ceil() as u32).unwrap_or(NonZeroU32::MIN);
        let quota = interval.and_then(Quota::with_period).map(|quota| quota.allow_burst(at_once));
        Self { rate, left: quota.map(|quota| Arc::new(RateLimiter::direct(quota))) }
    }

    fn take(&self) -> bool {
        self.left.as_ref().is_some_and(|left| left.check().is_ok())
    }
}

fn share(said: f64) -> f64 {
    if said.is_nan() { 0.0 } else { said.clamp(0.0, 1.0) }
}

/// Whether the trace belongs to that share of all: the same ones as everywhere that counts by trace ids.
fn is_in(share: f64, trace_id: TraceId) -> bool {
    let sampler = Sampler::TraceIdRatioBased(share);
    let result = sampler.should_sample(None, trace_id, "", &SpanKind::Internal, &[], &[]);
    result.decision == SamplingDecision::RecordAndSample
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn always() -> Strategy {
        Strategy::Share(1.0)
    }

    fn of_share(rate: f64) -> Answer {
        Answer { probabilistic: Some(Probabilistic { rate }), ..Answer::default() }
    }

    fn of_limit(traces_per_second: i32) -> Answer {
        Answer { rate_limiting: Some(RateLimiting { traces_per_second }), ..Answer::default() }
    }

    fn of_operations(default: f64, lower: f64, listed: &[(&str, f64)]) -> Answer {
        let strategies = listed.iter().map(|(name, rate)| OperationStrategy {
            operation: (*name).to_owned(),
            probabilistic: Some(Probabilistic { rate: *rate }),
        });
        let operations = PerOperation {
            default_probability: default,
            lower_bound_per_second: lower,
            strategies: strategies.collect(),
        };
        // A server fills both in for clients that do not know operations.
        Answer { operations: Some(operations), ..of_share(0.5) }
    }

    /// How many of a thousand evenly spread traces are recorded.
    fn chosen(strategy: &Strategy, name: &str) -> usize {
        let step = u64::MAX / 1_000;
        let ids = (0..1_000_u64).map(|number| TraceId::from(u128::from(step * number + step / 2)));
        ids.filter(|id| strategy.chooses(*id, name)).count()
    }

    #[test]
    fn the_answer_is_read_as_jaeger_writes_it() {
        let bytes = [
            // strategyType PROBABILISTIC is left out; probabilisticSampling { samplingRate: 0.5 }
            &b"\x12\x09\x09\x00\x00\x00\x00\x00\x00\xe0\x3f"[..],
            // rateLimitingSampling { maxTracesPerSecond: 7 }
            b"\x1a\x02\x08\x07",
            // operationSampling { 0.25, 1.0, [{ "a", { 1.0 } }], upper bound 2.0 }
            b"\x22\x2b\x09\x00\x00\x00\x00\x00\x00\xd0\x3f\x11\x00\x00\x00\x00\x00\x00\xf0\x3f",
            b"\x1a\x0e\x0a\x01a\x12\x09\x09\x00\x00\x00\x00\x00\x00\xf0\x3f",
            b"\x21\x00\x00\x00\x00\x00\x00\x00\x40",
        ]
        .concat();
        let answer = Answer::decode(&*bytes).unwrap();
        assert_eq!(answer.probabilistic, Some(Probabilistic { rate: 0.5 }));
        assert_eq!(answer.rate_limiting, Some(RateLimiting { traces_per_second: 7 }));
        assert_eq!(answer.operations, of_operations(0.25, 1.0, &[("a", 1.0)]).operations);
        assert_eq!(Question { service: "s".to_owned() }.encode_to_vec(), b"\x0a\x01s");
    }

    #[test]
    fn a_share_is_chosen_by_trace_ids_and_nonsense_is_bounded() {
        assert_eq!(chosen(&always().next(&of_share(0.25)).unwrap(), ""), 250);
        assert_eq!(chosen(&always().next(&of_share(f64::NAN)).unwrap(), ""), 0);
        assert_eq!(chosen(&always().next(&of_share(7.0)).unwrap(), ""), 1_000);
        assert!(always().next(&Answer::default()).is_none());
    }

    #[test]
    fn a_limit_is_for_all_together_and_goes_on_over_answers() {
        assert_eq!(chosen(&always().next(&of_limit(0)).unwrap(), ""), 0);
        assert_eq!(chosen(&always().next(&of_limit(-1)).unwrap(), ""), 0);
        let limited = always().next(&of_limit(10)).unwrap();
        let first = chosen(&limited, "");
        assert!((10..1_000).contains(&first), "{first}");
        // Ten at once are allowed only once, however often the server says so.
        let left = |strategy: &Strategy| match strategy {
            Strategy::Limit(Allowance { left: Some(left), .. }) => Arc::as_ptr(left),
            other => panic!("{other} is no limit"),
        };
        assert_eq!(left(&limited.next(&of_limit(10)).unwrap()), left(&limited));
        assert_ne!(left(&limited.next(&of_limit(11)).unwrap()), left(&limited));
    }

    #[test]
    fn operations_have_their_own_shares_and_lower_bounds() {
        let strategy = always().next(&of_operations(0.25, 0.0, &[("all", 1.0), ("none", 0.0)])).unwrap();
        assert_eq!((chosen(&strategy, "all"), chosen(&strategy, "none"), chosen(&strategy, "x")), (1_000, 0, 250));
        // One in a hundred seconds, whatever the share: a machine that is slow may see two.
        let rare = [("a", 0.0), ("b", 0.0)];
        let bounded = always().next(&of_operations(0.0, 0.01, &rare)).unwrap();
        for name in ["a", "b", "x"] {
            assert!((1..3).contains(&chosen(&bounded, name)), "{name}");
        }
        let next = bounded.next(&of_operations(0.0, 0.01, &[("a", 0.0), ("new", 0.0)])).unwrap();
        assert!(chosen(&next, "a") < 2, "it had its turn");
        assert!(chosen(&next, "new") > 0);
    }
}
