//! The permission table: what each RPC and page requires of its caller. A call that is not listed is denied.

use crate::model::Role;

use super::identity::Identity;

/// What a call requires of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Nothing: health probes have no tokens.
    Public,
    /// Any role in any namespace.
    Authenticated,
    /// The role in at least one namespace. The service checks the namespace of the request.
    AnyNamespace(Role),
    /// The role in all namespaces: the call concerns the whole server, or shows data of all tenants.
    AllNamespaces(Role),
}

impl Permission {
    /// Whether the identity may make such a call. Public calls have no identity.
    pub fn is_granted_to(self, identity: &Identity) -> bool {
        match self {
            Self::Public => false,
            Self::Authenticated => identity.has_any_role(),
            Self::AnyNamespace(role) => identity.has_role(role),
            Self::AllNamespaces(role) => identity.has_role_everywhere(role),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// The server decides when the call ends.
    Unary,
    /// The caller decides when the call ends. It counts toward the stream limit of the identity, and the server ends
    /// it when the identity expires or is revoked.
    Streaming,
}

use CallKind::{Streaming, Unary};
use Permission::{AllNamespaces, AnyNamespace, Authenticated, Public};
use Role::{Admin, Operator, Submitter, Viewer, Worker};

const TABLE: [(&str, Permission, CallKind); 70] = [
    ("/lineshaft.v1.TaskService/SubmitTask", AnyNamespace(Submitter), Unary),
    ("/lineshaft.v1.TaskService/BatchSubmitTasks", AnyNamespace(Submitter), Unary),
    ("/lineshaft.v1.TaskService/SubmitTasks", AnyNamespace(Submitter), Streaming),
    ("/lineshaft.v1.TaskService/RunTask", AnyNamespace(Submitter), Streaming),
    ("/lineshaft.v1.TaskService/GetTask", AnyNamespace(Viewer), Unary),
    ("/lineshaft.v1.TaskService/ExplainTask", AnyNamespace(Viewer), Unary),
    ("/lineshaft.v1.TaskService/ListTasks", AnyNamespace(Viewer), Unary),
    ("/lineshaft.v1.TaskService/ListFailureGroups", AnyNamespace(Viewer), Unary),
    ("/lineshaft.v1.TaskService/ListLimits", AnyNamespace(Viewer), Unary),
    ("/lineshaft.v1.TaskService/WaitTask", AnyNamespace(Viewer), Streaming),
    ("/lineshaft.v1.TaskService/WatchTasks", AnyNamespace(Viewer), Streaming),
    ("/lineshaft.v1.TaskService/CancelTask", AnyNamespace(Submitter), Unary),
    ("/lineshaft.v1.TaskService/UpdateTask", AnyNamespace(Submitter), Unary),
    ("/lineshaft.v1.TaskService/CancelTasks", AnyNamespace(Submitter), Streaming),
    ("/lineshaft.v1.TaskService/UpdateTasks", AnyNamespace(Submitter), Streaming),
    ("/lineshaft.v1.TaskService/RetryTasks", AnyNamespace(Submitter), Streaming),
    ("/lineshaft.v1.TaskService/RetryTask", AnyNamespace(Submitter), Unary),
    ("/lineshaft.v1.TaskService/DeleteTasks", AnyNamespace(Operator), Unary),
    ("/lineshaft.v1.TaskService/ReadOutput", AnyNamespace(Viewer), Streaming),
    ("/lineshaft.v1.BatchService/CreateBatch", AnyNamespace(Submitter), Unary),
    ("/lineshaft.v1.BatchService/GetBatch", AnyNamespace(Viewer), Unary),
    ("/lineshaft.v1.BatchService/ListBatches", AnyNamespace(Viewer), Unary),
    ("/lineshaft.v1.BatchService/WatchBatch", AnyNamespace(Viewer), Streaming),
    ("/lineshaft.v1.BatchService/WaitBatch", AnyNamespace(Viewer), Streaming),
    ("/lineshaft.v1.BatchService/CloseBatch", AnyNamespace(Submitter), Unary),
    ("/lineshaft.v1.BatchService/CancelBatch", AnyNamespace(Submitter), Unary),
    ("/lineshaft.v1.BatchService/DeleteBatch", AnyNamespace(Operator), Unary),
    ("/lineshaft.v1.ScheduleService/CreateSchedule", AnyNamespace(Submitter), Unary),
    ("/lineshaft.v1.ScheduleService/GetSchedule", AnyNamespace(Viewer), Unary),
    ("/lineshaft.v1.ScheduleService/ListSchedules", AnyNamespace(Viewer), Unary),
    ("/lineshaft.v1.ScheduleService/UpdateSchedule", AnyNamespace(Submitter), Unary),
    ("/lineshaft.v1.ScheduleService/DeleteSchedule", AnyNamespace(Submitter), Unary),
    ("/lineshaft.v1.ScheduleService/PauseSchedule", AnyNamespace(Submitter), Unary),
    ("/lineshaft.v1.ScheduleService/ResumeSchedule", AnyNamespace(Submitter), Unary),
    ("/lineshaft.v1.ScheduleService/TriggerSchedule", AnyNamespace(Submitter), Unary),
    ("/lineshaft.v1.ScheduleService/PreviewSchedule", AnyNamespace(Viewer), Unary),
    // The configuration of pools is visible to every caller; their activity shows data of all tenants.
    ("/lineshaft.v1.PoolService/ListPools", AnyNamespace(Viewer), Unary),
    ("/lineshaft.v1.PoolService/GetPool", AnyNamespace(Viewer), Unary),
    ("/lineshaft.v1.PoolService/UpdatePool", AllNamespaces(Operator), Unary),
    ("/lineshaft.v1.PoolService/GetPoolMetrics", AllNamespaces(Viewer), Unary),
    ("/lineshaft.v1.PoolService/StreamPoolMetrics", AllNamespaces(Viewer), Streaming),
    ("/lineshaft.v1.PoolService/GetPoolHistory", AllNamespaces(Viewer), Unary),
    ("/lineshaft.v1.PoolService/ListWorkers", AllNamespaces(Viewer), Unary),
    ("/lineshaft.v1.PoolService/ListDecisions", AnyNamespace(Viewer), Unary),
    ("/lineshaft.v1.PoolService/ResetPoolCounters", AllNamespaces(Operator), Unary),
    ("/lineshaft.v1.HandlerService/ListHandlers", AnyNamespace(Viewer), Unary),
    ("/lineshaft.v1.HandlerService/GetHandler", AnyNamespace(Viewer), Unary),
    // Code that runs in the server.
    (PUT_HANDLER, AllNamespaces(Admin), Streaming),
    ("/lineshaft.v1.HandlerService/DeleteHandler", AllNamespaces(Admin), Unary),
    ("/lineshaft.v1.WorkerService/Work", AnyNamespace(Worker), Streaming),
    ("/lineshaft.v1.WorkerService/ReadParentResults", AnyNamespace(Worker), Streaming),
    (UPLOAD_ARTIFACT, AnyNamespace(Worker), Streaming),
    ("/lineshaft.v1.ArtifactService/ListArtifacts", AnyNamespace(Viewer), Unary),
    (READ_ARTIFACT, AnyNamespace(Viewer), Streaming),
    ("/lineshaft.v1.SystemService/GetServerInfo", Authenticated, Unary),
    ("/lineshaft.v1.SystemService/GetSystemHealth", AllNamespaces(Viewer), Unary),
    ("/lineshaft.v1.SystemService/Drain", AllNamespaces(Admin), Unary),
    // KEDA cannot send tokens; it has a client certificate.
    ("/externalscaler.ExternalScaler/IsActive", AllNamespaces(Viewer), Unary),
    ("/externalscaler.ExternalScaler/StreamIsActive", AllNamespaces(Viewer), Streaming),
    ("/externalscaler.ExternalScaler/GetMetricSpec", AllNamespaces(Viewer), Unary),
    ("/externalscaler.ExternalScaler/GetMetrics", AllNamespaces(Viewer), Unary),
    ("/externalscaler.ExternalScaler/StreamMetricSpec", AllNamespaces(Viewer), Unary),
    ("/grpc.health.v1.Health/Check", Public, Unary),
    ("/grpc.health.v1.Health/Watch", Public, Unary),
    // Pages, which are not RPCs.
    ("/health", AllNamespaces(Viewer), Unary),
    ("/health/live", Public, Unary),
    ("/health/ready", Public, Unary),
    ("/metrics", AllNamespaces(Viewer), Unary),
    // The contract is not secret, but only callers need it.
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Authenticated, Streaming),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Authenticated, Streaming),
];

