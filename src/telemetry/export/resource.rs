//! The resource: attributes that every export of this server carries.

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_semantic_conventions::attribute as semconv;
use percent_encoding::percent_decode_str;

use super::settings::{Variables, text_of};

/// Attributes of Kubernetes and the variables that usually contain them.
const KUBERNETES: [(&str, &[&str]); 5] = [
    (semconv::K8S_POD_NAME, &["LINESHAFT_POD_NAME", "K8S_POD_NAME", "POD_NAME"]),
    (semconv::K8S_POD_UID, &["LINESHAFT_POD_UID", "K8S_POD_UID", "POD_UID"]),
    (semconv::K8S_NAMESPACE_NAME, &["LINESHAFT_POD_NAMESPACE", "K8S_NAMESPACE_NAME", "K8S_NAMESPACE", "POD_NAMESPACE"]),
    (semconv::K8S_NODE_NAME, &["LINESHAFT_NODE_NAME", "K8S_NODE_NAME", "NODE_NAME"]),
    (semconv::K8S_CONTAINER_NAME, &["LINESHAFT_CONTAINER_NAME", "K8S_CONTAINER_NAME", "CONTAINER_NAME"]),
];

/// `OTEL_RESOURCE_ATTRIBUTES` wins over detected attributes, and `OTEL_SERVICE_NAME` over both.
pub(super) fn resource(variables: &Variables, instance: &str) -> Resource {
    let mut detected = vec![
        KeyValue::new(semconv::SERVICE_NAME, "lineshaft"),
        KeyValue::new(semconv::SERVICE_VERSION, env!("CARGO_PKG_VERSION")),
        KeyValue::new(semconv::SERVICE_INSTANCE_ID, instance.to_owned()),
        KeyValue::new(semconv::HOST_ARCH, arch()),
        KeyValue::new(semconv::OS_TYPE, std::env::consts::OS),
        KeyValue::new(semconv::PROCESS_PID, i64::from(std::process::id())),
        KeyValue::new(semconv::PROCESS_RUNTIME_NAME, "rust"),
    ];
    let executable = std::env::current_exe().ok().and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
    let optional = [
        (semconv::HOST_NAME, sysinfo::System::host_name().ok()),
        (semconv::OS_VERSION, sysinfo::System::kernel_version().ok()),
        (semconv::PROCESS_EXECUTABLE_NAME, executable),
    ];
    detected.extend(optional.into_iter().filter_map(|(key, value)| Some(KeyValue::new(key, value?))));
    // A later attribute replaces an earlier one of the same key.
    let resource = Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(detected)
        .with_attributes(kubernetes(variables))
        .with_attributes(configured(variables));
    match text_of(variables, "OTEL_SERVICE_NAME") {
        Some(name) => resource.with_service_name(name.to_owned()).build(),
        None => resource.build(),
    }
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The attributes in `OTEL_RESOURCE_ATTRIBUTES`. The SDK does not decode them.
fn configured(variables: &Variables) -> Vec<KeyValue> {
    let pairs = text_of(variables, "OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default().split(',');
    let decoded = |text: &str| percent_decode_str(text.trim()).decode_utf8_lossy().into_owned();
    pairs
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| KeyValue::new(decoded(key), decoded(value)))
        .collect()
}

fn kubernetes(variables: &Variables) -> Vec<KeyValue> {
    let in_cluster = variables.contains_key("KUBERNETES_SERVICE_HOST");
    let set = |name: &&str| text_of(variables, name);
    let mut found = Vec::new();
    for (attribute, names) in KUBERNETES {
        // The host name of a pod is its name unless its specification sets another one.
        let host = || text_of(variables, "HOSTNAME").filter(|_| in_cluster && attribute == semconv::K8S_POD_NAME);
        found.extend(names.iter().find_map(set).or_else(host).map(|value| KeyValue::new(attribute, value.to_owned())));
    }
    found
}

#[cfg(test)]
mod tests {
    use opentelemetry::Key;

    use super::*;

    #[test]
    fn a_resource_names_service_process_and_pod() {
        let variables = [
            ("OTEL_SERVICE_NAME", "tasks"),
            ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
            ("HOSTNAME", "lineshaft-0"),
            ("POD_NAMESPACE", "tools"),
            ("LINESHAFT_NODE_NAME", "node-7"),
            ("NODE_NAME", "other"),
            ("OTEL_RESOURCE_ATTRIBUTES", "team = a%2Cb%3D%25 c%C3%A9,nothing,host.arch=own"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let resource = resource(&variables, "i-1");
        let pid = std::process::id().to_string();
        for (key, value) in [
            ("service.name", "tasks"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("service.instance.id", "i-1"),
            ("process.pid", &pid),
            ("telemetry.sdk.language", "rust"),
            ("k8s.pod.name", "lineshaft-0"),
            ("k8s.namespace.name", "tools"),
            ("k8s.node.name", "node-7"),
            ("team", "a,b=% cé"),
            ("host.arch", "own"),
        ] {
            assert_eq!(resource.get(&Key::from_static_str(key)).map(|value| value.to_string()).as_deref(), Some(value));
        }
        assert!(kubernetes(&Variables::new()).is_empty());
    }
}
