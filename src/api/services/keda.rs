//! KEDA's external scaler: Deployments grow and shrink with what waits in a pool.
//!
//! A trigger names a pool, what is measured of it, and how much of that one replica should have. KEDA shows no token,
//! so this is served where metrics are, not where tasks are submitted.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Request, Response, Status};

use crate::model::{ErrorCode, PoolName};
use crate::proto::externalscaler::{
    self as wire, external_scaler_server::ExternalScaler, external_scaler_server::ExternalScalerServer,
};
use crate::scheduler::{Handle, PoolMetrics};

use super::interval::Ticks;
use super::tasks::Body;
use crate::api::convert::InvalidFields;
use crate::api::status::{EdgeError, refused};

/// How often a stream looks whether there is anything to do.
const INTERVAL: Duration = Duration::from_secs(1);

/// The service.
pub fn service(handle: Handle) -> ExternalScalerServer<Scaler> {
    ExternalScalerServer::new(Scaler { handle })
}

#[derive(Clone)]
pub struct Scaler {
    handle: Handle,
}

/// What is measured of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    /// Tasks that are queued or run: what replicas share among them, and have until it is done.
    Load,
    /// Tasks that are queued.
    Queued,
    /// Seconds that the oldest of them has been eligible.
    OldestWait,
    /// Share of the workers that run an attempt, 0 to 1.
    Utilization,
}

impl Measure {
    const ALL: [(&str, Self); 4] = [
        ("load", Self::Load),
        ("queued", Self::Queued),
        ("oldest_wait", Self::OldestWait),
        ("utilization", Self::Utilization),
    ];

    fn of(self, pool: &PoolMetrics) -> f64 {
        // What a paused pool holds waits for nobody but its operator.
        let reading = &pool.reading;
        let paused = reading.spec.paused;
        let (queued, oldest) = if paused { (0, Duration::ZERO) } else { (reading.queued, reading.oldest_wait()) };
        #[expect(clippy::cast_precision_loss, reason = "a measure needs no more than 53 bits")]
        match self {
            Self::Load => (queued + reading.running) as f64,
            Self::Queued => queued as f64,
            Self::OldestWait => oldest.as_secs_f64(),
            Self::Utilization => pool.stats.busy as f64 / reading.spec.size.max(1) as f64,
        }
    }
}

/// A trigger that can be measured.
#[derive(Clone, Debug, PartialEq)]
struct Trigger {
    pool: PoolName,
    measure: Measure,
    name: String,
    target: f64,
}

impl Trigger {
    fn parse(said: &HashMap<String, String>) -> Result<Self, InvalidFields> {
        let mut bad = InvalidFields::default();
        let text = |key: &str| said.get(key).map_or("", String::as_str);
        let pool = bad.take("scalerMetadata.pool", PoolName::parse(text("pool")));
        let (label, measure) = match text("metric") {
            "" => Measure::ALL[0],
            wanted => Measure::ALL.into_iter().find(|(name, _)| *name == wanted).unwrap_or_else(|| {
                let known = Measure::ALL.map(|(name, _)| name).join(", ");
                bad.add("scalerMetadata.metric", format_args!("is {wanted:?}, it must be one of {known}"));
                Measure::ALL[0]
            }),
        };
        let target = text("value").parse().ok().filter(|value: &f64| value.is_finite() && *value > 0.0);
        if target.is_none() {
            bad.add("scalerMetadata.value", format_args!("is {:?}, it must be a number above 0", text("value")));
        }
        let (Some(pool), Some(target)) = (pool, target) else { return Err(bad) };
        bad.check()?;
        // Part of a path in the cluster's metrics API.
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let name = format!("lineshaft-{pool}-{label}").chars().map(plain).collect();
        Ok(Self { pool, measure, name, target })
    }

    fn of(reference: Option<&wire::ScaledObjectRef>) -> Result<Self, Status> {
        let said = reference.map(|reference| &reference.scaler_metadata);
        said.map_or_else(|| Self::parse(&HashMap::new()), Self::parse).map_err(refused)
    }
}

impl Scaler {
    async fn read(&self, pool: &PoolName) -> Result<PoolMetrics, Status> {
        let (metrics, _) = self.handle.pool_metrics_of(pool.clone(), false).await.map_err(refused)?;
        Ok(metrics)
    }

    /// Whatever is measured, work that runs keeps what it leans on.
    async fn active(&self, pool: &PoolName) -> Result<bool, Status> {
        Ok(Measure::Load.of(&self.read(pool).await?) > 0.0)
    }
}

