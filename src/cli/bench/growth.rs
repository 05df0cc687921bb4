//! Scenario `growth`: what a no-op task costs the server beside more and more queued tasks, workers, watches and namespaces.

use tokio::task::JoinHandle;

use super::end_to_end::{BatchLoad, no_op_load};
use super::load::Meter;
use super::report::{Report, Row};
use super::server::{self, Server, config};
use super::settings::Settings;
use crate::cli::server_process::Result;
use crate::proto::v1::{TaskFilter, WatchTasksRequest};

/// Most that the cost may grow from the smallest size to each other one.
const GROWTH_MAX: f64 = 1.2;
/// Finished tasks are kept in each namespace, and few of them, so that namespaces differ in nothing else.
const RETENTION: &str = "[retention]\ncount = 10\n";

/// What grows.
#[derive(Clone, Copy)]
enum Dimension {
    Queued,
    Workers,
    Watches,
    Namespaces,
}

const SIZES: [(Dimension, &str, &[usize]); 4] = [
    (Dimension::Queued, "queued tasks", &[1_000, 10_000, 100_000, 1_000_000]),
    (Dimension::Workers, "workers", &[1, 10, 100, 1_000]),
    (Dimension::Watches, "watches of other tasks", &[1, 10, 100, 1_000]),
    (Dimension::Namespaces, "namespaces", &[1, 100, 10_000]),
];

pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    for (dimension, name, sizes) in SIZES {
        let sizes = if settings.quick { &sizes[..2] } else { sizes };
        let mut costs = vec![Vec::new(); sizes.len()];
        for round in 0..settings.rounds {
            for position in 0..sizes.len() {
                let next = if round % 2 == 0 { position } else { sizes.len() - 1 - position };
                costs[next].push(cost(settings, dimension, sizes[next]).await?);
            }
        }
        for (size, values) in sizes.iter().zip(&costs) {
            let what = format!("CPU of the server per task, {size} {name}");
            let row = Row::of_rounds("growth", &what, values.clone(), "µs").lower_is_better();
            report.add(if *size == sizes[0] {
                row
            } else {
                row.baselines(costs[0].clone(), "the smallest size").ratio_at_most(GROWTH_MAX)
            });
        }
    }
    Ok(())
}

/// CPU time of the server per no-op task, in microseconds.
async fn cost(settings: &Settings, dimension: Dimension, size: usize) -> Result<f64> {
    let workers = matches!(dimension, Dimension::Workers).then_some(size);
    let server = Server::start_with_config(settings, &format!("{}{RETENTION}", config(true, workers))).await?;
    let mut load = no_op_load();
    let mut watches = Vec::new();
    match dimension {
        Dimension::Queued => {
            server::submit_many(&mut server.client().await?, &server::queued_task(), size).await?;
            server.settled().await?;
        }
        Dimension::Workers => {}
        Dimension::Watches => watches = watch_nothing(&server, size).await?,
        Dimension::Namespaces => load = BatchLoad { namespaces: size, ..load },
    }
    let meter = Meter::start(&server)?;
    let tasks = load.run(settings, &server).await?.tasks;
    let cost = meter.finish(tasks).await?.server_cpu;
    watches.iter().for_each(JoinHandle::abort);
    Ok(cost)
}

/// Opens watches of tasks that do not exist, on one connection.
async fn watch_nothing(server: &Server, count: usize) -> Result<Vec<JoinHandle<()>>> {
    let mut client = server.client().await?;
    let mut watches = Vec::with_capacity(count);
    for number in 0..count {
        let filter = Some(TaskFilter { task_ids: vec![format!("none-{number}")], ..TaskFilter::default() });
        let request = WatchTasksRequest { filter, ..WatchTasksRequest::default() };
        let mut events = client.watch_tasks(request).await?.into_inner();
        watches.push(tokio::spawn(async move { while let Ok(Some(_)) = events.message().await {} }));
    }
    Ok(watches)
}
