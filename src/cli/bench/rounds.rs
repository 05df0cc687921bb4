//! Measuring several things by turns, so that what changes on the machine meanwhile changes all of them.

use std::path::Path;

use futures_util::future::BoxFuture;

use super::load::{Meter, Samples, Sustained};
use super::report::{Report, Row};
use super::server::Server;
use super::settings::Settings;
use crate::cli::server_process::Result;

/// One measurement.
#[derive(Debug)]
pub struct Measured {
    /// Tasks per second while the window was open.
    pub burst: f64,
    pub latency: Samples,
    /// Of a server; a baseline leaves nothing for later.
    pub sustained: Option<Sustained>,
}

/// What a load did to a server.
pub struct Loaded {
    /// Tasks per second while the window was open.
    pub burst: f64,
    /// All tasks.
    pub tasks: u64,
    /// Empty if calls were not timed.
    pub latency: Samples,
}

/// Something that is measured once a round.
pub type Subject<'a> = Box<dyn Fn() -> BoxFuture<'a, Result<Measured>> + Send + Sync + 'a>;

/// Measures each subject once a round, in an order that is reversed from round to round. Returns the measurements by subject and
/// round.
pub async fn by_turns(rounds: usize, subjects: &[Subject<'_>]) -> Result<Vec<Vec<Measured>>> {
    let mut measured: Vec<Vec<Measured>> = subjects.iter().map(|_| Vec::with_capacity(rounds)).collect();
    for round in 0..rounds {
        for position in 0..subjects.len() {
            let next = if round % 2 == 0 { position } else { subjects.len() - 1 - position };
            measured[next].push(subjects[next]().await?);
        }
    }
    Ok(measured)
}

/// A load on a new server of each version: that of this binary first.
pub fn versions<'a, F>(settings: &'a Settings, load: F) -> Vec<Subject<'a>>
where
    F: for<'s> Fn(&'s Settings, &'s Server) -> BoxFuture<'s, Result<Loaded>> + Clone + Send + Sync + 'a,
{
    let programs = std::iter::once(&settings.program).chain(&settings.other);
    programs.map(|program| version(settings, program, load.clone())).collect()
}

fn version<'a, F>(settings: &'a Settings, program: &'a Path, load: F) -> Subject<'a>
where
    F: for<'s> Fn(&'s Settings, &'s Server) -> BoxFuture<'s, Result<Loaded>> + Clone + Send + Sync + 'a,
{
    Box::new(move || {
        let load = load.clone();
        Box::pin(async move {
            let server = Server::start(&settings.with_program(program)).await?;
            measure(&server, load(settings, &server)).await
        })
    })
}

/// Measures a load that has not begun.
pub async fn measure(server: &Server, load: impl Future<Output = Result<Loaded>>) -> Result<Measured> {
    let meter = Meter::start(server)?;
    let Loaded { burst, tasks, latency } = load.await?;
    Ok(Measured { burst, latency, sustained: Some(meter.finish(tasks).await?) })
}

/// The rows of one load.
pub struct Rows<'a> {
    pub scenario: &'static str,
    pub what: &'a str,
    /// Of this binary.
    pub measured: &'a [Measured],
    pub other: Option<&'a [Measured]>,
    /// With its name.
    pub baseline: Option<(&'a [Measured], &'static str)>,
    /// The least ratio of the sustained rate to the baseline.
    pub target: Option<f64>,
}

impl Rows<'_> {
    pub fn add(&self, report: &mut Report) {
        let Self { scenario, what, measured, .. } = self;
        let row = |name: &str, values, unit| Row::of_rounds(scenario, &format!("{what}: {name}"), values, unit);
        report.add(self.compared(row("burst", bursts(measured), "tasks/s")));
        let whole = self.compared(row("sustained", sustained(measured, |it| it.rate), "tasks/s"));
        report.add(match self.target {
            Some(target) => whole.ratio_at_least(target),
            None => whole,
        });
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            let millis = |measured: &[Measured]| -> Vec<f64> {
                measured.iter().filter(|it| it.latency.count > 0).map(|it| it.latency.millis(quantile)).collect()
            };
            let values = millis(measured);
            if values.is_empty() {
                continue;
            }
            let row = row(name, values, "ms").lower_is_better();
            report.add(match self.baseline {
                Some((baseline, name)) => row.baselines(millis(baseline), name),
                None => row,
            });
        }
        for (name, of) in COSTS {
            report.add(row(name, sustained(measured, of), "µs").lower_is_better());
        }
        if let Some(other) = self.other {
            self.add_comparison(other, report);
        }
    }

    fn compared(&self, row: Row) -> Row {
        match self.baseline {
            Some((baseline, name)) => row.baselines(bursts(baseline), name),
            None => row,
        }
    }

    fn add_comparison(&self, other: &[Measured], report: &mut Report) {
        let ratios = |of: &dyn Fn(&[Measured]) -> Vec<f64>| -> Vec<f64> {
            of(self.measured).into_iter().zip(of(other)).map(|(this, other)| this / other).collect()
        };
        let row = |name: &str, values| {
            let what = format!("{}: {name}, relative to the other binary", self.what);
            Row::of_rounds(self.scenario, &what, values, "×")
        };
        report.add(row("burst", ratios(&bursts)));
        report.add(row("sustained", ratios(&|measured| sustained(measured, |it| it.rate))));
        let (name, of) = COSTS[0];
        report.add(row(name, ratios(&|measured| sustained(measured, of))).lower_is_better());
    }
}

type Cost = fn(&Sustained) -> f64;
const COSTS: [(&str, Cost); 2] =
    [("CPU of the server per task", |it| it.server_cpu), ("CPU of the load generator per task", |it| it.client_cpu)];

pub fn bursts(measured: &[Measured]) -> Vec<f64> {
    measured.iter().map(|it| it.burst).collect()
}

/// CPU time of the server per task, in microseconds.
pub fn server_costs(measured: &[Measured]) -> Vec<f64> {
    sustained(measured, |it| it.server_cpu)
}

fn sustained(measured: &[Measured], of: impl Fn(&Sustained) -> f64) -> Vec<f64> {
    measured.iter().filter_map(|it| it.sustained.as_ref().map(&of)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn the_order_is_reversed_from_round_to_round() {
        let order = Mutex::new(Vec::new());
        let order = &order;
        let subject = |name: &'static str| -> Subject<'_> {
            Box::new(move || {
                Box::pin(async move {
                    order.lock().unwrap().push(name);
                    Ok(Measured { burst: 1.0, latency: Samples::new(), sustained: None })
                })
            })
        };
        let measured = by_turns(3, &[subject("a"), subject("b")]).await.unwrap();
        assert_eq!(*order.lock().unwrap(), ["a", "b", "b", "a", "a", "b"]);
        assert_eq!(measured.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
    }
}