/// What a call requires; `None` if it is not listed.
pub fn required(path: &str) -> Option<(Permission, CallKind)> {
    TABLE.iter().find(|(listed, ..)| *listed == path).map(|(_, permission, kind)| (*permission, *kind))
}

/// The RPCs of the contract, without the first slash, that the identity may call; all of them if authentication is off.
pub fn granted(identity: Option<&Identity>) -> impl Iterator<Item = &'static str> {
    let is_granted = move |permission: Permission| identity.is_none_or(|identity| permission.is_granted_to(identity));
    TABLE.iter().filter_map(move |(path, permission, _)| {
        path.strip_prefix('/').filter(|path| path.starts_with("lineshaft.v1.") && is_granted(*permission))
    })
}

/// Whether the caller decides when the call ends.
pub fn is_streaming(path: &str) -> bool {
    matches!(required(path), Some((_, Streaming)))
}

/// Calls that free what others wait for, or show why they wait, and the plain routes that do.
const MAKES_ROOM: [&str; 11] = [
    "/lineshaft.v1.TaskService/CancelTask",
    "/lineshaft.v1.TaskService/CancelTasks",
    "/lineshaft.v1.TaskService/DeleteTasks",
    "/lineshaft.v1.BatchService/CancelBatch",
    "/lineshaft.v1.BatchService/DeleteBatch",
    "/lineshaft.v1.ScheduleService/PauseSchedule",
    "/lineshaft.v1.PoolService/UpdatePool",
    "/lineshaft.v1.SystemService/Drain",
    "/lineshaft.v1.SystemService/GetSystemHealth",
    "/api/clear-completed",
    "/api/shutdown",
];

