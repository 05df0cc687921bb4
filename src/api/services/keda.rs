//! KEDA's external scaler: lets KEDA scale Deployments by the load of a pool.
//!
//! A trigger names a pool, a metric, and the target value per replica. KEDA sends no token, so the admin port serves this
//! service too.

use std::collections::HashMap;
use std::time::Duration;

use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use crate::api::convert::InvalidFields;
use crate::api::status::{EdgeError, into_status};
use crate::model::{ErrorCode, PoolName};
use crate::proto::externalscaler::external_scaler_server::{ExternalScaler, ExternalScalerServer};
use crate::proto::externalscaler::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec, MetricValue,
    ScaledObjectRef,
};
use crate::scheduler::{Handle, PoolMetrics};

use super::interval::Ticker;

/// Interval at which StreamIsActive reads the load of the pool.
const INTERVAL: Duration = Duration::from_secs(1);

pub fn service(handle: Handle) -> ExternalScalerServer<Scaler> {
    ExternalScalerServer::new(Scaler { handle })
}

#[derive(Clone)]
pub struct Scaler {
    handle: Handle,
}

/// The metric of a trigger. While a pool is paused, its queued tasks do not count: more replicas would not start them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Metric {
    /// Number of QUEUED and RUNNING tasks.
    Load,
    /// Number of QUEUED tasks.
    Queued,
    /// Time in seconds for which the oldest QUEUED task has been eligible.
    OldestWait,
    /// Fraction of the workers that run an attempt, 0 to 1.
    Utilization,
}

impl Metric {
    const ALL: [(&str, Self); 4] = [
        ("load", Self::Load),
        ("queued", Self::Queued),
        ("oldest_wait", Self::OldestWait),
        ("utilization", Self::Utilization),
    ];

    fn value(self, pool: &PoolMetrics) -> f64 {
        let reading = &pool.snapshot;
        let paused = reading.spec.paused;
        let (queued, oldest) = if paused { (0, Duration::ZERO) } else { (reading.queued, reading.oldest_wait()) };
        #[expect(clippy::cast_precision_loss, reason = "a metric needs at most 53 bits")]
        match self {
            Self::Load => (queued + reading.running) as f64,
            Self::Queued => queued as f64,
            Self::OldestWait => oldest.as_secs_f64(),
            Self::Utilization => pool.stats.busy as f64 / reading.spec.size.max(1) as f64,
        }
    }
}

/// A parsed trigger.
#[derive(Clone, Debug, PartialEq)]
struct Trigger {
    pool: PoolName,
    metric: Metric,
    /// Name of the metric in KEDA.
    name: String,
    /// Target value per replica.
    target: f64,
}

impl Trigger {
    fn parse(metadata: &HashMap<String, String>) -> Result<Self, InvalidFields> {
        let mut invalid = InvalidFields::default();
        let text = |key: &str| metadata.get(key).map_or("", String::as_str);
        let pool = invalid.parsed("scalerMetadata.pool", PoolName::parse(text("pool")));
        let (label, metric) = match text("metric") {
            "" => Metric::ALL[0],
            text => Metric::ALL.into_iter().find(|(name, _)| *name == text).unwrap_or_else(|| {
                let names = Metric::ALL.map(|(name, _)| name).join(", ");
                invalid.add("scalerMetadata.metric", format_args!("is {text:?}, must be one of {names}"));
                Metric::ALL[0]
            }),
        };
        let target = text("value").parse().ok().filter(|value: &f64| value.is_finite() && *value > 0.0);
        if target.is_none() {
            invalid.add("scalerMetadata.value", format_args!("is {:?}, must be a number above 0", text("value")));
        }
        let (Some(pool), Some(target)) = (pool, target) else { return Err(invalid) };
        invalid.check()?;
        // The name is part of a path in the metrics API of the cluster.
        let path_character = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let name = format!("lineshaft-{pool}-{label}").chars().map(path_character).collect();
        Ok(Self { pool, metric, name, target })
    }

    fn from_reference(reference: Option<&ScaledObjectRef>) -> Result<Self, Status> {
        let metadata = reference.map(|reference| &reference.scaler_metadata);
        metadata.map_or_else(|| Self::parse(&HashMap::new()), Self::parse).map_err(into_status)
    }
}

impl Scaler {
    async fn pool_metrics(&self, pool: &PoolName) -> Result<PoolMetrics, Status> {
        let (metrics, _) = self.handle.pool_metrics_of(pool.clone(), false).await.map_err(into_status)?;
        Ok(metrics)
    }

