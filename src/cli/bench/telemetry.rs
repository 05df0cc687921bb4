//! Scenario `telemetry`: the cost of telemetry, measured by turns with the same load on servers that differ in nothing else.

use super::collector::Collector;
use super::end_to_end::no_op_load;
use super::report::{Report, Row};
use super::rounds::{Measured, Subject, bursts, by_turns, measure, server_costs};
use super::server::Server;
use super::settings::Settings;
use crate::cli::server_process::Result;

const ROUNDS: usize = 11;
/// Minimum rate with metrics, relative to the rate without telemetry.
const METRICS_TARGET: f64 = 0.97;
/// The same with a sampled fraction of the traces.
const SAMPLING_TARGET: f64 = 0.95;
/// The fraction.
const SAMPLING_RATIO: f64 = 0.01;

struct Variant {
    name: String,
    variables: Vec<(&'static str, String)>,
    target: Option<f64>,
}

/// Measures without telemetry, with metrics, and with two amounts of traces.
pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let settings = Settings { duration: settings.burst() / 3, ..settings.clone() };
    let collector = Collector::start()?;
    let variants = variants(&collector);
    let subjects: Vec<Subject<'_>> = variants.iter().map(|variant| subject(&settings, &variant.variables)).collect();
    let measured = by_turns(if settings.quick { 3 } else { ROUNDS }, &subjects).await?;
    let [off, others @ ..] = &measured[..] else { return Err("no variant to compare".into()) };
    report.add(Row::of_rounds("telemetry", "off: no-op tasks", bursts(off), "tasks/s"));
    let row = Row::of_rounds("telemetry", "off: CPU time of the server per task", server_costs(off), "µs");
    report.add(row.lower_is_better());
    for (variant, measured) in variants[1..].iter().zip(others) {
        compare(variant, measured, off, report);
    }
    Ok(())
}

fn variants(collector: &Collector) -> [Variant; 6] {
    let variant = |name: &str, variables, target| Variant { name: name.to_owned(), variables, target };
    let exported = |more: &[(&'static str, String)]| {
        let endpoint =
            [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".to_owned())];
        endpoint.into_iter().chain(more.iter().cloned()).collect()
    };
    let sampled = |ratio: f64| {
        let sampler = ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio".to_owned());
        exported(&[sampler, ("OTEL_TRACES_SAMPLER_ARG", ratio.to_string())])
    };
    let no_traces = exported(&[("OTEL_TRACES_EXPORTER", "none".to_owned())]);
    [
        variant("off", vec![("OTEL_SDK_DISABLED", "true".to_owned())], None),
        variant("metrics", Vec::new(), Some(METRICS_TARGET)),
        variant("metrics, logs", no_traces, None),
        variant("metrics, logs, traces of 0", sampled(0.0), None),
        variant(&format!("metrics, logs, traces of {SAMPLING_RATIO}"), sampled(SAMPLING_RATIO), Some(SAMPLING_TARGET)),
        variant("metrics, logs, every trace", exported(&[]), None),
    ]
}

fn subject<'a>(settings: &'a Settings, variables: &'a [(&'static str, String)]) -> Subject<'a> {
    Box::new(move || {
        Box::pin(async move {
            let server = Server::start_with_telemetry(settings, variables).await?;
            measure(&server, no_op_load().run(settings, &server)).await
        })
    })
}

/// Adds the rows of a variant, relative to the measurements without telemetry.
fn compare(Variant { name, target, .. }: &Variant, measured: &[Measured], off: &[Measured], report: &mut Report) {
    let ratios =
        |of: fn(&[Measured]) -> Vec<f64>| of(measured).into_iter().zip(of(off)).map(|(with, without)| with / without);
    let row =
        Row::of_rounds("telemetry", &format!("{name}: completions relative to off"), ratios(bursts).collect(), "×");
    report.add(match target {
        Some(target) => row.at_least(*target),
        None => row,
    });
    let what = format!("{name}: CPU time relative to off");
    report.add(Row::of_rounds("telemetry", &what, ratios(server_costs).collect(), "×").lower_is_better());
}

#[cfg(test)]
mod tests {
    use super::super::load::{Samples, Sustained};
    use super::*;

    #[test]
    fn a_variant_is_compared_with_off_of_the_same_round() {
        let measured = |rates: &[f64]| -> Vec<Measured> {
            let sustained = |rate: f64| Sustained { rate, server_cpu: 1.0 / rate, client_cpu: 0.0 };
            let measured =
                |rate: &f64| Measured { burst: *rate, latency: Samples::new(), sustained: Some(sustained(*rate)) };
            rates.iter().map(measured).collect()
        };
        let settings = Settings {
            directory: std::env::temp_dir(),
            duration: std::time::Duration::from_secs(1),
            rounds: 3,
            connections: 1,
            in_flight: 1,
            quick: true,
            program: "lineshaft".into(),
            other: None,
        };
        let mut report = Report::new(&settings);
        let variant = Variant { name: "metrics".to_owned(), variables: Vec::new(), target: Some(METRICS_TARGET) };
        compare(&variant, &measured(&[99.0, 49.0, 9.0]), &measured(&[100.0, 50.0, 10.0]), &mut report);
        let text = report.to_string();
        assert!(text.contains("0.980") && text.contains("reached"), "{text}");
    }
}
