//! PoolService: inspect and change pools, stream their metrics.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use crate::api::auth::{CallerExtractor, audit};
use crate::api::convert::time::parse_timestamp;
use crate::api::convert::worker_page::WorkerPage;
use crate::api::convert::{InvalidFields, pool, system};
use crate::api::middleware::response_memory::ResponseMemory;
use crate::api::status::into_status;
use crate::model::{PoolName, Timestamp, limits};
use crate::proto::v1::{self, pool_service_server::PoolService};
use crate::scheduler::{Handle, PoolMetrics, UnknownPool};
use crate::telemetry::host::HostReading;
use crate::telemetry::metrics::ServerGauges;

use super::decisions;
use super::interval::Ticker;
use super::pool_history::PoolHistory;

const INTERVAL_DEFAULT: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Pools {
    handle: Handle,
    host: HostReading,
    gauges: Arc<ServerGauges>,
    history: PoolHistory,
    callers: CallerExtractor,
}

impl Pools {
    pub fn new(
        handle: Handle,
        host: HostReading,
        gauges: Arc<ServerGauges>,
        history: PoolHistory,
        callers: CallerExtractor,
    ) -> Self {
        Self { handle, host, gauges, history, callers }
    }

    fn metrics_messages(
        self,
        names: Vec<PoolName>,
        interval: Duration,
        workers: bool,
    ) -> impl Stream<Item = Result<v1::StreamPoolMetricsResponse, Status>> {
        async_stream::try_stream! {
            let mut ticker = Ticker::new(&self.handle, interval);
            let mut previous = HashMap::new();
            loop {
                ticker.tick().await?;
                let (metrics, revision) = self.handle.pool_metrics(names.clone(), workers).await.map_err(into_status)?;
                let pools = metrics.into_iter().map(|now| {
                    let name = now.snapshot.spec.name.clone();
                    let counts = Counts::of(&now);
                    let (submit_rate, finish_rate) = counts.rates_since(previous.get(&name));
                    previous.insert(name, counts);
                    v1::PoolMetrics { submit_rate, finish_rate, ..pool::metrics(now) }
                });
                yield v1::StreamPoolMetricsResponse {
                    pools: pools.collect(),
                    system: Some(system::health(&(self.host)())),
                    revision: revision.0,
                    commit_time: Some(pool::percentiles(&self.gauges.commit_times.read())),
                };
            }
        }
    }

    async fn metrics(&self, name: PoolName, workers: bool) -> Result<(v1::PoolMetrics, u64), Status> {
        let (metrics, revision) = self.handle.pool_metrics_of(name, workers).await.map_err(into_status)?;
        Ok((pool::metrics(metrics), revision.0))
    }
}

#[tonic::async_trait]
impl PoolService for Pools {
    type StreamPoolMetricsStream = BoxStream<v1::StreamPoolMetricsResponse>;

    async fn list_pools(
        &self,
        _request: Request<v1::ListPoolsRequest>,
    ) -> Result<Response<v1::ListPoolsResponse>, Status> {
        let (mut pools, revision) = self.handle.pools().await.map_err(into_status)?;
        pools.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        let pools = pools.into_iter().map(pool::pool).collect();
        Ok(Response::new(v1::ListPoolsResponse { pools, revision: revision.0 }))
    }

    async fn get_pool(&self, request: Request<v1::GetPoolRequest>) -> Result<Response<v1::GetPoolResponse>, Status> {
        let name = pool_name("name", &request.into_inner().name)?;
        let (pools, revision) = self.handle.pools().await.map_err(into_status)?;
        let found = pools.into_iter().find(|view| view.spec.name == name);
        let found = found.ok_or_else(|| into_status(UnknownPool { pool: name }))?;
        Ok(Response::new(v1::GetPoolResponse { pool: Some(pool::pool(found)), revision: revision.0 }))
    }

