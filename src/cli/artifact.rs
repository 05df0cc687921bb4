//! `lineshaft artifact`.

use std::fmt::{Display, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use ring::digest::{Context, SHA256};
use tonic::Code;

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
    /// Until it is complete, the file has `.part` appended to its name. A download that was interrupted continues there.
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
            let request = v1::ReadArtifactRequest { task_id: task, name, offset: 0, length: 0 };
            let is_stdout = target.as_os_str() == "-";
            let device = if is_stdout { None } else { device(&target)? };
            let artifact = if is_stdout || device.is_some() {
                download(request, Received::to(device), &client).await?
            } else {
                get(request, &target, &client).await?
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
async fn get(mut request: v1::ReadArtifactRequest, target: &Path, client: &Client) -> Result<v1::Artifact, CliError> {
    let mut part = target.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let failed = |error: io::Error| CliError::Usage(format!("{}: {error}", part.display()));
    let (received, offset) = Received::resume(&part).map_err(failed)?;
    request.offset = offset;
    let mut downloaded = download(request.clone(), received, client).await;
    let is_other = match &downloaded {
        Ok(_) => false,
        // It is longer than the artifact.
        Err(CliError::Status(status)) => status.code() == Code::InvalidArgument,
        Err(CliError::Usage(_)) => true,
    };
    if offset > 0 && is_other {
        // What was there is of another artifact.
        let received = Received::begin(&part).map_err(failed)?;
        downloaded = download(v1::ReadArtifactRequest { offset: 0, ..request }, received, client).await;
    }
    if downloaded.is_err() && part.metadata().is_ok_and(|found| found.len() == 0) {
        let _ = std::fs::remove_file(&part);
    }
    let artifact = downloaded?;
    std::fs::rename(&part, target).map_err(|error| CliError::Usage(format!("{}: {error}", target.display())))?;
    Ok(artifact)
}

/// What was received of an artifact.
struct Received {
    /// `None`: stdout.
    file: Option<File>,
    hash: Context,
}

impl Received {
    fn to(file: Option<File>) -> Self {
        Self { file, hash: Context::new(&SHA256) }
    }

    fn begin(path: &Path) -> io::Result<Self> {
        let file = options().write(true).truncate(true).open(path)?;
        Ok(Self::to(Some(file)))
    }

    /// Continues a file, if it exists. Returns its length.
    fn resume(path: &Path) -> io::Result<(Self, i64)> {
        let mut file = options().read(true).append(true).open(path)?;
        let (mut hash, mut length, mut buffer) = (Context::new(&SHA256), 0, vec![0; 256 << 10]);
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok((Self { file: Some(file), hash }, length));
            }
            hash.update(&buffer[..read]);
            length += i64::try_from(read).unwrap_or(0);
        }
    }

    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.hash.update(data);
        if let Some(file) = &mut self.file {
            return file.write_all(data);
        }
        output::stdout_bytes(data);
        Ok(())
    }

    fn verify(self, artifact: &v1::Artifact) -> Result<(), CliError> {
        let mut sha256 = String::new();
        for byte in self.hash.finish().as_ref() {
            // Writing to a text cannot fail.
            let _ = write!(sha256, "{byte:02x}");
        }
        if sha256 == artifact.sha256 {
            return Ok(());
        }
        Err(CliError::Usage(format!(
            "SHA-256 of the received bytes is {sha256}, that of the artifact {}; download it again",
            artifact.sha256
        )))
    }
}

/// Others may write to the directory: a link in it could lead anywhere.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).custom_flags(libc::O_NOFOLLOW);
    options
}

/// Receives the rest of an artifact, across broken connections, and verifies it.
async fn download(
    mut request: v1::ReadArtifactRequest,
    mut received: Received,
    client: &Client,
) -> Result<v1::Artifact, CliError> {
    let mut reconnect = Reconnect::new(GIVE_UP_AFTER);
    let mut known: Option<v1::Artifact> = None;
    // Not between the lines of a text that the terminal shows.
    let is_hidden = received.file.is_none() && io::stdout().is_terminal();
    let progress = (!is_hidden).then(|| Progress::new(None, "bytes received"));
    loop {
        let status =
            match receive(&mut request, &mut received, &mut known, progress.as_ref(), &mut reconnect, client).await {
                Ok(()) => {
                    let artifact = known.unwrap_or_default();
                    return received.verify(&artifact).map(|()| artifact);
                }
                Err(CliError::Status(status)) => status,
                Err(error) => return Err(error),
            };
        reconnect.pause(*status).await?;
    }
}

async fn receive(
    request: &mut v1::ReadArtifactRequest,
    received: &mut Received,
    known: &mut Option<v1::Artifact>,
    progress: Option<&Progress>,
    reconnect: &mut Reconnect,
    client: &Client,
) -> Result<(), CliError> {
    let mut messages = client.artifacts().read_artifact(request.clone()).await?.into_inner();
    while let Some(message) = messages.message().await? {
        reconnect.answered();
        if let Some(artifact) = message.artifact {
            let earlier = known.get_or_insert_with(|| artifact.clone());
            if earlier.sha256 != artifact.sha256 {
                return Err(CliError::Usage("the task was replaced by another one; download it again".to_owned()));
            }
        }
        received.write(&message.data).map_err(|error| CliError::Usage(format!("failed to write the file: {error}")))?;
        request.offset += i64::try_from(message.data.len()).unwrap_or(0);
        if let Some(progress) = progress {
            let total = known.as_ref().and_then(|artifact| u64::try_from(artifact.size_bytes).ok());
            progress.set(u64::try_from(request.offset).unwrap_or(0), total);
        }
    }
    Ok(())
}
