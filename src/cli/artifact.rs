//! `lineshaft artifact`.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use tonic::Code;

use crate::client::{CallError, Download};
use crate::proto::v1;

use super::client::Client;
use super::complete;
use super::error::{CliError, CommandResult, Exit};
use super::output;
use super::printer::Printer;
use super::progress::Progress;
use super::reconnect::{GIVE_UP_AFTER, Reconnect};
use super::table::{Column, Table, TableArgs};
use super::view::Cell;

static COLUMNS: [Column<v1::Artifact>; 4] = [
    Column::text("NAME", 0, |artifact, _| artifact.name.as_str().into()),
    Column::new("BYTES", 1, |artifact, _| Cell::number(artifact.size_bytes)),
    Column::new("TYPE", 2, |artifact, _| artifact.content_type.as_str().into()),
    Column::new("SHA-256", 3, |artifact, _| artifact.sha256.as_str().into()),
];

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the files that a task has left
    #[command(visible_alias = "ls")]
    List {
        /// Task ID
        #[arg(add = complete::tasks())]
        task: String,
        #[command(flatten)]
        table: TableArgs,
    },
    /// Download a file that a task has left, and verify its checksum
    ///
    /// Until it is complete, the file has `.part` appended to its name. A download that was interrupted continues there. It then
    /// replaces a file that exists.
    Get {
        /// Task ID
        #[arg(add = complete::tasks())]
        task: String,
        /// Name of the artifact
        name: String,
        /// File to write; - is stdout [default: the name of the artifact in the current directory]
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

pub async fn run(command: Command, client: Client, printer: Printer) -> CommandResult {
    match command {
        Command::List { task, table } => {
            let table = Table::new(&COLUMNS, &table)?;
            let request = v1::ListArtifactsRequest { task_id: task, link_lifetime: None };
            let mut listed = client.artifacts().list_artifacts(request).await?.into_inner();
            printer.print_list(&mut listed, &table, |listed| &mut listed.artifacts);
            Ok(Exit::Success)
        }
        Command::Get { task, name, to } => {
            let target = to.unwrap_or_else(|| PathBuf::from(&name));
            let begin = || Download::new(client.clone(), task.clone(), name.clone());
            let is_stdout = target.as_os_str() == "-";
            let device = if is_stdout { None } else { device(&target)? };
            let artifact = if is_stdout || device.is_some() {
                receive(begin(), device).await?
            } else {
                get(begin, &target).await?
            };
            if !is_stdout {
                printer.print(&artifact, |artifact| format!("{} bytes in {}", artifact.size_bytes, target.display()));
            }
            Ok(Exit::Success)
        }
    }
}

/// A device or a pipe, which is written and not replaced by a file.
fn device(target: &Path) -> Result<Option<File>, CliError> {
    let failed = |error: &dyn Display| CliError::Usage(format!("{}: {error}", target.display()));
    match target.metadata() {
        Ok(found) if found.is_dir() => Err(failed(&"is a directory; name a file")),
        Ok(found) if !found.is_file() => {
            OpenOptions::new().write(true).open(target).map(Some).map_err(|error| failed(&error))
        }
        _ => Ok(None),
    }
}

/// Downloads to a file beside the target, and renames it.
async fn get(begin: impl Fn() -> Download, target: &Path) -> Result<v1::Artifact, CliError> {
    let mut part = target.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let failed = |error: io::Error| CliError::Usage(format!("{}: {error}", part.display()));
    let mut download = begin();
    let file = resume(&part, &mut download).map_err(failed)?;
    let is_resumed = download.offset() > 0;
    let mut received = receive(download, Some(file)).await;
    let is_other = match &received {
        Ok(_) => false,
        // It is longer than the artifact.
        Err(CliError::Status(status)) => status.code() == Code::InvalidArgument,
        Err(CliError::Usage(_)) => true,
    };
    if is_resumed && is_other {
        // What was there is of another artifact.
        let file = options().write(true).truncate(true).open(&part).map_err(failed)?;
        received = receive(begin(), Some(file)).await;
    }
    if received.is_err() && part.metadata().is_ok_and(|found| found.len() == 0) {
        let _ = std::fs::remove_file(&part);
    }
    let artifact = received?;
    std::fs::rename(&part, target).map_err(|error| CliError::Usage(format!("{}: {error}", target.display())))?;
    Ok(artifact)
}

/// Opens a file to append to it, if it exists, what follows in the artifact.
fn resume(path: &Path, download: &mut Download) -> io::Result<File> {
    let mut file = options().read(true).append(true).open(path)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(file);
        }
        download.skip(&buffer[..read]);
    }
}

/// Others may write to the directory: a link in it could lead anywhere.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).custom_flags(libc::O_NOFOLLOW);
    options
}

/// Receives the rest of an artifact, across broken connections, and verifies it. Writes to stdout without a file.
async fn receive(mut download: Download, mut file: Option<File>) -> Result<v1::Artifact, CliError> {
    let mut reconnect = Reconnect::new(GIVE_UP_AFTER);
    // Not between the lines of a text that the terminal shows.
    let is_hidden = file.is_none() && io::stdout().is_terminal();
    let progress = (!is_hidden).then(|| Progress::new(None, "bytes received"));
    loop {
        let part = match download.next().await {
            Ok(Some(part)) => part,
            Ok(None) => return Ok(download.into_artifact()),
            Err(CallError::Status(status)) => {
                reconnect.pause(*status).await?;
                continue;
            }
            Err(error) => return Err(CliError::Usage(error.to_string())),
        };
        reconnect.answered();
        let written = if let Some(file) = &mut file {
            file.write_all(&part)
        } else {
            output::stdout_bytes(&part);
            Ok(())
        };
        written.map_err(|error| CliError::Usage(format!("failed to write the file: {error}")))?;
        if let Some(progress) = &progress {
            let total = download.artifact().and_then(|artifact| u64::try_from(artifact.size_bytes).ok());
            progress.set(download.offset(), total);
        }
    }
}
