//! Submitting tasks: looks up request IDs in the store, sends the submission to the loop, and reads what the core needs to
//! decide about IDs that were used before.

use futures_util::FutureExt;
use futures_util::future::{Either, ready};

use crate::model::{MemoryPart, RequestName, Reservation, Revision, TaskSpec};
use crate::store::FoundRequests;

use super::core::{StoredIds, Submission, Submitted, Undecided, Verdict};
use super::handle::{Handle, request_bytes};
use super::message::Request;
use super::refusal::{Draining, Internal, Refusal, TaskExists};
use super::timeouts::{PROJECTION_STALL_TIMEOUT, wait_for_revision};

fn request_name(spec: &TaskSpec) -> Option<RequestName> {
    Some((spec.options.namespace.clone(), spec.extras().request.clone()?))
}

/// A submission that allows new tasks was refused for having some.
fn not_asked_for() -> Refusal {
    Internal { cause: "the scheduler refused a new task that it was asked to accept".to_owned() }.into()
}

impl Handle {
    /// Submits all of these tasks or none, and waits until they are durable. Sends the request at once if no task has a
    /// request ID. `creates_batch`: whether their batch is created if it does not exist.
    ///
    /// # Errors
    /// [`Draining`], [`TaskExists`], `RequestIdReused`, `QueueFull`, `MemoryFull`, `UnknownPool`, `BadField`,
    /// `BatchNotFound`, `BatchClosed`, `StoreUnavailable`, `ProjectionUnavailable`.
    pub fn submit_all(
        &self,
        specs: Vec<TaskSpec>,
        creates_batch: bool,
    ) -> impl Future<Output = Result<Submitted, Refusal>> + Send + 'static + use<> {
        if specs.iter().any(|spec| spec.extras().request.is_some()) {
            let handle = self.clone();
            let submitted = async move {
                let (submission, memory) = handle.look_up(specs).await?;
                handle.submit_found((Submission { creates_batch, ..submission }, memory)).await
            };
            // Boxed, so that the futures of all other submissions stay small.
            return Either::Left(submitted.boxed());
        }
        match self.reserve(MemoryPart::Requests, specs.iter().map(request_bytes).sum()) {
            Ok(memory) => Either::Right(self.submit_found((Submission { creates_batch, ..specs.into() }, memory))),
            Err(refusal) => Either::Left(ready(Err(refusal.into())).boxed()),
        }
    }

    /// Submits tasks without creating a batch.
    #[cfg(test)]
    pub fn submit(
        &self,
        specs: Vec<TaskSpec>,
    ) -> impl Future<Output = Result<Submitted, Refusal>> + Send + 'static + use<> {
        self.submit_all(specs, false)
    }

    /// Submits tasks whose request IDs were looked up. Sends the request at once.
    pub(super) fn submit_found(
        &self,
        (submission, memory): (Submission, Reservation),
    ) -> impl Future<Output = Result<Submitted, Refusal>> + Send + 'static + use<> {
        let handle = self.clone();
        let reply = self.send(Some(memory), |reply| Request::Submit { submission, reply });
        async move { handle.finish(reply.await.map_err(|_| Draining)??).await }
    }

    /// Reserves the memory of a submission, and looks up the request IDs of its tasks. Does not wait if they have none.
    ///
    /// # Errors
    /// `MemoryFull`, `StoreUnavailable`.
    pub async fn look_up(&self, specs: Vec<TaskSpec>) -> Result<(Submission, Reservation), Refusal> {
        let memory = self.reserve(MemoryPart::Requests, specs.iter().map(request_bytes).sum())?;
        Ok((self.look_up_again(specs).await?, memory))
    }

    async fn look_up_again(&self, specs: Vec<TaskSpec>) -> Result<Submission, Refusal> {
        let mut names = specs.iter().filter_map(request_name).peekable();
        if names.peek().is_none() {
            return Ok(specs.into());
        }
        let names = names.collect();
        let FoundRequests { revision, requests } =
            self.inner.request_lookup.find(&self.inner.store.projection, names).await?;
        let with_id = (0..).zip(&specs).filter(|(_, spec)| spec.extras().request.is_some());
        let found = with_id.zip(requests).filter_map(|((index, _), request)| Some((index, request?)));
        let stored = StoredIds { revision, requests: found.collect(), repeated: Vec::new() };
        Ok(Submission { stored: Some(Box::new(stored)), ..specs.into() })
    }

    /// Submits each of these tasks by itself. Sends the request at once; the future resolves to one result per
    /// task when all accepted tasks are durable.
    pub fn submit_each(
        &self,
        (submission, memory): (Submission, Reservation),
    ) -> impl Future<Output = Result<Vec<Result<Submitted, Refusal>>, Refusal>> + Send + 'static + use<> {
        let reply = self.send(Some(memory), |reply| Request::SubmitEach { submission, reply });
        let handle = self.clone();
        async move {
            let verdicts = reply.await.map_err(|_| Draining)??;
            let mut results = Vec::with_capacity(verdicts.len());
            for verdict in verdicts {
                results.push(match verdict {
                    Ok(verdict) => handle.finish(verdict).await,
                    Err(refusal) => Err(refusal),
                });
            }
            Ok(results)
        }
    }

    /// The result of a verdict. Reads what the core lacks, as often as necessary, until it decides.
    async fn finish(&self, verdict: Verdict) -> Result<Submitted, Refusal> {
        match verdict {
            Verdict::Accepted(submitted) => Ok(submitted),
            // Boxed, so that the futures of all other submissions stay small.
            Verdict::Undecided(undecided) => Box::pin(self.decide(*undecided)).await?.ok_or_else(not_asked_for),
            Verdict::NotRepeated => Err(not_asked_for()),
        }
    }

    /// Submits tasks if each of them repeats an earlier submission, so that nothing is added; `None`: one does not.
    ///
    /// # Errors
    /// Those of [`submit_all`](Self::submit_all).
    pub async fn submit_repeated(&self, specs: Vec<TaskSpec>) -> Result<Option<Submitted>, Refusal> {
        let (mut submission, memory) = self.look_up(specs).await?;
        submission.repeats_only = true;
        let reply = self.send(Some(memory), |reply| Request::Submit { submission, reply });
        match reply.await.map_err(|_| Draining)?? {
            Verdict::Accepted(submitted) => Ok(Some(submitted)),
            Verdict::NotRepeated => Ok(None),
            Verdict::Undecided(undecided) => self.decide(*undecided).await,
        }
    }

    /// `None`: the submission allows no new task, and has one.
    async fn decide(&self, mut undecided: Undecided) -> Result<Option<Submitted>, Refusal> {
        loop {
            let memory =
                self.reserve(MemoryPart::Requests, undecided.submission.specs.iter().map(request_bytes).sum())?;
            let submission = self.complete(undecided).await?;
            let reply = self.send(Some(memory), |reply| Request::Submit { submission, reply });
            match reply.await.map_err(|_| Draining)?? {
                Verdict::Accepted(submitted) => return Ok(Some(submitted)),
                Verdict::NotRepeated => return Ok(None),
                Verdict::Undecided(again) => undecided = *again,
            }
        }
    }

    async fn complete(&self, undecided: Undecided) -> Result<Submission, Refusal> {
        let Undecided { mut submission, written_to, tasks } = undecided;
        if let Some(revision) = written_to {
            wait_for_revision(&*self.inner.store.projection, revision, PROJECTION_STALL_TIMEOUT).await?;
            let repeated = submission.stored.map(|stored| stored.repeated).unwrap_or_default();
            let Submission { repeats_only, creates_batch, .. } = submission;
            submission = Submission { repeats_only, creates_batch, ..self.look_up_again(submission.specs).await? };
            submission.stored.get_or_insert_default().repeated = repeated;
        }
        for (id, revision) in tasks {
            if let Some(spec) = submission.specs.iter().find(|spec| spec.id == id)
                && self.is_repeated(spec, revision).await?
            {
                submission.stored.get_or_insert_default().repeated.push(revision);
            }
        }
        Ok(submission)
    }

    /// Whether the task repeats the one with its ID that was submitted at `revision`. False too if that was deleted
    /// meanwhile.
    ///
    /// # Errors
    /// [`TaskExists`] if the tasks differ.
    async fn is_repeated(&self, spec: &TaskSpec, revision: Revision) -> Result<bool, Refusal> {
        match self.read_task(&spec.id, true).await {
            Ok((task, _)) if task.status.submission == revision => {
                if task.spec.repeats(spec) {
                    Ok(true)
                } else {
                    Err(TaskExists { task: spec.id.clone() }.into())
                }
            }
            Ok(_) | Err(Refusal::TaskNotFound(_)) => Ok(false),
            Err(refusal) => Err(refusal),
        }
    }
}
