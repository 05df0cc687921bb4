//! What each RPC needs: the only list, and what is not in it is refused.

use crate::model::Role;

/// What a call needs of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: probes have no tokens.
    Nothing,
    /// To be known.
    Known,
    /// The role in some namespace; the service looks which.
    Somewhere(Role),
    /// The role in all namespaces: it is about the server as a whole, or tells of all tenants at once.
    Everywhere(Role),
}

/// How long a call goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// As long as an answer takes.
    Short,
    /// As long as the caller likes: counted, and ended when the identity ends.
    Lasting,
}

use Need::{Everywhere, Known, Nothing, Somewhere};
use Role::{Admin, Operator, Submitter, Viewer};
use Span::{Lasting, Short};

const TABLE: [(&str, Need, Span); 36] = [
    ("/lineshaft.v1.TaskService/SubmitTask", Somewhere(Submitter), Short),
    ("/lineshaft.v1.TaskService/BatchSubmitTasks", Somewhere(Submitter), Short),
    ("/lineshaft.v1.TaskService/SubmitTasks", Somewhere(Submitter), Lasting),
    ("/lineshaft.v1.TaskService/RunTask", Somewhere(Submitter), Lasting),
    ("/lineshaft.v1.TaskService/GetTask", Somewhere(Viewer), Short),
    ("/lineshaft.v1.TaskService/ListTasks", Somewhere(Viewer), Short),
    ("/lineshaft.v1.TaskService/WaitTask", Somewhere(Viewer), Lasting),
    ("/lineshaft.v1.TaskService/WatchTasks", Somewhere(Viewer), Lasting),
    ("/lineshaft.v1.TaskService/CancelTask", Somewhere(Submitter), Short),
    ("/lineshaft.v1.TaskService/DeleteTasks", Somewhere(Operator), Short),
    ("/lineshaft.v1.TaskService/ReadOutput", Somewhere(Viewer), Lasting),
    // What pools are is the operator's word to all; how they do tells of all tenants at once.
    ("/lineshaft.v1.PoolService/ListPools", Somewhere(Viewer), Short),
    ("/lineshaft.v1.PoolService/GetPool", Somewhere(Viewer), Short),
    ("/lineshaft.v1.PoolService/UpdatePool", Everywhere(Operator), Short),
    ("/lineshaft.v1.PoolService/GetPoolMetrics", Everywhere(Viewer), Short),
    ("/lineshaft.v1.PoolService/StreamPoolMetrics", Everywhere(Viewer), Lasting),
    ("/lineshaft.v1.PoolService/ListWorkers", Everywhere(Viewer), Short),
    ("/lineshaft.v1.PoolService/ResetPoolCounters", Everywhere(Operator), Short),
    ("/lineshaft.v1.HandlerService/ListHandlers", Somewhere(Viewer), Short),
    ("/lineshaft.v1.HandlerService/GetHandler", Somewhere(Viewer), Short),
    ("/lineshaft.v1.SystemService/GetServerInfo", Known, Short),
    ("/lineshaft.v1.SystemService/GetSystemHealth", Everywhere(Viewer), Short),
    ("/lineshaft.v1.SystemService/Drain", Everywhere(Admin), Short),
    // KEDA has no tokens; it shows a certificate.
    ("/externalscaler.ExternalScaler/IsActive", Everywhere(Viewer), Short),
    ("/externalscaler.ExternalScaler/StreamIsActive", Everywhere(Viewer), Lasting),
    ("/externalscaler.ExternalScaler/GetMetricSpec", Everywhere(Viewer), Short),
    ("/externalscaler.ExternalScaler/GetMetrics", Everywhere(Viewer), Short),
    ("/externalscaler.ExternalScaler/StreamMetricSpec", Everywhere(Viewer), Short),
    ("/grpc.health.v1.Health/Check", Nothing, Short),
    ("/grpc.health.v1.Health/Watch", Nothing, Short),
    // Pages that are no RPCs.
    ("/health", Everywhere(Viewer), Short),
    ("/health/live", Nothing, Short),
    ("/health/ready", Nothing, Short),
    ("/metrics", Everywhere(Viewer), Short),
    // The contract is no secret, but who may not call has no use for it.
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Known, Lasting),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Known, Lasting),
];

/// What the call needs; `None` when it is not in the list.
pub fn need(path: &str) -> Option<(Need, Span)> {
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
            assert_eq!(need == Nothing, is_probe, "{path}");
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
                Nothing => "nothing".to_owned(),
                Known => "any token".to_owned(),
                Somewhere(role) => format!("{role}"),
                Everywhere(role) => format!("{role} in `*`"),
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
                    assert_eq!(need(&path).unwrap().1, Lasting, "{path}");
                }
            }
        }
    }
}
