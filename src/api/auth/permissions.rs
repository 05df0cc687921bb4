//! What each RPC needs: the only list, and what is not in it is refused.

use crate::model::Role;

/// What a call needs of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Public: probes have no tokens.
    Public,
    /// To be known.
    Authenticated,
    /// The role in some namespace; the service looks which.
    AnyNamespace(Role),
    /// The role in all namespaces: it is about the server as a whole, or tells of all tenants at once.
    AllNamespaces(Role),
}

/// How long a call goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// As long as an answer takes.
    Unary,
    /// As long as the caller likes: counted, and ended when the identity ends.
    Streaming,
}

use CallKind::{Streaming, Unary};
use Permission::{AllNamespaces, AnyNamespace, Authenticated, Public};
use Role::{Admin, Operator, Submitter, Viewer};

const TABLE: [(&str, Permission, CallKind); 36] = [
    ("/lineshaft.v1.TaskService/SubmitTask", AnyNamespace(Submitter), Unary),
    ("/lineshaft.v1.TaskService/BatchSubmitTasks", AnyNamespace(Submitter), Unary),
    ("/lineshaft.v1.TaskService/SubmitTasks", AnyNamespace(Submitter), Streaming),
    ("/lineshaft.v1.TaskService/RunTask", AnyNamespace(Submitter), Streaming),
    ("/lineshaft.v1.TaskService/GetTask", AnyNamespace(Viewer), Unary),
    ("/lineshaft.v1.TaskService/ListTasks", AnyNamespace(Viewer), Unary),
    ("/lineshaft.v1.TaskService/WaitTask", AnyNamespace(Viewer), Streaming),
    ("/lineshaft.v1.TaskService/WatchTasks", AnyNamespace(Viewer), Streaming),
    ("/lineshaft.v1.TaskService/CancelTask", AnyNamespace(Submitter), Unary),
    ("/lineshaft.v1.TaskService/DeleteTasks", AnyNamespace(Operator), Unary),
    ("/lineshaft.v1.TaskService/ReadOutput", AnyNamespace(Viewer), Streaming),
    // What pools are is the operator's word to all; how they do tells of all tenants at once.
    ("/lineshaft.v1.PoolService/ListPools", AnyNamespace(Viewer), Unary),
    ("/lineshaft.v1.PoolService/GetPool", AnyNamespace(Viewer), Unary),
    ("/lineshaft.v1.PoolService/UpdatePool", AllNamespaces(Operator), Unary),
    ("/lineshaft.v1.PoolService/GetPoolMetrics", AllNamespaces(Viewer), Unary),
    ("/lineshaft.v1.PoolService/StreamPoolMetrics", AllNamespaces(Viewer), Streaming),
    ("/lineshaft.v1.PoolService/ListWorkers", AllNamespaces(Viewer), Unary),
    ("/lineshaft.v1.PoolService/ResetPoolCounters", AllNamespaces(Operator), Unary),
    ("/lineshaft.v1.HandlerService/ListHandlers", AnyNamespace(Viewer), Unary),
    ("/lineshaft.v1.HandlerService/GetHandler", AnyNamespace(Viewer), Unary),
    ("/lineshaft.v1.SystemService/GetServerInfo", Authenticated, Unary),
    ("/lineshaft.v1.SystemService/GetSystemHealth", AllNamespaces(Viewer), Unary),
    ("/lineshaft.v1.SystemService/Drain", AllNamespaces(Admin), Unary),
    // KEDA has no tokens; it shows a certificate.
    ("/externalscaler.ExternalScaler/IsActive", AllNamespaces(Viewer), Unary),
    ("/externalscaler.ExternalScaler/StreamIsActive", AllNamespaces(Viewer), Streaming),
    ("/externalscaler.ExternalScaler/GetMetricSpec", AllNamespaces(Viewer), Unary),
    ("/externalscaler.ExternalScaler/GetMetrics", AllNamespaces(Viewer), Unary),
    ("/externalscaler.ExternalScaler/StreamMetricSpec", AllNamespaces(Viewer), Unary),
    ("/grpc.health.v1.Health/Check", Public, Unary),
    ("/grpc.health.v1.Health/Watch", Public, Unary),
    // Pages that are no RPCs.
    ("/health", AllNamespaces(Viewer), Unary),
    ("/health/live", Public, Unary),
    ("/health/ready", Public, Unary),
    ("/metrics", AllNamespaces(Viewer), Unary),
    // The contract is no secret, but who may not call has no use for it.
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Authenticated, Streaming),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Authenticated, Streaming),
];

/// What the call needs; `None` when it is not in the list.
pub fn need(path: &str) -> Option<(Permission, CallKind)> {
    TABLE.iter().find(|(listed, ..)| *listed == path).map(|(_, need, span)| (*need, *span))
}

/// Calls whose callers send as many messages as they like, as long as they like.
const TAKES_STREAM: [&str; 3] = [
    "/lineshaft.v1.TaskService/SubmitTasks",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Whether the call takes a stream of messages, and not one.
pub fn takes_stream(path: &str) -> bool {
    TAKES_STREAM.contains(&path)
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

    /// Every RPC that is served, from what the contract and the standard services say of themselves.
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
    fn every_rpc_has_its_row_and_every_row_its_rpc() {
        let listed: BTreeSet<String> = TABLE.iter().map(|(path, ..)| (*path).to_owned()).collect();
        assert_eq!(listed.len(), TABLE.len(), "a row is there twice");
        // Paths of RPCs have a service and a method.
        let is_page = |path: &String| path.starts_with("/health") || path == "/metrics";
        assert_eq!(listed.into_iter().filter(|path| !is_page(path)).collect::<BTreeSet<_>>(), served());
    }

    #[test]
    fn calls_that_take_a_stream_are_known_by_name() {
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
    fn only_probes_need_nothing_and_what_is_not_listed_is_refused() {
        for (path, need, _) in TABLE {
            let is_probe = path.starts_with("/grpc.health.v1.Health/") || path.starts_with("/health/");
            assert_eq!(need == Public, is_probe, "{path}");
        }
        for path in ["", "/", "/lineshaft.v1.TaskService/", "/lineshaft.v1.TaskService/submittask", "/metrics/"] {
            assert_eq!(need(path), None, "{path}");
        }
    }

    #[test]
    fn the_documentation_has_the_table() {
        let text = include_str!("../../../docs/security.md");
        for (path, need, _) in TABLE.iter().filter(|(path, ..)| path.starts_with("/lineshaft.v1.")) {
            let name = path.rsplit('/').next().unwrap();
            let words = match need {
                Public => "nothing".to_owned(),
                Authenticated => "any token".to_owned(),
                AnyNamespace(role) => format!("{role}"),
                AllNamespaces(role) => format!("{role} in `*`"),
            };
            let row = format!("| `{name}` | {words} |");
            assert!(text.contains(&row), "docs/security.md has no row {row}");
        }
    }

    #[test]
    fn every_stream_of_the_contract_is_counted() {
        for file in FileDescriptorSet::decode(crate::proto::DESCRIPTORS).unwrap().file {
            for service in &file.service {
                for method in service.method.iter().filter(|m| m.server_streaming() || m.client_streaming()) {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    assert_eq!(need(&path).unwrap().1, Streaming, "{path}");
                }
            }
        }
    }
}
