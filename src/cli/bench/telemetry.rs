//! Scenario `telemetry`: the cost of telemetry, measured with the same load on servers that differ in nothing else.
//!
//! Each round starts a new server for each variant, in an order that changes from round to round. A variant is compared
//! with `off` of the same round, so that influences on a whole round cancel out.

use std::time::Duration;

use super::collector::Collector;
use super::end_to_end::{BACKLOG, BatchLoad};
use super::report::{Report, Row};
use super::server::{self, BATCH, Server};
use super::settings::Settings;
use crate::cli::server_process::Result;
use crate::proto::v1::ListTasksRequest;

/// Minimum rate with metrics, relative to the rate without telemetry.
const TARGET: f64 = 0.97;
/// Sampled fraction of the traces in the variant with sampling.
const SAMPLING_RATIO: f64 = 0.01;

struct Variant {
    name: String,
    variables: Vec<(&'static str, String)>,
    /// By round.
    measurements: Vec<Measurement>,
}

#[derive(Clone, Copy)]
struct Measurement {
    /// Completions per second.
    rate: f64,
    /// CPU time of the server per task, in microseconds.
    cpu_micros: f64,
}

/// Measures without telemetry, with metrics, and with two amounts of traces.
pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let rounds = if settings.quick { 3 } else { 11 };
    let duration = (settings.duration / 3).max(Duration::from_millis(300));
    let settings = Settings { duration, ..settings.clone() };
    let collector = Collector::start()?;
    let mut variants = variants(&collector);
    for round in 0..rounds {
        let count = variants.len();
        for position in 0..count {
            let next = if round % 2 == 0 { position } else { count - 1 - position };
            let variant = &mut variants[(next + round / 2) % count];
            variant.measurements.push(measure(&settings, &variant.variables).await?);
        }
    }
    let [off, others @ ..] = &variants[..] else { return Err("no variant to compare".into()) };
    let rate = median(off.measurements.iter().map(|measurement| measurement.rate));
    report.add(Row::new("telemetry", &format!("off: no-op tasks, median of {rounds}"), rate, "tasks/s"));
    let cpu = median(off.measurements.iter().map(|measurement| measurement.cpu_micros));
    report.add(Row::new("telemetry", "off: CPU time of the server per task", cpu, "µs").lower_is_better());
    for variant in others {
        compare(variant, off, report);
    }
    Ok(())
}

fn variants(collector: &Collector) -> Vec<Variant> {
    let variant = |name: &str, variables| Variant { name: name.to_owned(), variables, measurements: Vec::new() };
    let exported = |more: &[(&'static str, String)]| {
        let endpoint =
            [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".to_owned())];
        endpoint.into_iter().chain(more.iter().cloned()).collect()
    };
    let sampler = "parentbased_traceidratio".to_owned();
    let with_sampling = [("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", SAMPLING_RATIO.to_string())];
    vec![
        variant("off", vec![("OTEL_SDK_DISABLED", "true".to_owned())]),
        variant("metrics", Vec::new()),
        variant(&format!("metrics, logs, traces of {SAMPLING_RATIO}"), exported(&with_sampling)),
        variant("metrics, logs, every trace", exported(&[])),
    ]
}

async fn measure(settings: &Settings, variables: &[(&str, String)]) -> Result<Measurement> {
    let server = Server::start_with_telemetry(settings, variables).await?;
    let before = server.process.cpu_time()?;
    let load = BatchLoad { task: server::no_op_task(), batch: BATCH, backlog: BACKLOG };
    let completed = load.run(settings, &server).await?;
    // The response waits for the projection, so that the CPU time includes its outstanding writes.
    server.client().await?.list_tasks(ListTasksRequest { page_size: 1, ..ListTasksRequest::default() }).await?;
    let cpu = server.process.cpu_time()?.saturating_sub(before);
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let cpu_micros = cpu.as_secs_f64() * 1e6 / completed.total.max(1) as f64;
    Ok(Measurement { rate: completed.rate, cpu_micros })
}

/// Adds the rows of a variant, relative to the measurements without telemetry.
fn compare(Variant { name, measurements, .. }: &Variant, off: &Variant, report: &mut Report) {
    let pairs = || measurements.iter().zip(&off.measurements);
    let rates = sorted(pairs().map(|(with, without)| with.rate / without.rate));
    let what = format!("{name}: completions relative to off ({})", spread(&rates));
    let row = Row::new("telemetry", &what, quantile(&rates, 0.5), "×");
    report.add(if name == "metrics" { row.at_least(TARGET) } else { row });
    let costs = sorted(pairs().map(|(with, without)| with.cpu_micros / without.cpu_micros));
    let what = format!("{name}: CPU time relative to off ({})", spread(&costs));
    report.add(Row::new("telemetry", &what, quantile(&costs, 0.5), "×").lower_is_better());
}

fn spread(sorted: &[f64]) -> String {
    format!("quartiles {:.3}–{:.3}", quantile(sorted, 0.25), quantile(sorted, 0.75))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    quantile(&sorted(values), 0.5)
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Linear interpolation between the two nearest values.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positions in a short list"
)]
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let position = share * last as f64;
    let (below, above) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    below + (above - below) * position.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_interpolated() {
        let values = sorted([4.0, 1.0, 3.0, 2.0].into_iter());
        assert!((quantile(&values, 0.5) - 2.5).abs() < 1e-9);
        assert!((quantile(&values, 0.25) - 1.75).abs() < 1e-9);
        assert!((quantile(&values, 1.0) - 4.0).abs() < 1e-9);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn a_variant_is_compared_with_off_of_the_same_round() {
        let variant = |name: &str, rates: &[f64]| Variant {
            name: name.to_owned(),
            variables: Vec::new(),
            measurements: rates.iter().map(|rate| Measurement { rate: *rate, cpu_micros: 1.0 / rate }).collect(),
        };
        let off = variant("off", &[100.0, 50.0, 10.0]);
        let with = variant("metrics", &[99.0, 49.0, 9.0]);
        let settings = Settings {
            directory: std::env::temp_dir(),
            duration: Duration::from_secs(1),
            connections: 1,
            in_flight: 1,
            quick: true,
        };
        let mut report = Report::new(&settings);
        compare(&with, &off, &mut report);
        let text = report.to_string();
        assert!(text.contains("0.980") && text.contains("reached"), "{text}");
    }
}
