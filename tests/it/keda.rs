//! Calls of the external scaler, in the order in which KEDA makes them.

use lineshaft::proto::externalscaler::{
    GetMetricsRequest, ScaledObjectRef, external_scaler_client::ExternalScalerClient,
};
use lineshaft::proto::v1::task_service_client::TaskServiceClient;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

use crate::health_endpoints::health_address;
use crate::security::tls::Authority;
use crate::support::{Server, TIMEOUT, fields, noop, reason, task};

const CONFIG: &str = "
[[pool]]
name = \"default\"
size = 1
[[pool]]
name = \"render\"
size = 2
";

const HEALTH: &str = "[server]\nhealth_listen = \"127.0.0.1:0\"\n";

/// The plaintext port for probes, metrics and scalers.
fn health_port(server: &Server) -> Endpoint {
    Endpoint::from_shared(format!("http://{}", health_address(server))).unwrap()
}

fn trigger(pairs: &[(&str, &str)]) -> ScaledObjectRef {
    let scaler_metadata = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    ScaledObjectRef { name: "renderer".to_owned(), namespace: "work".to_owned(), scaler_metadata }
}

struct Keda(ExternalScalerClient<Channel>);

impl Keda {
    fn of(server: &Server) -> Self {
        Self(ExternalScalerClient::new(server.channel()))
    }

    async fn active(&mut self, trigger: &ScaledObjectRef) -> bool {
        self.0.is_active(trigger.clone()).await.unwrap().into_inner().result
    }

    /// As KEDA does it: gets the specification, then the value of the metric that it names. Returns value and target.
    async fn value(&mut self, trigger: &ScaledObjectRef) -> (f64, f64) {
        let spec = self.0.get_metric_spec(trigger.clone()).await.unwrap().into_inner().metric_specs.remove(0);
        let request =
            GetMetricsRequest { scaled_object_ref: Some(trigger.clone()), metric_name: spec.metric_name.clone() };
        let value = self.0.get_metrics(request).await.unwrap().into_inner().metric_values.remove(0);
        assert_eq!(value.metric_name, spec.metric_name);
        (value.metric_value_float, spec.target_size_float)
    }

    async fn refusal(&mut self, pairs: &[(&str, &str)]) -> Status {
        self.0.get_metric_spec(trigger(pairs)).await.unwrap_err()
    }
}

fn nap(id: &str, seconds: &str) -> lineshaft::proto::v1::SubmitTaskRequest {
    lineshaft::proto::v1::SubmitTaskRequest { task_id: id.to_owned(), pool: "render".to_owned(), ..task("io", seconds) }
}

#[tokio::test]
#[expect(clippy::float_cmp, reason = "small counts and given targets are exact")]
async fn metrics_follow_the_load_and_an_idle_pool_is_inactive() {
    let server = Server::start(CONFIG);
    let mut keda = Keda::of(&server);
    let load = trigger(&[("pool", "render"), ("value", "3"), ("scalerAddress", "lineshaft:7071")]);
    let queued = trigger(&[("pool", "render"), ("value", "3"), ("metric", "queued")]);
    let oldest = trigger(&[("pool", "render"), ("value", "0.5"), ("metric", "oldest_wait")]);
    let busy = trigger(&[("pool", "render"), ("value", "0.8"), ("metric", "utilization")]);
    assert!(!keda.active(&load).await);
    assert_eq!(keda.value(&load).await, (0.0, 3.0));

    for n in 0..5 {
        server.submit(nap(&format!("nap-{n}"), "60")).await;
    }
    for n in 0..2 {
        server.wait_for_state(&format!("nap-{n}"), lineshaft::proto::v1::TaskState::Running).await;
    }
    assert!(keda.active(&load).await && keda.active(&busy).await);
    assert_eq!(keda.value(&load).await, (5.0, 3.0));
    assert_eq!(keda.value(&queued).await, (3.0, 3.0));
    assert_eq!(keda.value(&busy).await, (1.0, 0.8));
    let (waited, _) = keda.value(&oldest).await;
    assert!(waited > 0.0 && waited < TIMEOUT.as_secs_f64(), "{waited}");

    // Queued tasks of a paused pool are no reason to scale; running ones are.
    server.set_paused("render", true).await;
    assert_eq!(keda.value(&queued).await.0, 0.0);
    assert_eq!(keda.value(&load).await.0, 2.0);
    server.set_paused("render", false).await;
    for n in 0..5 {
        let request = lineshaft::proto::v1::CancelTaskRequest { task_id: format!("nap-{n}"), ..Default::default() };
        server.tasks().cancel_task(request).await.unwrap();
        server.wait_finished(&format!("nap-{n}")).await;
    }
    assert_eq!(keda.value(&load).await.0, 0.0);
    assert!(!keda.active(&load).await);
}

#[tokio::test]
async fn activity_changes_are_streamed_until_a_drain() {
    let server = Server::start(CONFIG);
    let mut keda = Keda::of(&server);
    let load = trigger(&[("pool", "render"), ("value", "3")]);
    let mut stream = keda.0.stream_is_active(load).await.unwrap().into_inner();
    let mut next = async || tokio::time::timeout(TIMEOUT, stream.message()).await.expect("a message in time");
    assert!(!next().await.unwrap().unwrap().result);
    server.submit(nap("nap", "60")).await;
    assert!(next().await.unwrap().unwrap().result);
    let request = lineshaft::proto::v1::CancelTaskRequest { task_id: "nap".to_owned(), ..Default::default() };
    server.tasks().cancel_task(request).await.unwrap();
    assert!(!next().await.unwrap().unwrap().result);
    server.signal(rustix::process::Signal::TERM);
    let end = next().await.unwrap_err();
    assert_eq!((end.code(), reason(&end).as_str()), (Code::Unavailable, "DRAINING"));
}