    /// A pool with running tasks is active whatever the metric of the trigger, so that KEDA does not stop the server
    /// that runs them.
    async fn is_pool_active(&self, pool: &PoolName) -> Result<bool, Status> {
        Ok(Metric::Load.value(&self.pool_metrics(pool).await?) > 0.0)
    }
}

#[tonic::async_trait]
impl ExternalScaler for Scaler {
    type StreamIsActiveStream = BoxStream<IsActiveResponse>;
    type StreamMetricSpecStream = BoxStream<GetMetricSpecResponse>;

    async fn is_active(&self, request: Request<ScaledObjectRef>) -> Result<Response<IsActiveResponse>, Status> {
        let trigger = Trigger::from_reference(Some(request.get_ref()))?;
        let result = self.is_pool_active(&trigger.pool).await?;
        Ok(Response::new(IsActiveResponse { result }))
    }

    async fn stream_is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamIsActiveStream>, Status> {
        let trigger = Trigger::from_reference(Some(request.get_ref()))?;
        // Checks that the pool exists before the stream starts.
        self.pool_metrics(&trigger.pool).await?;
        let scaler = self.clone();
        Ok(Response::new(Box::pin(async_stream::try_stream! {
            let mut ticker = Ticker::new(&scaler.handle, INTERVAL);
            let mut sent = None;
            loop {
                ticker.tick().await?;
                let result = scaler.is_pool_active(&trigger.pool).await?;
                if sent.replace(result) != Some(result) {
                    yield IsActiveResponse { result };
                }
            }
        })))
    }

    async fn get_metric_spec(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<GetMetricSpecResponse>, Status> {
        let trigger = Trigger::from_reference(Some(request.get_ref()))?;
        let (target_size, target_size_float) = (round_up(trigger.target), trigger.target);
        let spec = MetricSpec { metric_name: trigger.name, target_size, target_size_float };
        Ok(Response::new(GetMetricSpecResponse { metric_specs: vec![spec] }))
    }

    /// KEDA does not call this again after UNIMPLEMENTED.
    async fn stream_metric_spec(
        &self,
        _: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamMetricSpecStream>, Status> {
        let message = "the metric specification of a trigger never changes".to_owned();
        Err(into_status(EdgeError { code: ErrorCode::Unsupported, message }))
    }

    async fn get_metrics(&self, request: Request<GetMetricsRequest>) -> Result<Response<GetMetricsResponse>, Status> {
        let trigger = Trigger::from_reference(request.get_ref().scaled_object_ref.as_ref())?;
        let name = &request.get_ref().metric_name;
        if !name.is_empty() && *name != trigger.name {
            let description = format!("is {name:?}, must be {:?} for this trigger", trigger.name);
            return Err(into_status(InvalidFields::one("metricName", description)));
        }
        let value = trigger.metric.value(&self.pool_metrics(&trigger.pool).await?);
        let value = MetricValue { metric_name: trigger.name, metric_value: round_up(value), metric_value_float: value };
        Ok(Response::new(GetMetricsResponse { metric_values: vec![value] }))
    }
}

/// Rounds up, so that a value above 0 never becomes 0.
fn round_up(value: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "counts, seconds and ratios, far below 2^53")]
    let rounded = value.ceil() as i64;
    rounded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_trigger_is_parsed() {
        let trigger =
            Trigger::parse(&metadata(&[("pool", "Big_pool"), ("metric", "oldest_wait"), ("value", "2.5")])).unwrap();
        assert_eq!((trigger.pool.as_str(), trigger.metric), ("Big_pool", Metric::OldestWait));
        assert_eq!((trigger.name.as_str(), round_up(trigger.target)), ("lineshaft-big-pool-oldest-wait", 3));
        let trigger = Trigger::parse(&metadata(&[("pool", "a"), ("value", "10"), ("scalerAddress", "x:1")])).unwrap();
        assert_eq!(trigger.metric, Metric::Load);
    }

    #[test]
    fn all_invalid_fields_of_a_trigger_are_reported_at_once() {
        let error = Trigger::parse(&metadata(&[("pool", ""), ("metric", "mood"), ("value", "-1")])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("scalerMetadata.pool") && text.contains("2 more"), "{text}");
        for value in ["", "0", "NaN", "inf", "many"] {
            let error = Trigger::parse(&metadata(&[("pool", "a"), ("value", value)])).unwrap_err().to_string();
            assert!(error.contains("scalerMetadata.value"), "{error}");
        }
    }
}