/// Whether the call has places of its own beside those of other calls.
pub fn makes_room(path: &str) -> bool {
    MAKES_ROOM.contains(&path) || path.starts_with("/api/tasks/") && path.ends_with("/cancel")
}

/// Whether the call needs no token.
pub fn is_public(path: &str) -> bool {
    matches!(required(path), Some((Public, _)))
}

/// The stream of a remote worker.
pub const WORK: &str = "/lineshaft.v1.WorkerService/Work";

/// The upload of a handler.
pub const PUT_HANDLER: &str = "/lineshaft.v1.HandlerService/PutHandler";

/// The upload of a file that an attempt leaves.
pub const UPLOAD_ARTIFACT: &str = "/lineshaft.v1.WorkerService/UploadArtifact";

/// The download of such a file.
pub const READ_ARTIFACT: &str = "/lineshaft.v1.ArtifactService/ReadArtifact";

/// Calls whose request is a stream of messages.
const TAKES_STREAM: [&str; 6] = [
    "/lineshaft.v1.TaskService/SubmitTasks",
    PUT_HANDLER,
    WORK,
    UPLOAD_ARTIFACT,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Whether the request of the call is a stream of messages.
pub fn takes_stream(path: &str) -> bool {
    TAKES_STREAM.contains(&path)
}

/// Calls that submit tasks, and the plain route that does.
const SUBMITS: [&str; 7] = [
    "/lineshaft.v1.TaskService/SubmitTask",
    "/lineshaft.v1.TaskService/BatchSubmitTasks",
    "/lineshaft.v1.TaskService/SubmitTasks",
    "/lineshaft.v1.TaskService/RunTask",
    "/lineshaft.v1.TaskService/RetryTask",
    "/lineshaft.v1.TaskService/RetryTasks",
    "/api/submit",
];

/// Whether the call submits tasks.
pub fn submits(path: &str) -> bool {
    SUBMITS.contains(&path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    const SERVED: [&[u8]; 4] = [
        crate::proto::DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];

    /// Every RPC of the server, from the descriptors of the contract and of the standard services.
    fn served() -> BTreeSet<String> {
        let mut paths = BTreeSet::new();
        for set in SERVED {
            for file in FileDescriptorSet::decode(set).unwrap().file {
                for service in &file.service {
                    let name = format!("/{}.{}", file.package(), service.name());
                    paths.extend(service.method.iter().map(|method| format!("{name}/{}", method.name())));
                }
            }
        }
        let scaler = include_str!("../../../proto/externalscaler/externalscaler.proto");
        let names = scaler.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next());
        paths.extend(names.map(|name| format!("/externalscaler.ExternalScaler/{name}")));
        paths
    }

    #[test]
    fn the_table_lists_every_rpc_and_no_other() {
        let listed: BTreeSet<String> = TABLE.iter().map(|(path, ..)| (*path).to_owned()).collect();
        assert_eq!(listed.len(), TABLE.len(), "duplicate row");
        // Paths of RPCs have a service and a method.
        let is_page = |path: &String| path.starts_with("/health") || path == "/metrics";
        assert_eq!(listed.into_iter().filter(|path| !is_page(path)).collect::<BTreeSet<_>>(), served());
    }

    #[test]
    fn the_list_of_streaming_requests_matches_the_descriptors() {
        let mut found = BTreeSet::new();
        for file in SERVED.into_iter().flat_map(|set| FileDescriptorSet::decode(set).unwrap().file) {
            for service in &file.service {
                let streams = service.method.iter().filter(|method| method.client_streaming());
                found.extend(streams.map(|m| format!("/{}.{}/{}", file.package(), service.name(), m.name())));
            }
        }
        assert_eq!(TAKES_STREAM.map(str::to_owned).into_iter().collect::<BTreeSet<_>>(), found);
    }

    #[test]
    fn only_probes_are_public() {
        for (path, permission, _) in TABLE {
            let is_probe = path.starts_with("/grpc.health.v1.Health/") || path.starts_with("/health/");
            assert_eq!(permission == Public, is_probe, "{path}");
        }
    }

    #[test]
    fn a_path_that_is_not_listed_has_no_permission() {
        for path in ["", "/", "/lineshaft.v1.TaskService/", "/lineshaft.v1.TaskService/submittask", "/metrics/"] {
            assert_eq!(required(path), None, "{path}");
        }
    }

    #[test]
    fn the_documentation_contains_the_table() {
        let text = include_str!("../../../docs/security.md");
        for (path, permission, _) in TABLE.iter().filter(|(path, ..)| path.starts_with("/lineshaft.v1.")) {
            let name = path.rsplit('/').next().unwrap();
            let words = match permission {
                Public => "nothing".to_owned(),
                Authenticated => "any token".to_owned(),
                AnyNamespace(role) => format!("{role}"),
                AllNamespaces(role) => format!("{role} in `*`"),
            };
            let row = format!("| `{name}` | {words} |");
            assert!(text.contains(&row), "docs/security.md lacks the row {row}");
        }
    }

    #[test]
    fn every_stream_of_the_contract_is_listed_as_streaming() {
        for file in FileDescriptorSet::decode(crate::proto::DESCRIPTORS).unwrap().file {
            for service in &file.service {
                for method in service.method.iter().filter(|m| m.server_streaming() || m.client_streaming()) {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    assert_eq!(required(&path).unwrap().1, Streaming, "{path}");
                }
            }
        }
    }
}
