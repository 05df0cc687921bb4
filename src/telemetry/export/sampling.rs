//! Which traces are recorded: the samplers of the specification by their names.

mod remote;
mod strategy;

use futures_util::future::{BoxFuture, FutureExt};
use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingResult, ShouldSample};

pub use remote::Remote;

use super::super::scope;

/// A sampler, as `OTEL_TRACES_SAMPLER` and its argument name it.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerKind {
    /// What decides about a trace that begins here.
    pub root: Root,
    /// Whether the caller's decision is followed, where there is a caller who has decided.
    pub parent_based: bool,
}

/// What decides about a trace that begins here.
#[derive(Clone, Debug, PartialEq)]
pub enum Root {
    /// All are recorded.
    On,
    /// None is recorded.
    Off,
    /// This share of them, 0 to 1, chosen by the trace id.
    Ratio(f64),
    /// As a sampling server of Jaeger says.
    JaegerRemote(Remote),
}

impl Default for SamplerKind {
    fn default() -> Self {
        Self { root: Root::On, parent_based: true }
    }
}

/// A variable, and what is wrong with it.
pub type Complaint = (&'static str, &'static str);

impl SamplerKind {
    /// The sampler, and what could not be understood; the default stands in for it.
    pub fn parse(name: &str, argument: Option<&str>) -> (Self, Option<Complaint>) {
        let lower = name.to_ascii_lowercase();
        let (root, parent_based) = match lower.strip_prefix("parentbased_") {
            Some(root) => (root, true),
            None => (lower.as_str(), false),
        };
        let wrong = |why| Some(("OTEL_TRACES_SAMPLER_ARG", why));
        let (root, complaint) = match root {
            "always_on" => (Root::On, None),
            "always_off" => (Root::Off, None),
            "traceidratio" => match argument.map(str::parse::<f64>) {
                None => (Root::Ratio(1.0), None),
                Some(Ok(ratio)) if (0.0..=1.0).contains(&ratio) => (Root::Ratio(ratio), None),
                Some(_) => (Root::Ratio(1.0), wrong("expected a number from 0 to 1")),
            },
            "jaeger_remote" => match argument.map(Remote::parse) {
                None => (Root::JaegerRemote(Remote::default()), None),
                Some(Some(remote)) => (Root::JaegerRemote(remote), None),
                Some(None) => (
                    Root::JaegerRemote(Remote::default()),
                    wrong(
                        "expected endpoint=http://host:port,pollingIntervalMs=N,initialSamplingRate=R, where N is \
                         at least 1 and R a number from 0 to 1",
                    ),
                ),
            },
            _ => {
                let why = "expected always_on, always_off, traceidratio or jaeger_remote, or one of them with \
                           parentbased_ before it";
                return (Self::default(), Some(("OTEL_TRACES_SAMPLER", why)));
            }
        };
        (Self { root, parent_based }, complaint)
    }

    /// Whether it decides by the names of spans. The others are not told them: a name is only made for a span
    /// that is recorded.
    pub fn asks_for_names(&self) -> bool {
        matches!(self.root, Root::JaegerRemote(_))
    }

    /// The library's form of it, and what has to run for it, for ever: a sampler that follows somebody asks in
    /// the name of `service`.
    pub(super) fn build(&self, service: &str) -> (Box<dyn ShouldSample>, Option<BoxFuture<'static, ()>>) {
        let (root, poller): (Box<dyn ShouldSample>, _) = match &self.root {
            Root::On => (Box::new(Sampler::AlwaysOn), None),
            Root::Off => (Box::new(Sampler::AlwaysOff), None),
            Root::Ratio(ratio) => (Box::new(Sampler::TraceIdRatioBased(*ratio)), None),
            Root::JaegerRemote(remote) => {
                let (sampler, poller) = remote.follow(service);
                (Box::new(sampler), Some(poller.boxed()))
            }
        };
        (if self.parent_based { Box::new(ParentBased(root)) } else { root }, poller)
    }
}

/// Follows the caller's decision. The library's sampler takes a caller who has left it open for one who has
/// decided against.
#[derive(Clone, Debug)]
struct ParentBased(Box<dyn ShouldSample>);