    async fn update_pool(
        &self,
        request: Request<v1::UpdatePoolRequest>,
    ) -> Result<Response<v1::UpdatePoolResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let request = request.into_inner();
        let name = audit::name(&request.name);
        let updated = match pool::update(request) {
            Ok(update) => self.handle.update_pool(update).await.map_err(into_status),
            Err(fields) => Err(into_status(fields)),
        };
        audit::record(&caller, "UpdatePool", name, &updated);
        let (view, revision) = updated?;
        Ok(Response::new(v1::UpdatePoolResponse { pool: Some(pool::pool(view)), revision: revision.0 }))
    }

    async fn get_pool_metrics(
        &self,
        request: Request<v1::GetPoolMetricsRequest>,
    ) -> Result<Response<v1::GetPoolMetricsResponse>, Status> {
        let request = request.into_inner();
        let name = pool_name("name", &request.name)?;
        let (metrics, revision) = self.metrics(name, request.include_workers).await?;
        Ok(Response::new(v1::GetPoolMetricsResponse { metrics: Some(metrics), revision }))
    }

    async fn stream_pool_metrics(
        &self,
        request: Request<v1::StreamPoolMetricsRequest>,
    ) -> Result<Response<Self::StreamPoolMetricsStream>, Status> {
        let caller = self.callers.extract(&request)?;
        let request = request.into_inner();
        let mut invalid = InvalidFields::default();
        invalid.check_length("pools", request.pools.len(), limits::FILTER_VALUES_MAX, "values");
        let bounds = limits::INTERVAL_MIN..=limits::INTERVAL_MAX;
        let interval = invalid.duration("interval", request.interval.as_ref(), bounds).unwrap_or(INTERVAL_DEFAULT);
        let mut names = Vec::new();
        for (index, name) in request.pools.iter().enumerate().take(limits::FILTER_VALUES_MAX) {
            names.extend(invalid.parsed(format_args!("pools[{index}]"), PoolName::parse(name)));
        }
        invalid.check().map_err(into_status)?;
        // Checks that the pools exist before the stream starts.
        self.handle.pool_metrics(names.clone(), false).await.map_err(into_status)?;
        let messages = self.clone().metrics_messages(names, interval, request.include_workers);
        Ok(ResponseMemory::Stream(caller.share_name()).attach_to(Box::pin(messages)))
    }

    async fn get_pool_history(
        &self,
        request: Request<v1::GetPoolHistoryRequest>,
    ) -> Result<Response<v1::GetPoolHistoryResponse>, Status> {
        let v1::GetPoolHistoryRequest { pool, after } = request.into_inner();
        let mut invalid = InvalidFields::default();
        let after = after.map(|after| parse_timestamp(&after));
        if after == Some(None) {
            invalid.add("after", "must be a time since 1970");
        }
        let name = invalid.optional("pool", &pool, PoolName::parse);
        invalid.check().map_err(into_status)?;
        if let Some(pool) = name.as_ref().filter(|name| !self.handle.catalog().pools.contains_key(*name)) {
            return Err(into_status(UnknownPool { pool: pool.clone() }));
        }
        Ok(Response::new(self.history.read(name.as_ref(), after.flatten())))
    }

    async fn list_workers(
        &self,
        request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        let request = request.into_inner();
        let name = pool_name("pool", &request.pool)?;
        let page = WorkerPage::parse(&request).map_err(into_status)?;
        let (metrics, revision) = self.metrics(name, true).await?;
        let (workers, next_page_token) = page.of(metrics.workers);
        Ok(Response::new(v1::ListWorkersResponse { workers, revision, next_page_token }))
    }

    async fn list_decisions(
        &self,
        request: Request<v1::ListDecisionsRequest>,
    ) -> Result<Response<v1::ListDecisionsResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let memory =
            self.handle.reserve_response(&caller.share_name(), decisions::BYTES_MAX).await.map_err(into_status)?;
        let response = decisions::list(&self.handle, request.into_inner(), &caller).await?;
        Ok(ResponseMemory::reserved(memory).attach_to(response))
    }

    async fn reset_pool_counters(
        &self,
        request: Request<v1::ResetPoolCountersRequest>,
    ) -> Result<Response<v1::ResetPoolCountersResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let name = pool_name("name", &request.into_inner().name)?;
        let result = self.handle.reset_counters(name.clone()).await.map_err(into_status);
        audit::record(&caller, "ResetPoolCounters", &name, &result);
        let revision = result?;
        Ok(Response::new(v1::ResetPoolCountersResponse { revision: revision.0 }))
    }
}

/// Counter values at a time.
struct Counts {
    at: Timestamp,
    submitted: u64,
    finished: u64,
}

impl Counts {
    fn of(metrics: &PoolMetrics) -> Self {
        let counters = &metrics.snapshot.counters;
        let finished = counters.completed + counters.failed + counters.cancelled;
        Self { at: metrics.at, submitted: counters.submitted, finished }
    }

    /// Returns submitted and finished tasks per second; 0 without previous counts.
    fn rates_since(&self, previous: Option<&Self>) -> (f64, f64) {
        let Some(previous) = previous else { return (0.0, 0.0) };
        let seconds = self.at.since(previous.at).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "counts of one interval")]
        let rate = |from: u64, to: u64| if seconds > 0.0 { to.saturating_sub(from) as f64 / seconds } else { 0.0 };
        (rate(previous.submitted, self.submitted), rate(previous.finished, self.finished))
    }
}

fn pool_name(field: &str, text: &str) -> Result<PoolName, Status> {
    PoolName::parse(text).map_err(|error| into_status(InvalidFields::one(field, error)))
}
