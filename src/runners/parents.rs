//! The results of the parents of a task, for its attempts.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{Stream, stream};

use super::result_memory::ResultMemory;
use super::stop::{StopCause, StopSignal};
use crate::model::limits::{INLINE_BYTES_MAX, PARENT_RESULTS_BYTES_MAX};
use crate::model::{Dependencies, Failure, FailureReason, Payload, Reservation, TaskId};

/// Reads the result of a parent, if it has at most so many bytes. The error is a message for people.
pub type ParentSource = Arc<dyn Fn(TaskId, usize) -> BoxFuture<'static, Result<ParentRead, String>> + Send + Sync>;

/// What was read about a parent.
#[derive(Debug)]
pub enum ParentRead {
    /// `None` if it has not completed.
    Result(Option<Payload>),
    /// Its result has more bytes than were asked for.
    Larger,
}

/// Why an attempt does not get the results.
#[derive(Debug)]
pub enum NoResults {
    /// It was asked to stop.
    Stopped,
    Failed(Failure),
}

impl From<Failure> for NoResults {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// The parents of a task, whose results are read when the runner asks for them.
#[derive(Clone)]
pub struct Parents {
    dependencies: Arc<Dependencies>,
    source: ParentSource,
}

impl Parents {
    pub fn new(dependencies: Arc<Dependencies>, source: ParentSource) -> Self {
        Self { dependencies, source }
    }

    /// Calls `visit` with the result of each parent, in their order; `None` for one that has not completed.
    ///
    /// Returns the memory of the results, which is counted from their second mebibyte on: all that they may have is reserved at
    /// once, since attempts that have a part of their results and wait for memory for the rest could wait for each other.
    pub async fn read(
        &self,
        memory: &ResultMemory,
        stop: &StopSignal,
        mut visit: impl FnMut(Option<Payload>) -> Result<(), Failure>,
    ) -> Result<Option<Reservation>, NoResults> {
        let limit = PARENT_RESULTS_BYTES_MAX.max(memory.limit().0);
        let (mut used, mut reserved) = (0, None);
        for parent in &self.dependencies.parents {
            let result = loop {
                let most = if reserved.is_some() { limit } else { INLINE_BYTES_MAX };
                match unless_stopped(stop, (self.source)(parent.id.clone(), most - used)).await? {
                    Ok(ParentRead::Result(result)) => break result,
                    Ok(ParentRead::Larger) if reserved.is_some() => return Err(too_large(limit).into()),
                    Ok(ParentRead::Larger) => {
                        reserved = Some(unless_stopped(stop, memory.wait_for(limit)).await?);
                    }
                    Err(error) => return Err(unreadable(&parent.id, &error).into()),
                }
            };
            used += result.as_ref().map_or(0, |result| result.data.len());
            visit(result)?;
        }
        if let Some(reserved) = &mut reserved {
            reserved.shrink(used as u64);
        }
        Ok(reserved)
    }

    /// The IDs of the parents and their results, as in [`Parents::read`]. Each is read when it is polled for.
    pub fn stream(self) -> impl Stream<Item = Result<(TaskId, Option<Payload>), Failure>> + Send + 'static {
        stream::unfold((self, 0), |(parents, place)| async move {
            let id = parents.dependencies.parents.get(place)?.id.clone();
            let read = match (parents.source)(id.clone(), usize::MAX).await {
                Ok(ParentRead::Result(result)) => Ok((id, result)),
                Ok(ParentRead::Larger) => Err(too_large(usize::MAX)),
                Err(error) => Err(unreadable(&id, &error)),
            };
            Some((read, (parents, place + 1)))
        })
    }
}

/// Reading may take as long as the store is unavailable, and memory may be scarce; a stop does not wait for them.
async fn unless_stopped<T>(stop: &StopSignal, future: impl Future<Output = T>) -> Result<T, NoResults> {
    tokio::select! {
        biased;
        _ = stop.wait(StopCause::Timeout) => Err(NoResults::Stopped),
        output = future => Ok(output),
    }
}

fn too_large(limit: usize) -> Failure {
    let text = format!("the results of the parents have more than {limit} bytes, which is the limit");
    Failure::new(FailureReason::InvalidPayload, text)
}