#[tokio::test]
async fn invalid_triggers_are_rejected_with_their_fields() {
    let server = Server::start(CONFIG);
    let mut keda = Keda::of(&server);
    let bad = keda.refusal(&[("pool", "render"), ("metric", "mood"), ("value", "0")]).await;
    assert_eq!(bad.code(), Code::InvalidArgument);
    assert_eq!(fields(&bad), ["scalerMetadata.metric", "scalerMetadata.value"]);
    let unknown_pool = trigger(&[("pool", "nosuch"), ("value", "1")]);
    for status in [
        keda.0.is_active(unknown_pool.clone()).await.unwrap_err(),
        keda.0.stream_is_active(unknown_pool.clone()).await.unwrap_err(),
    ] {
        assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "UNKNOWN_POOL"));
    }
    let request = GetMetricsRequest {
        scaled_object_ref: Some(trigger(&[("pool", "render"), ("value", "1")])),
        metric_name: "another".to_owned(),
    };
    assert_eq!(fields(&keda.0.get_metrics(request).await.unwrap_err()), ["metricName"]);
}

#[tokio::test]
async fn the_health_port_accepts_many_streams_on_one_connection() {
    let server = Server::start(&format!("{HEALTH}{CONFIG}"));
    let channel = health_port(&server).connect_lazy();
    let mut keda = ExternalScalerClient::new(channel);
    let load = trigger(&[("pool", "render"), ("value", "3")]);
    let mut streams = Vec::new();
    for _ in 0..40 {
        let opened = tokio::time::timeout(TIMEOUT, keda.stream_is_active(load.clone())).await;
        streams.push(opened.expect("a stream in time").unwrap().into_inner());
    }
    assert!(!keda.is_active(load).await.unwrap().into_inner().result);
}

const NAME: &str = "demo-lineshaft.work.svc";

/// A connection as KEDA makes it from `caCert`, `tlsClientCert` and `tlsClientKey`: by the server's name in the cluster,
/// and without any other credentials. `signer` signs the client certificate of that name.
fn keda_channel(server: &Server, authority: &Authority, signer: &Authority, client: &str) -> Channel {
    let (certificate, key) = signer.sign(client, &[client]);
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authority.pem()))
        .identity(Identity::from_pem(certificate, key))
        .domain_name(NAME);
    let endpoint = Endpoint::from_shared(format!("https://{}", server.address)).unwrap();
    let endpoint = endpoint.origin(format!("https://{NAME}:7070").parse().unwrap());
    endpoint.tls_config(tls).unwrap().connect_lazy()
}

#[tokio::test]
async fn with_authentication_the_scaler_needs_the_health_port_or_a_certificate() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let keep = |name: &str, text: String| {
        std::fs::write(directory.path().join(name), text).unwrap();
        directory.path().join(name).display().to_string()
    };
    let (certificate, key) = authority.sign(NAME, &[NAME]);
    let config = format!(
        "{HEALTH}[tls]\ncertificate = {:?}\nkey = {:?}\nclient_ca = {:?}\n\
         [[auth.certificate]]\nsubject = \"keda-operator\"\nrole = \"viewer\"\nnamespaces = [\"*\"]\n\
         [[auth.certificate]]\nsubject = \"tenant\"\nrole = \"viewer\"\nnamespaces = [\"team-a\"]\n{CONFIG}",
        keep("tls.crt", certificate),
        keep("tls.key", key),
        keep("ca.crt", authority.pem()),
    );
    let server = Server::start(&config);
    let load = trigger(&[("pool", "render"), ("value", "3")]);
    let authenticated = keda_channel(&server, &authority, &authority, "keda-operator");
    let open = health_port(&server).connect_lazy();
    for channel in [authenticated.clone(), open.clone()] {
        let mut keda = Keda(ExternalScalerClient::new(channel.clone()));
        assert!(!keda.active(&load).await);
        assert_eq!(keda.value(&load).await.1.to_bits(), 3.0_f64.to_bits());
        let mut stream = keda.0.stream_is_active(load.clone()).await.unwrap().into_inner();
        assert!(!stream.message().await.unwrap().unwrap().result);
        // Newer versions of KEDA would repeat the call forever after any other error.
        let none = keda.0.stream_metric_spec(load.clone()).await.unwrap_err();
        assert_eq!(none.code(), Code::Unimplemented);
        let refused = TaskServiceClient::new(channel).submit_task(noop()).await.unwrap_err();
        assert!(matches!(refused.code(), Code::PermissionDenied | Code::Unimplemented), "{refused:?}");
    }
    let tenant = keda_channel(&server, &authority, &authority, "tenant");
    let refused = ExternalScalerClient::new(tenant).is_active(load.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "the metrics of a pool cover all tenants");
    let forged = keda_channel(&server, &authority, &Authority::new(), "keda-operator");
    assert!(ExternalScalerClient::new(forged).is_active(load).await.is_err());
}
