//! Scenario `growth`: what a no-op task costs the server beside more and more queued tasks, workers, watches and namespaces.

use tokio::task::JoinHandle;

use super::end_to_end::{BatchLoad, no_op_load};
use super::report::{Report, Row};
use super::rounds::{Measured, Subject, by_turns, measure, server_costs};
use super::server::{self, Server, config};
use super::settings::Settings;
use crate::cli::server_process::Result;
use crate::proto::v1::{TaskFilter, WatchTasksRequest};

/// Most that the cost may grow from the smallest size to each other one.
const GROWTH_MAX: f64 = 1.2;
/// Finished tasks are kept in each namespace, and few of them, so that namespaces differ in nothing else.
const RETENTION: &str = "[retention]\ncount = 10\n";

/// Fewer than a server allows on one connection.
const WATCHES_PER_CONNECTION: usize = 200;

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
        let subject = |size| -> Subject<'_> { Box::new(move || Box::pin(beside(settings, dimension, size))) };
        let subjects: Vec<_> = sizes.iter().map(|size| subject(*size)).collect();
        let measured = by_turns(settings.rounds, &subjects).await?;
        let costs: Vec<_> = measured.iter().map(|measured| server_costs(measured)).collect();
        for (size, values) in sizes.iter().zip(&costs) {
            let what = format!("CPU of the server per task, {name}: {size}");
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

/// Runs no-op tasks beside so much of the dimension.
async fn beside(settings: &Settings, dimension: Dimension, size: usize) -> Result<Measured> {
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
    let measured = measure(&server, load.run(settings, &server)).await;
    watches.iter().for_each(JoinHandle::abort);
    measured
}

/// Opens watches of tasks that do not exist, on as many connections as they need.
async fn watch_nothing(server: &Server, count: usize) -> Result<Vec<JoinHandle<()>>> {
    let mut watches = Vec::with_capacity(count);
    let mut client = server.client().await?;
    for number in 0..count {
        if number > 0 && number % WATCHES_PER_CONNECTION == 0 {
            client = server.client().await?;
        }
        let filter = Some(TaskFilter { task_ids: vec![format!("none-{number}")], ..TaskFilter::default() });
        let request = WatchTasksRequest { filter, ..WatchTasksRequest::default() };
        let mut events = client.watch_tasks(request).await?.into_inner();
        watches.push(tokio::spawn(async move { while let Ok(Some(_)) = events.message().await {} }));
    }
    Ok(watches)
}
