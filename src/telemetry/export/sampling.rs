//! Which traces are recorded: the samplers of the specification by their names.

use opentelemetry_sdk::trace::{Sampler, ShouldSample};

/// A sampler, as `OTEL_TRACES_SAMPLER` and its argument name it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplerKind {
    /// What decides about a trace that begins here.
    pub root: Root,
    /// Whether the caller's decision is followed, where there is a caller.
    pub parent_based: bool,
}

/// What decides about a trace that begins here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Root {
    /// All are recorded.
    On,
    /// None is recorded.
    Off,
    /// This share of them, 0 to 1, chosen by the trace id.
    Ratio(f64),
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
        let (root, complaint) = match root {
            "always_on" => (Root::On, None),
            "always_off" => (Root::Off, None),
            "traceidratio" => match argument.map(str::parse::<f64>) {
                None => (Root::Ratio(1.0), None),
                Some(Ok(ratio)) if (0.0..=1.0).contains(&ratio) => (Root::Ratio(ratio), None),
                Some(_) => (Root::Ratio(1.0), Some(("OTEL_TRACES_SAMPLER_ARG", "expected a number from 0 to 1"))),
            },
            _ => {
                let why = "expected always_on, always_off or traceidratio, or one of them with parentbased_ before it";
                return (Self::default(), Some(("OTEL_TRACES_SAMPLER", why)));
            }
        };
        (Self { root, parent_based }, complaint)
    }

    /// The library's form of it.
    pub(super) fn build(self) -> Box<dyn ShouldSample> {
        let root = match self.root {
            Root::On => Sampler::AlwaysOn,
            Root::Off => Sampler::AlwaysOff,
            Root::Ratio(ratio) => Sampler::TraceIdRatioBased(ratio),
        };
        if self.parent_based { Box::new(Sampler::ParentBased(Box::new(root))) } else { Box::new(root) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samplers_have_the_names_of_the_specification() {
        let kind = |name, argument| SamplerKind::parse(name, argument).0;
        assert_eq!(kind("always_off", None), SamplerKind { root: Root::Off, parent_based: false });
        assert_eq!(kind("parentbased_always_on", None), SamplerKind::default());
        let tenth = SamplerKind { root: Root::Ratio(0.1), parent_based: true };
        assert_eq!(kind("parentbased_traceidratio", Some("0.1")), tenth);
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
