//! Who tells: the attributes that every export of this server carries.

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{ResourceDetector, TelemetryResourceDetector};

use super::settings::{Settings, Variables};

/// Attributes of Kubernetes, and the variables that a pod is usually given them by.
const KUBERNETES: [(&str, [&str; 4]); 5] = [
    ("k8s.pod.name", ["LINESHAFT_POD_NAME", "K8S_POD_NAME", "POD_NAME", ""]),
    ("k8s.pod.uid", ["LINESHAFT_POD_UID", "K8S_POD_UID", "POD_UID", ""]),
    ("k8s.namespace.name", ["LINESHAFT_POD_NAMESPACE", "K8S_NAMESPACE_NAME", "K8S_NAMESPACE", "POD_NAMESPACE"]),
    ("k8s.node.name", ["LINESHAFT_NODE_NAME", "K8S_NODE_NAME", "NODE_NAME", ""]),
    ("k8s.container.name", ["LINESHAFT_CONTAINER_NAME", "K8S_CONTAINER_NAME", "CONTAINER_NAME", ""]),
];

/// The resource of this process. What `OTEL_RESOURCE_ATTRIBUTES` says wins over what was found out,
/// and `OTEL_SERVICE_NAME` over both.
pub(super) fn resource(settings: &Settings, variables: &Variables, instance: &str) -> Resource {
    let mut found = vec![
        KeyValue::new("service.name", "lineshaft"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance.to_owned()),
        KeyValue::new("host.arch", arch()),
        KeyValue::new("os.type", std::env::consts::OS),
        KeyValue::new("process.pid", i64::from(std::process::id())),
        KeyValue::new("process.runtime.name", "rust"),
    ];
    if let Ok(name) = sysinfo::System::host_name() {
        found.push(KeyValue::new("host.name", name));
    }
    if let Ok(version) = sysinfo::System::kernel_version() {
        found.push(KeyValue::new("os.version", version));
    }
    if let Some(name) = std::env::current_exe().ok().and_then(|path| Some(path.file_name()?.to_str()?.to_owned())) {
        found.push(KeyValue::new("process.executable.name", name));
    }
    found.extend(kubernetes(variables));
    found.extend(settings.attributes.iter().cloned());
    let sdk = TelemetryResourceDetector.detect();
    let sdk = sdk.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    // A later attribute replaces an earlier one of the same key.
    Resource::builder_empty().with_attributes(sdk).with_attributes(found).build()
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn kubernetes(variables: &Variables) -> Vec<KeyValue> {
    let in_cluster = variables.contains_key("KUBERNETES_SERVICE_HOST");
    let known = |name: &&str| variables.get(*name).filter(|value| !value.is_empty());
    let mut found = Vec::new();
    for (attribute, names) in KUBERNETES {
        let value = names.iter().find_map(known);
        // A pod's host name is its name, unless somebody has chosen another.
        let value = value.or_else(|| variables.get("HOSTNAME").filter(|_| in_cluster && attribute == "k8s.pod.name"));
        found.extend(value.map(|value| KeyValue::new(attribute, value.clone())));
    }
    found
}

#[cfg(test)]
mod tests {
    use opentelemetry::Key;

    use super::*;

    fn resource_of(variables: &[(&str, &str)]) -> Resource {
        let variables: Variables =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let settings = Settings::read(&variables, "", "").unwrap();
        resource(&settings, &variables, "i-1")
    }

    fn get(resource: &Resource, key: &'static str) -> Option<String> {
        resource.get(&Key::from_static_str(key)).map(|value| value.to_string())
    }

    #[test]
    fn a_server_says_who_it_is() {
        let plain = resource_of(&[]);
        assert_eq!(get(&plain, "service.name").as_deref(), Some("lineshaft"));
        assert_eq!(get(&plain, "service.version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!(get(&plain, "service.instance.id").as_deref(), Some("i-1"));
        assert_eq!(get(&plain, "process.pid"), Some(std::process::id().to_string()));
        assert_eq!(get(&plain, "telemetry.sdk.language").as_deref(), Some("rust"));
        assert_eq!(get(&plain, "k8s.pod.name"), None);
    }

    #[test]
    fn the_variables_win_and_the_service_name_most_of_all() {
        let named = resource_of(&[
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,service.instance.id=stable,team=x"),
            ("OTEL_SERVICE_NAME", "b"),
        ]);
        assert_eq!(get(&named, "service.name").as_deref(), Some("b"));
        assert_eq!(get(&named, "service.instance.id").as_deref(), Some("stable"));
        assert_eq!(get(&named, "team").as_deref(), Some("x"));
    }

    #[test]
    fn a_pod_is_known_by_the_variables_that_it_is_given() {
        let pod = resource_of(&[
            ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
            ("HOSTNAME", "lineshaft-0"),
            ("POD_NAMESPACE", "tools"),
            ("LINESHAFT_NODE_NAME", "node-7"),
            ("NODE_NAME", "other"),
        ]);
        assert_eq!(get(&pod, "k8s.pod.name").as_deref(), Some("lineshaft-0"));
        assert_eq!(get(&pod, "k8s.namespace.name").as_deref(), Some("tools"));
        assert_eq!(get(&pod, "k8s.node.name").as_deref(), Some("node-7"));
    }
}