#[tonic::async_trait]
impl ExternalScaler for Scaler {
    type StreamIsActiveStream = Body<wire::IsActiveResponse>;
    type StreamMetricSpecStream = Body<wire::GetMetricSpecResponse>;

    async fn is_active(
        &self,
        request: Request<wire::ScaledObjectRef>,
    ) -> Result<Response<wire::IsActiveResponse>, Status> {
        let trigger = Trigger::of(Some(request.get_ref()))?;
        let result = self.active(&trigger.pool).await?;
        Ok(Response::new(wire::IsActiveResponse { result }))
    }

    async fn stream_is_active(
        &self,
        request: Request<wire::ScaledObjectRef>,
    ) -> Result<Response<Self::StreamIsActiveStream>, Status> {
        let trigger = Trigger::of(Some(request.get_ref()))?;
        // An unknown pool is refused before the stream begins.
        self.read(&trigger.pool).await?;
        let scaler = self.clone();
        Ok(Response::new(Box::pin(async_stream::try_stream! {
            let mut ticks = Ticks::new(&scaler.handle, INTERVAL);
            let mut told = None;
            loop {
                ticks.next().await?;
                let result = scaler.active(&trigger.pool).await?;
                if told.replace(result) != Some(result) {
                    yield wire::IsActiveResponse { result };
                }
            }
        })))
    }

    async fn get_metric_spec(
        &self,
        request: Request<wire::ScaledObjectRef>,
    ) -> Result<Response<wire::GetMetricSpecResponse>, Status> {
        let trigger = Trigger::of(Some(request.get_ref()))?;
        let (target_size, target_size_float) = (whole(trigger.target), trigger.target);
        let spec = wire::MetricSpec { metric_name: trigger.name, target_size, target_size_float };
        Ok(Response::new(wire::GetMetricSpecResponse { metric_specs: vec![spec] }))
    }

    /// Newer KEDAs ask for changes of what a trigger measures, and do not ask again when there can be none.
    async fn stream_metric_spec(
        &self,
        _: Request<wire::ScaledObjectRef>,
    ) -> Result<Response<Self::StreamMetricSpecStream>, Status> {
        let message = "what a trigger measures changes with the trigger only".to_owned();
        Err(refused(EdgeError { code: ErrorCode::Unsupported, message }))
    }

    async fn get_metrics(
        &self,
        request: Request<wire::GetMetricsRequest>,
    ) -> Result<Response<wire::GetMetricsResponse>, Status> {
        let trigger = Trigger::of(request.get_ref().scaled_object_ref.as_ref())?;
        let asked = &request.get_ref().metric_name;
        if !asked.is_empty() && *asked != trigger.name {
            let other = format!("is {asked:?}, this trigger has {:?}", trigger.name);
            return Err(refused(InvalidFields::one("metricName", other)));
        }
        let reading = trigger.measure.of(&self.read(&trigger.pool).await?);
        let value =
            wire::MetricValue { metric_name: trigger.name, metric_value: whole(reading), metric_value_float: reading };
        Ok(Response::new(wire::GetMetricsResponse { metric_values: vec![value] }))
    }
}

/// Rounded up, so that a little is never nothing.
fn whole(value: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "counts, seconds and shares, far below 2^53")]
    let whole = value.ceil() as i64;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_trigger_says_pool_measure_and_target() {
        let trigger =
            Trigger::parse(&said(&[("pool", "Big_pool"), ("metric", "oldest_wait"), ("value", "2.5")])).unwrap();
        assert_eq!((trigger.pool.as_str(), trigger.measure), ("Big_pool", Measure::OldestWait));
        assert_eq!((trigger.name.as_str(), whole(trigger.target)), ("lineshaft-big-pool-oldest-wait", 3));
        let trigger = Trigger::parse(&said(&[("pool", "a"), ("value", "10"), ("scalerAddress", "x:1")])).unwrap();
        assert_eq!(trigger.measure, Measure::Load);
    }

    #[test]
    fn a_bad_trigger_is_refused_with_every_field_at_once() {
        let refused = Trigger::parse(&said(&[("pool", ""), ("metric", "mood"), ("value", "-1")])).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("scalerMetadata.pool") && text.contains("2 more"), "{text}");
        for value in ["", "0", "NaN", "inf", "many"] {
            let refused = Trigger::parse(&said(&[("pool", "a"), ("value", value)])).unwrap_err().to_string();
            assert!(refused.contains("scalerMetadata.value"), "{refused}");
        }
    }
}
