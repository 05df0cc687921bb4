//! What telemetry costs: the same load on servers that differ in nothing else, by turns.
//!
//! Each round has a fresh server for each way of telling, in an order that changes from round to
//! round; a way is compared with `off` of its own round, so that what slows a whole round down cancels out.

use std::time::Duration;

use super::Plan;
use super::collector::Collector;
use super::end_to_end::{BACKLOG, Flow};
use super::report::{Report, Row};
use super::server::{self, BATCH, Server};
use crate::cli::server_process::Result;
use crate::proto::v1::ListTasksRequest;

/// Share of the completions without telemetry that there must be with metrics.
const TARGET: f64 = 0.97;
/// Share of traces that are sampled where not all are.
const RATIO: f64 = 0.01;

/// A way of telling.
struct Way {
    name: String,
    variables: Vec<(&'static str, String)>,
    /// By round.
    turns: Vec<Turn>,
}

/// One measurement.
#[derive(Clone, Copy)]
struct Turn {
    /// Completions per second.
    rate: f64,
    /// The server's processor time per task, in microseconds.
    micros: f64,
}

/// Off, metrics, metrics and traces.
pub async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let rounds = if plan.quick { 3 } else { 11 };
    let turn = Plan { span: (plan.span / 3).max(Duration::from_millis(300)), ..plan.clone() };
    let sink = Collector::start()?;
    let mut ways = ways(&sink);
    for round in 0..rounds {
        let count = ways.len();
        for place in 0..count {
            let next = if round % 2 == 0 { place } else { count - 1 - place };
            let way = &mut ways[(next + round / 2) % count];
            way.turns.push(measure(&turn, &way.variables).await?);
        }
    }
    let [off, told @ ..] = &ways[..] else { return Err("nothing to compare with".into()) };
    let rate = median(off.turns.iter().map(|turn| turn.rate));
    report.add(Row::new("telemetry", &format!("off: no-op tasks, median of {rounds}"), rate, "tasks/s"));
    let micros = median(off.turns.iter().map(|turn| turn.micros));
    report.add(Row::new("telemetry", "off: server's processor time for a task", micros, "µs").lower());
    for way in told {
        compare(way, off, report);
    }
    Ok(())
}

fn ways(sink: &Collector) -> Vec<Way> {
    let way = |name: &str, variables| Way { name: name.to_owned(), variables, turns: Vec::new() };
    let to_sink = |more: &[(&'static str, String)]| {
        let own = [("OTEL_EXPORTER_OTLP_ENDPOINT", sink.url()), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".to_owned())];
        own.into_iter().chain(more.iter().cloned()).collect()
    };
    let sampler = "parentbased_traceidratio".to_owned();
    let few = [("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", RATIO.to_string())];
    vec![
        way("off", vec![("OTEL_SDK_DISABLED", "true".to_owned())]),
        way("metrics", Vec::new()),
        way(&format!("metrics, logs, traces of {RATIO}"), to_sink(&few)),
        way("metrics, logs, every trace", to_sink(&[])),
    ]
}

async fn measure(plan: &Plan, variables: &[(&str, String)]) -> Result<Turn> {
    let server = Server::telling(plan, variables).await?;
    let before = server.child.cpu_time()?;
    let flow = Flow { task: server::no_op(), batch: BATCH, backlog: BACKLOG };
    let (rate, tasks) = flow.count(plan, &server).await?;
    // An answer about tasks waits for the tables, so that what is left to write is counted too.
    server.tasks().await?.list_tasks(ListTasksRequest { page_size: 1, ..ListTasksRequest::default() }).await?;
    let spent = server.child.cpu_time()?.saturating_sub(before);
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let micros = spent.as_secs_f64() * 1e6 / tasks.max(1) as f64;
    Ok(Turn { rate, micros })
}

/// The rows of one way, as ratios to the turns without.
fn compare(Way { name, turns, .. }: &Way, off: &Way, report: &mut Report) {
    let pairs = || turns.iter().zip(&off.turns);
    let rates = sorted(pairs().map(|(with, without)| with.rate / without.rate));
    let what = format!("{name}: completions against off ({})", spread(&rates));
    let row = Row::new("telemetry", &what, quantile(&rates, 0.5), "×");
    report.add(if name == "metrics" { row.at_least(TARGET) } else { row });
    let costs = sorted(pairs().map(|(with, without)| with.micros / without.micros));
    let what = format!("{name}: processor time against off ({})", spread(&costs));
    report.add(Row::new("telemetry", &what, quantile(&costs, 0.5), "×").lower());
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

/// Between two values, in proportion.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "places in a short list"
)]
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = share * last as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_between_its_neighbours() {
        let values = sorted([4.0, 1.0, 3.0, 2.0].into_iter());
        assert!((quantile(&values, 0.5) - 2.5).abs() < 1e-9);
        assert!((quantile(&values, 0.25) - 1.75).abs() < 1e-9);
        assert!((quantile(&values, 1.0) - 4.0).abs() < 1e-9);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn a_way_is_compared_with_off_of_its_own_round() {
        let turns = |rates: &[f64]| rates.iter().map(|rate| Turn { rate: *rate, micros: 1.0 / rate }).collect();
        let off = Way { name: "off".to_owned(), variables: Vec::new(), turns: turns(&[100.0, 50.0, 10.0]) };
        let with = Way { name: "metrics".to_owned(), variables: Vec::new(), turns: turns(&[99.0, 49.0, 9.0]) };
        let plan = Plan {
            directory: std::env::temp_dir(),
            span: Duration::from_secs(1),
            connections: 1,
            in_flight: 1,
            quick: true,
        };
        let mut report = Report::new(&plan);
        compare(&with, &off, &mut report);
        let text = report.to_string();
        assert!(text.contains("0.980") && text.contains("reached"), "{text}");
    }
}
