//! `lineshaft handler put`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use tokio_stream::iter;

use crate::model::limits::{CHUNK_BYTES, MODULE_BYTES_MAX};
use crate::proto::v1;

use super::client::Client;
use super::complete;
use super::error::CliError;
use super::progress::Progress;
use super::time::{parse_duration, to_proto};

#[derive(Debug, Args)]
pub struct PutArgs {
    /// Handler name
    #[arg(add = complete::handlers())]
    name: String,
    /// File with a WebAssembly module for WASI preview 1 or a component for WASI 0.2, at most 64 MiB
    #[arg(long, value_name = "FILE")]
    wasm: PathBuf,
    /// Description for people
    #[arg(long)]
    description: Option<String>,
    /// Pool in which its tasks run, of kind "threads" [default: the first one]
    #[arg(long, value_parser = NonEmptyStringValueParser::new(), add = complete::pools())]
    pool: Option<String>,
    /// Timeout of each attempt, such as 30s, 1ms to 24h [default: the timeout of the pool]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Regular expression that each argument of a task must match as a whole [default: no arguments]
    #[arg(long, value_name = "REGEX", value_parser = NonEmptyStringValueParser::new())]
    arg_pattern: Option<String>,
    /// Content type of the result [default: text/plain]
    #[arg(long, value_name = "TYPE", value_parser = NonEmptyStringValueParser::new())]
    content_type: Option<String>,
    /// Memory of an attempt in MiB, 1 to 4096 [default: 128]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(i64).range(1..=4096))]
    memory: Option<i64>,
    /// File with a JSON schema that payloads have to match, at most 64 KiB [default: any payload]
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// Let the module see the time
    #[arg(long)]
    clock: bool,
    /// Name and arguments that the module sees [default: the handler name]
    #[arg(last = true)]
    argv: Vec<String>,
}

pub async fn put(args: PutArgs, client: &Client) -> Result<v1::PutHandlerResponse, CliError> {
    let (module, module_bytes) = read(&args.wasm)?;
    let schema = args.schema.map(|path| std::fs::read_to_string(&path).map_err(|error| unreadable(&path, &error)));
    let handler = v1::WasmHandler {
        name: args.name,
        module_bytes,
        description: args.description.unwrap_or_default(),
        pool: args.pool.unwrap_or_default(),
        timeout: args.timeout.map(to_proto),
        argv: args.argv,
        arg_pattern: args.arg_pattern.unwrap_or_default(),
        content_type: args.content_type.unwrap_or_default(),
        memory_bytes: args.memory.unwrap_or_default() << 20,
        clock: args.clock,
        payload_schema: schema.transpose()?.unwrap_or_default(),
    };
    let first = v1::PutHandlerRequest { handler: Some(handler), module: Vec::new() };
    let progress = Arc::new(Progress::new(Some(module.len() as u64), "bytes sent"));
    let sent = Arc::clone(&progress);
    let parts = (0..module.len()).step_by(CHUNK_BYTES).map(move |start| {
        let end = module.len().min(start + CHUNK_BYTES);
        sent.set(end as u64, Some(module.len() as u64));
        if end == module.len() {
            sent.describe("bytes sent, the server compiles the module".to_owned());
        }
        v1::PutHandlerRequest { handler: None, module: module[start..end].to_vec() }
    });
    Ok(client.handlers().put_handler(iter(std::iter::once(first).chain(parts))).await?.into_inner())
}

/// The module and its size. One that the server refuses for its size is not read.
fn read(path: &Path) -> Result<(Vec<u8>, i64), CliError> {
    let failed = |error: std::io::Error| unreadable(path, &error);
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    let module = if bytes > MODULE_BYTES_MAX as u64 { Vec::new() } else { std::fs::read(path).map_err(failed)? };
    let bytes = if module.is_empty() { bytes } else { module.len() as u64 };
    Ok((module, i64::try_from(bytes).unwrap_or(i64::MAX)))
}

fn unreadable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::Usage(format!("failed to read `{}`: {error}", path.display()))
}