impl ShouldSample for ParentBased {
    fn should_sample(
        &self,
        parent_context: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        span_kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let decided = |parent: &Context| {
            let span = parent.span();
            let caller = span.span_context();
            if caller.is_sampled() {
                return Some(Sampler::AlwaysOn);
            }
            (caller.is_valid() && !scope::is_undecided(parent)).then_some(Sampler::AlwaysOff)
        };
        let followed = parent_context.and_then(decided);
        let sampler = followed.as_ref().map_or(&*self.0, |followed| followed as &dyn ShouldSample);
        sampler.should_sample(parent_context, trace_id, name, span_kind, attributes, links)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use opentelemetry_sdk::trace::SamplingDecision;

    use super::super::super::scope::ActiveContext;
    use super::*;
    use crate::model::trace::{DEBUG, SAMPLED, UNDECIDED};
    use crate::model::{RemoteSpan, TraceContext};

    #[test]
    fn samplers_have_the_names_of_the_specification() {
        let kind = |name, argument| SamplerKind::parse(name, argument).0;
        assert_eq!(kind("always_off", None), SamplerKind { root: Root::Off, parent_based: false });
        assert_eq!(kind("parentbased_always_on", None), SamplerKind::default());
        let tenth = SamplerKind { root: Root::Ratio(0.1), parent_based: true };
        assert_eq!(kind("parentbased_traceidratio", Some("0.1")), tenth);
    }

    #[test]
    fn a_sampling_server_has_its_place_in_the_argument() {
        let root = |argument| SamplerKind::parse("jaeger_remote", argument).0.root;
        let said = "endpoint=https://sampler:14250, pollingIntervalMs=5000,initialSamplingRate=0.25";
        let (endpoint, interval) = ("https://sampler:14250".to_owned(), Duration::from_secs(5));
        assert_eq!(root(Some(said)), Root::JaegerRemote(Remote { endpoint, interval, initial_share: 0.25 }));
        let usual = Remote {
            endpoint: "http://localhost:14250".into(),
            interval: Duration::from_mins(1),
            initial_share: 0.001,
        };
        assert_eq!(root(None), Root::JaegerRemote(usual.clone()));
        for bad in [
            "localhost:14250",
            "endpoint=localhost:14250",
            "endpoint=ftp://localhost",
            "endpoint=http://",
            "endpoint=http://:14250",
            "pollingIntervalMs=0",
            "pollingIntervalMs=1s",
            "initialSamplingRate=2",
            "initialSamplingRate=0.25,sampling=1",
        ] {
            // As if there were no argument: not even what could be understood.
            let (kind, complaint) = SamplerKind::parse("parentbased_jaeger_remote", Some(bad));
            assert_eq!(kind, SamplerKind { root: Root::JaegerRemote(usual.clone()), parent_based: true }, "{bad}");
            assert_eq!(complaint.map(|(variable, _)| variable), Some("OTEL_TRACES_SAMPLER_ARG"), "{bad}");
        }
    }

    /// Whether a span below this caller is recorded.
    fn is_recorded(root: Sampler, caller: Option<u8>) -> bool {
        let span = caller.map(|flags| RemoteSpan { trace_id: 7, span_id: 9, flags });
        let place = TraceContext::new(span, None, None).map(|context| ActiveContext::new(Arc::new(context)));
        let parent = place.as_ref().map_or_else(Context::new, |place| place.as_parent().clone());
        let sampler = ParentBased(Box::new(root));
        let result = sampler.should_sample(Some(&parent), TraceId::from(7_u128), "", &SpanKind::Internal, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }

    #[test]
    fn a_caller_who_has_decided_is_followed_and_one_who_has_not_is_as_none() {
        for (caller, on, off) in [
            (None, true, false),
            (Some(SAMPLED), true, true),
            (Some(SAMPLED | DEBUG), true, true),
            (Some(0), false, false),
            (Some(UNDECIDED), true, false),
        ] {
            assert_eq!(is_recorded(Sampler::AlwaysOn, caller), on, "{caller:?}");
            assert_eq!(is_recorded(Sampler::AlwaysOff, caller), off, "{caller:?}");
        }
    }

    #[test]
    fn an_unknown_sampler_or_share_is_complained_about() {
        assert_eq!(SamplerKind::parse("xray", None).1.map(|(variable, _)| variable), Some("OTEL_TRACES_SAMPLER"));
        let (kind, complaint) = SamplerKind::parse("traceidratio", Some("2"));
        assert_eq!(
            (kind.root, complaint.map(|(variable, _)| variable)),
            (Root::Ratio(1.0), Some("OTEL_TRACES_SAMPLER_ARG"))
        );
    }
}