fn unreadable(parent: &TaskId, error: &str) -> Failure {
    Failure::new(FailureReason::HandlerError, format!("the result of the parent `{parent}` cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;
    use crate::model::limits::PayloadLimit;
    use crate::model::{MemoryAccount, MemoryPart, OnParentFailure, Parent};

    const MIB: usize = 1 << 20;

    /// Parents with these results, as text.
    fn parents(results: Vec<Option<Vec<u8>>>) -> Parents {
        let ids = (0..results.len()).map(|place| TaskId::parse(&format!("p{place}")).unwrap());
        let all: Vec<(TaskId, Option<Vec<u8>>)> = ids.zip(results).collect();
        let parents = all.iter().map(|(id, _)| Parent { id: id.clone(), place: None }).collect();
        let dependencies = Dependencies { parents, on_parent_failure: OnParentFailure::Run };
        let source: ParentSource = Arc::new(move |id, bytes_max| {
            let (_, result) = all.iter().find(|(known, _)| *known == id).unwrap();
            let payload = |data: &Vec<u8>| Payload { data: data.clone().into(), content_type: "text/plain".into() };
            let read = match result {
                Some(data) if data.len() > bytes_max => ParentRead::Larger,
                result => ParentRead::Result(result.as_ref().map(payload)),
            };
            async { Ok(read) }.boxed()
        });
        Parents::new(Arc::new(dependencies), source)
    }

    fn memory(bytes: usize) -> (MemoryAccount, ResultMemory) {
        let account = MemoryAccount::new(|_| bytes as u64);
        (account.clone(), ResultMemory::new(account).with_limit(PayloadLimit(MIB)))
    }

    async fn sizes(
        parents: &Parents,
        memory: &ResultMemory,
    ) -> (Vec<Option<usize>>, Result<Option<Reservation>, NoResults>) {
        let (mut sizes, stop) = (Vec::new(), StopSignal::default());
        let visit = |result: Option<Payload>| {
            sizes.push(result.map(|result| result.data.len()));
            Ok(())
        };
        let read = parents.read(memory, &stop, visit).await;
        (sizes, read)
    }

    #[tokio::test]
    async fn results_come_in_order_and_large_ones_are_counted() {
        let (account, memory) = memory(64 * MIB);
        let small = parents(vec![Some(vec![0; MIB]), None, Some(Vec::new())]);
        let (found, reserved) = sizes(&small, &memory).await;
        assert_eq!(found, [Some(MIB), None, Some(0)]);
        assert!(reserved.unwrap().is_none(), "the first mebibyte is not counted");
        let large = parents(vec![Some(vec![0; MIB]), Some(vec![0; 1])]);
        let (found, reserved) = sizes(&large, &memory).await;
        assert_eq!(found, [Some(MIB), Some(1)]);
        assert_eq!(account.used(MemoryPart::Requests), MIB as u64 + 1);
        drop(reserved);
        assert_eq!(account.used(MemoryPart::Requests), 0);
        let ids: Vec<String> = large.stream().map(|read| read.unwrap().0.to_string()).collect().await;
        assert_eq!(ids, ["p0", "p1"]);
    }

    #[tokio::test]
    async fn results_beyond_the_limit_fail_with_it() {
        let (account, memory) = memory(64 * MIB);
        let (found, read) = sizes(&parents(vec![Some(vec![0; MIB]); 17]), &memory).await;
        assert_eq!(found.len(), 16);
        let Err(NoResults::Failed(failure)) = read else { panic!("{read:?}") };
        assert_eq!(failure.message, "the results of the parents have more than 16777216 bytes, which is the limit");
        assert_eq!((failure.reason, account.used(MemoryPart::Requests)), (FailureReason::InvalidPayload, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_the_wait_for_memory() {
        let (_, memory) = memory(MIB);
        let stop = StopSignal::default();
        let all = parents(vec![Some(vec![0; MIB + 1])]);
        let mut read = Box::pin(all.read(&memory, &stop, |_| Ok(())));
        assert!((&mut read).now_or_never().is_none(), "there is no memory");
        stop.request(StopCause::Cancel, std::time::Duration::ZERO);
        assert!(matches!(read.await, Err(NoResults::Stopped)));
    }
}
