//! `lineshaft demo`: real work through the real port, every result checked; the README's first command.
//!
//! It starts a server of its own as a child process, watches everything from the first revision on, submits
//! sums, prime counts, expressions, processes over real files, a task that fails and one that is cancelled,
//! and holds what comes back against its own computation. Exit status 0 means that all of it was right.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tonic::Code;

use crate::cli::child::{Child, Result, Scratch, span, tasks};
use crate::cli::say;
use crate::proto::v1::system_service_client::SystemServiceClient;
use crate::proto::v1::watch_tasks_response::Kind;
use crate::proto::v1::{CancelTaskRequest, DrainRequest, GetServerInfoRequest, TaskState, WatchTasksRequest};

mod files;
mod plan;
mod screen;
mod story;
mod verify;

use plan::Plan;
use screen::Screen;
use story::Story;
use verify::Verdict;

/// Everything has to be over by then.
const OVER_WITHIN: Duration = Duration::from_mins(2);
/// How long the server may take to end when nothing runs any more.
const END_WITHIN: Duration = Duration::from_secs(20);
/// What the cancelled tasks are cancelled for.
const CANCEL_REASON: &str = "the demo shows a cancel";

/// Runs real work through a server of its own and checks every result.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Keeps the store and the server's log.
    #[arg(long)]
    pub keep: bool,
    /// Where the temporary store is made. Default: the system's temporary directory.
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

/// Runs the demo; succeeds only if all was right.
pub async fn run(options: Options) -> ExitCode {
    let ended = tokio::select! {
        ended = show(&options) => ended,
        _ = tokio::signal::ctrl_c() => return ExitCode::from(130),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say::talk(format_args!("the demo failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// The whole demo; whether all was right.
async fn show(options: &Options) -> Result<bool> {
    let began = Instant::now();
    let parent = options.directory.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = Scratch::new(&parent, options.keep)?;
    let child = Child::start(scratch.path(), plan::CONFIG).await?;
    say::line(format_args!(
        "A server of its own listens on {}; its store is {}.",
        child.address(),
        scratch.path().display()
    ));
    let (files, whose) = files::find()?;
    say::line(format_args!("Files for the processes: {} from {}.", files.len(), whose.display()));

    let plan = Plan::new(&files);
    let mut verdict = Verdict::default();
    let story = live(&child, &plan).await?;
    verify::results(&story, &plan, &mut tasks(child.connect().await?), &mut verdict).await?;
    verify::story(&story, &mut verdict);
    leave(child, &mut verdict).await?;

    say::line(&verdict);
    let seconds = began.elapsed().as_secs_f64();
    let count = plan.tasks.len();
    if verdict.is_clean() {
        say::line(format_args!("All right: {count} tasks, {} events, {seconds:.1} s.", story.events()));
    } else {
        say::line(format_args!("NOT all right; see above. {count} tasks, {} events, {seconds:.1} s.", story.events()));
    }
    tell_what_is_kept(options.keep, scratch.path());
    Ok(verdict.is_clean())
}

/// Opens the watch, submits everything, and follows it to the last end.
async fn live(child: &Child, plan: &Plan) -> Result<Story> {
    let mut system = SystemServiceClient::new(child.connect().await?);
    let info = system.get_server_info(GetServerInfoRequest {}).await?.into_inner();
    let mut client = tasks(child.connect().await?);
    let request = WatchTasksRequest { after_revision: Some(info.revision), ..WatchTasksRequest::default() };
    let mut events = client.watch_tasks(request).await?.into_inner();
    let screen = Screen::new(child, plan.tasks.len()).await?;

    let ids = plan::submit(&mut client, plan).await?;
    screen.line(&format!("{} tasks were accepted; each acknowledgement means that they are on disk.", ids.len()));
    let mut story = Story::new(ids);
    let follow = async {
        while !story.is_over() {
            let answer = events.message().await?.ok_or("the watch ended before the tasks did")?;
            let Some(Kind::Event(event)) = answer.kind else { continue };
            screen.show(&event, plan, &story);
            let begins = event.state() == TaskState::Running && event.cancel.is_none();
            if begins && story.number(&event.task_id).is_some_and(|number| plan.tasks[number].is_cancelled()) {
                let reason = CANCEL_REASON.to_owned();
                let task_id = event.task_id.clone();
                client.cancel_task(CancelTaskRequest { task_id, reason, ..CancelTaskRequest::default() }).await?;
            }
            story.add(event);
        }
        Result::<()>::Ok(())
    };
    let followed = tokio::time::timeout(OVER_WITHIN, follow).await;
    screen.close();
    followed.map_err(|_| format!("{} tasks had not ended within {OVER_WITHIN:?}", story.open()))??;
    Ok(story)
}

/// Drains the server: a watch ends with UNAVAILABLE, and the process ends with status 0.
async fn leave(child: Child, verdict: &mut Verdict) -> Result<()> {
    let mut watch = tasks(child.connect().await?).watch_tasks(WatchTasksRequest::default()).await?.into_inner();
    let mut system = SystemServiceClient::new(child.connect().await?);
    let limit = span(Duration::from_secs(5));
    let running = system.drain(DrainRequest { limit }).await?.into_inner().running;
    verdict.check("drain", running == 0, || format!("{running} tasks were still running at the drain"));
    let end = loop {
        match tokio::time::timeout(END_WITHIN, watch.message()).await {
            Err(_) | Ok(Ok(None)) => break None,
            Ok(Ok(Some(_))) => {}
            Ok(Err(status)) => break Some(status.code()),
        }
    };
    verdict.check("drain", end == Some(Code::Unavailable), || format!("the open watch ended with {end:?}"));
    // A server waits for its connections; ours are not needed any more.
    drop((watch, system));
    let status = child.ended(END_WITHIN).await?;
    verdict.check("drain", status.success(), || format!("the server ended with {status}"));
    Ok(())
}

fn tell_what_is_kept(keep: bool, path: &Path) {
    if keep {
        let data = path.join("data");
        say::line(format_args!("Kept: {}. Go on with: lineshaft serve --data-dir {}", path.display(), data.display()));
    }
}
