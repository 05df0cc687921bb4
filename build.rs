//! Compiles the contract in `proto/` with a compiler in Rust, so that `protoc` is not needed.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

const SERVICES: [&str; 8] = [
    "lineshaft/v1/task_service.proto",
    "lineshaft/v1/batch_service.proto",
    "lineshaft/v1/schedule_service.proto",
    "lineshaft/v1/pool_service.proto",
    "lineshaft/v1/handler_service.proto",
    "lineshaft/v1/system_service.proto",
    "lineshaft/v1/worker_service.proto",
    "lineshaft/v1/artifact_service.proto",
];

/// KEDA's protocol. It is separate from the contract, so that reflection and JSON do not expose it.
const SCALER: &str = "externalscaler/externalscaler.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(SERVICES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let mut config = prost_build::Config::new();
    config
        .bytes([
            ".lineshaft.v1.Payload",
            ".lineshaft.v1.ReadOutputResponse",
            ".lineshaft.v1.AttemptOutput",
            ".lineshaft.v1.AttemptChunk",
            ".lineshaft.v1.ReadArtifactResponse",
            ".lineshaft.v1.UploadArtifactRequest",
        ])
        .btree_map([".lineshaft.v1"])
        // A message of a stream is moved several times on its way, and tasks and events are large.
        .boxed(".lineshaft.v1.WatchTasksResponse.kind.snapshot_entry")
        .boxed(".lineshaft.v1.WatchTasksResponse.kind.event")
        .boxed(".lineshaft.v1.RunTaskResponse.kind.event")
        .boxed(".lineshaft.v1.RunTaskResponse.kind.task")
        .enable_type_names();
    tonic_prost_build::configure()
        .codec_path("crate::proto::bounded_codec::BoundedCodec")
        .compile_fds_with_config(descriptors, config)?;
    tonic_prost_build::configure().compile_fds(protox::compile([SCALER], ["proto"])?)?;
    Ok(())
}
