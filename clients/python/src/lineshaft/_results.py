"""Learns that tasks have finished and fetches their results, many with one call.

Nothing happens until someone waits for a task, or holds the handles of many. One who waits while this client has few
unfinished tasks calls WaitTask itself. Otherwise one watch reports the ends of all tasks that this client has submitted, and
one thread fetches the results of those whose handles still exist, up to 1,000 with one ListTasks. Tasks of other clients, and
those of a batch with an ID of its own, are watched by their task IDs, up to 1,000 with one watch.

An event for each end is dear when thousands finish in a second. Then the thread closes the watch of the session, opens no other
one, and asks for the oldest unfinished tasks again and again, as long as most of these calls return many results.

ListTasks waits until the projection of a busy server has caught up, GetTask does not. So a list that is not quick is given up,
and the tasks are read one by one. The server keeps a limited number of finished tasks: if results cannot be fetched as fast
as tasks finish, submissions wait, so that none is deleted before it is read.

No end is missed: a watch starts at the resume token of the oldest unfinished task or, if that would repeat too much, of a
list; then every task whose events may be older than this token is looked up after that list. A task can finish before
its handle knows its ID; such ends are kept in `_early` while a batch is under way.
"""

from __future__ import annotations

import functools
import itertools
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import grpc

from lineshaft import errors, model
from lineshaft._connection import Backoff
from lineshaft.task import ACCEPTED, DONE, Task
from lineshaft.v1 import task_pb2, task_service_pb2

if TYPE_CHECKING:
    from lineshaft.client import Client

logger = logging.getLogger("lineshaft")

PAGE = 1_000
WAIT_SECONDS = 60.0
IDLE_SECONDS = 30.0
"""The watch ends when no one has waited for a task for this time."""
EAGER_TASKS = 1_000
"""With more unfinished tasks whose handles exist, results are fetched before they are asked for: the server keeps a limited
number of finished tasks."""
DIRECT_MAX = 8
"""With at most this many unfinished tasks, a wait is a call of its own."""
BULK_TASKS = 200
"""With fewer unfinished tasks, each end is learned from an event."""
BULK_RATE = 1_000.0
"""Ends per second from which asking is cheaper than listening."""
BULK_PAUSE_SECONDS = 0.005
WATCH_SECONDS_MIN = 1.0
"""After asking did not pay, for how long to listen at least."""
RECENT_CALLS = 100
"""A watch may repeat the ends of the tasks of this many submissions."""
LIST_SECONDS = 1.0
"""A list that takes longer is given up."""
LISTS_PAUSE_SECONDS = 2.0
"""How long tasks are read one by one after that."""
READS_AT_A_TIME = 32
ROOM_TASKS = 5_000
"""With more unfinished tasks, submissions wait now and then until results are fetched as fast as tasks finish."""
BEHIND_ENDS = 200
"""With more ends whose results are to be fetched, that is not so."""
RATE_SECONDS = 0.02
SETTLE_SECONDS = 0.05
"""Time after which a new watch has reported what had ended before."""
ENDED = (task_pb2.TASK_STATE_COMPLETED, task_pb2.TASK_STATE_FAILED, task_pb2.TASK_STATE_CANCELLED)


class Results:
    """The tasks whose ends are of interest, and the threads that learn of them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._session = client._submitter.batch_id
        # Unfinished tasks by ID. A second handle of the same task keeps the first and copies its end.
        self._live: weakref.WeakValueDictionary[str, Task] = weakref.WeakValueDictionary()
        self._lock = threading.RLock()
        self._early: set[str] = set()
        self._ended: deque[str] = deque()
        self._check: deque[str] = deque()
        self._unwatched: deque[Task] = deque()
        self._wake = threading.Event()
        self._generation = 0  # of the thread; it ends when it is not the present one
        self._running = False
        self._closed = False
        self._watches: list[_Watch] = []
        self._session_watch: _Watch | None = None
        self._start_revision = 0
        self._urgent: dict[Task, int] = {}  # tasks that threads wait for, and how many
        self._behind = 0  # place in `_live` up to which all tasks were asked for
        self._recent: dict[str, int] = {}  # resume tokens of the last submissions, with their revisions
        self._uncertain: dict[str, None] = {}  # tasks that a watch from their token may miss
        self._asked = 0  # number of these requests
        self._poor = 0  # consecutive requests with few results
        self._listen_until = 0.0
        self._counted, self._counted_since = 0, 0.0
        self._lists_from = 0.0
        self._is_saturated = False  # the last request returned as many results as it could
        self._room = threading.Condition(threading.Lock())
        self._room_wanted = False
        self._seen = 0  # events
        self._rate_from, self._rate_since = 0, 0.0
        self._rounds = 0  # of the thread, after which it was not behind
        self._thread_id = 0

    # Called by those who submit and wait.

    def expect(self) -> None:
        """A submission begins. Its tasks may finish before their handles know their IDs."""
        with self._lock:
            self._early.clear()

    def accepted(self, tasks: Sequence[Task], ids: Sequence[str], revision: int, resume: str, uncertain: bool) -> None:
        """Takes over tasks that were accepted with one call. `uncertain`: some may have finished before."""
        live = self._live
        with self._lock:
            if uncertain:
                self._uncertain.update(dict.fromkeys(ids))
            else:
                self._recent[resume] = revision
                if len(self._recent) > RECENT_CALLS:
                    del self._recent[next(iter(self._recent))]
            for task, task_id in zip(tasks, ids, strict=True):
                task._id = task_id
                task._resume = resume
                self._add(task)
                if task._watched:
                    self._unwatched.append(task)
                    self._wake.set()
            if self._running and tasks[0]._session == self._session:
                if self._session_watch is None:
                    self._wake.set()
                elif uncertain or revision <= self._start_revision:
                    self._check.extend(ids)
                    self._wake.set()
                elif self._early:
                    self._ended.extend(task_id for task_id in ids if task_id in self._early and task_id in live)
                    self._wake.set()
            # Handles that no one else holds exist until this call is done.
            if len(self._live) - len(tasks) > EAGER_TASKS and not self._running and not self._closed:
                self._start()
        for task in tasks:
            task._accept()

    def known(self, task_id: str) -> Task | None:
        """The handle of an unfinished task."""
        return self._live.get(task_id)

    def _add(self, task: Task) -> None:
        other = self._live.get(task._id)
        if other is None:
            self._live[task._id] = task
        elif other is not task and task._twin is None:
            task._twin = other
            if not other._listen(DONE, functools.partial(task._copy, other)):
                task._copy(other)

    def want(self, tasks: Sequence[Task]) -> None:
        """Someone is about to wait for these tasks."""
        if self._closed:
            raise errors.ClientClosed("the client is closed")
        foreign = [task for task in tasks if task._session != self._session and not task._watched]
        if self._running and not foreign:
            return
        with self._lock:
            for task in foreign:
                task._watched = True  # if it is not accepted yet, from then on
                if task._id and task._phase != DONE:
                    self._add(task)
                    self._unwatched.append(task)
            if not self._running:
                self._start()
            self._wake.set()

    def wait_for_room(self, deadline: float) -> None:
        """Waits until results are fetched as fast as tasks finish, but not beyond the deadline."""
        if self.has_room() or threading.get_ident() == self._thread_id:
            return  # The latter in a callback that submits: this thread fetches the results that it would wait for.
        with self._room:
            rounds = self._rounds
            self._room_wanted = True
            self._wake.set()
            self._room.wait_for(
                lambda: self._rounds > rounds or not self._running, max(0.0, deadline - time.monotonic())
            )

    def has_room(self) -> bool:
        """Whether submissions need not wait."""
        return not self._running or len(self._live) + self._client._submitter.pending < ROOM_TASKS

    def _count_round(self) -> None:
        """Lets submissions go on if this thread is not behind."""
        if not self.has_room():
            now = time.monotonic()
            if now - self._rate_since < RATE_SECONDS:
                return
            rate = (self._seen - self._rate_from) / (now - self._rate_since)
            self._rate_from, self._rate_since = self._seen, now
            watch = self._session_watch
            is_new = watch is not None and now - watch.opened < SETTLE_SECONDS
            # The watch does not tell how many ends it has not reported yet; at a low rate there are few.
            if is_new or rate > BULK_RATE or self._is_saturated or len(self._ended) > BEHIND_ENDS:
                return
        with self._room:
            self._rounds += 1
            self._room_wanted = False
            self._room.notify_all()

    def _start(self) -> None:
        self._running = True
        self._generation += 1
        threading.Thread(target=self._run, args=(self._generation,), name="lineshaft-results", daemon=True).start()

    def wait(self, task: Task, timeout: float | None) -> bool:
        """Waits for the end of a task; False if the timeout expires first."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if len(self._live) + self._client._submitter.pending <= DIRECT_MAX and not self._closed:
            if not task._wait(ACCEPTED, timeout):
                return False
            if task._phase == DONE or self._wait_directly(task, deadline):
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False
        self.want([task])
        urgent = self._urgent
        with self._lock:
            urgent[task] = urgent.get(task, 0) + 1
        try:
            return task._wait(DONE, None if deadline is None else max(0.0, deadline - time.monotonic()))
        finally:
            with self._lock:
                urgent[task] -= 1
                if not urgent[task]:
                    del urgent[task]

    def _wait_directly(self, task: Task, deadline: float | None) -> bool:
        """Calls WaitTask until the task has finished; False when the deadline has passed, or tasks became many."""
        client = self._client
        task._direct = True
        try:
            while task._phase != DONE and len(self._live) <= DIRECT_MAX:
                left = WAIT_SECONDS if deadline is None else min(WAIT_SECONDS, deadline - time.monotonic())
                if left <= 0:
                    return False
                request = task_service_pb2.WaitTaskRequest(task_id=task._id, timeout=model.duration(left, "timeout"))
                answer = client._connection.call(
                    "TaskService/WaitTask", request, task_service_pb2.WaitTaskResponse, extra=left
                )
                if answer.finished:
                    with self._lock:
                        self._add(task)
                        self._finish(answer.task)
                    task._finish(answer.task)
            return task._phase == DONE
        except errors.NotFound as error:
            task._fail(errors.TaskDeleted(task._id) if task._resume else error)
            return True
        finally:
            task._direct = False

    def close(self) -> None:
        """Ends all waits with ClientClosed."""
        with self._lock:
            self._closed = True
            self._stop()
            left = list(self._live.values())
            self._live.clear()
        for task in left:
            task._fail(errors.ClientClosed("the client was closed before the task had finished"))

    def abandon(self) -> list[Task]:
        """The unfinished tasks, in a forked process: the threads that wait for them are in its parent."""
        return list(self._live.values())

    # Called by the watches.

    def seen(self, task_id: str) -> None:
        """A task has finished."""
        self._seen += 1
        task = self._live.get(task_id)
        if task is None:
            with self._lock:
                task = self._live.get(task_id)
                if task is None:
                    if self._client._submitter.sending:
                        self._early.add(task_id)
                    return
        if task._direct:
            return
        self._ended.append(task_id)
        if not self._wake.is_set():
            self._wake.set()

    def recheck(self, ids: Iterable[str]) -> None:
        """A watch cannot tell which of these tasks have finished meanwhile."""
        self._check.extend(ids)
        self._wake.set()

    def session_ids(self) -> list[str]:
        return [task_id for task_id, task in self._tasks() if task._session == self._session]

    def _tasks(self) -> list[tuple[str, Task]]:
        with self._lock:
            return list(self._live.items())

    # The thread.

    def _run(self, generation: int) -> None:
        def current() -> bool:
            return self._running and self._generation == generation

        backoff = Backoff()
        used = looked = time.monotonic()
        self._thread_id = threading.get_ident()
        while current():
            try:
                if self._ended or self._check:
                    self._step()
                elif self._session_watch is None and self._many():
                    self._ask()
                elif self._unwatched:
                    self._watch_others()
                else:
                    if self._session_watch is None:
                        self._listen()
                    self._wake.wait(BULK_PAUSE_SECONDS if self._room_wanted else IDLE_SECONDS / 3)
                    self._wake.clear()
                    self._gather()
                if self._room_wanted:
                    self._count_round()
                backoff = Backoff()
                if time.monotonic() - looked < IDLE_SECONDS / 10:
                    continue
                looked = time.monotonic()
                if self._is_used():
                    used = looked
                elif looked - used > IDLE_SECONDS:
                    with self._lock:
                        if current() and not self._is_used():
                            self._stop()
            except errors.ClientClosed:
                return
            except errors.ServerError as error:
                if not self._failed(error, backoff, current):
                    return
            except Exception:
                logger.exception("cannot fetch results")
                time.sleep(1.0)

    def _failed(self, error: errors.ServerError, backoff: Backoff, current: Callable[[], bool]) -> bool:
        """Waits before the next try. False if a retry would fail again: then all waits end with the error."""
        pause = backoff.pause(error)
        if not current():
            return False
        if pause is None:
            with self._lock:
                self._stop()
                left = [task for _, task in self._tasks() if task._listeners]
                for task in left:
                    self._live.pop(task._id, None)
            for task in left:
                task._fail(error)
            return False
        self._client._connection.warn(error)
        time.sleep(pause)
        return True

    def _is_used(self) -> bool:
        """Whether someone waits for a task."""
        if self._urgent or self._client._submitter.pending or len(self._live) > EAGER_TASKS:
            return True
        return any(task._listeners for _, task in self._tasks())

    def _stop(self) -> None:
        self._running = False
        self._is_saturated = False
        with self._room:
            self._room.notify_all()
        for watch in self._watches:
            watch.end()
        self._watches.clear()
        self._session_watch = None
        self._early.clear()
        self._ended.clear()
        self._check.clear()
        self._unwatched.clear()
        for _, task in self._tasks():
            task._watched = False
        self._wake.set()

    def _listen(self) -> None:
        """Opens the watch of the session."""
        with self._lock:
            token = next((task._resume for task in self._live.values() if task._session == self._session), "")
            if token not in self._recent:
                token = ""
            watch = _Watch(self, task_pb2.TaskFilter(batch_id=self._session), None, token)
            self._watches = [one for one in self._watches if not one.over]
            self._watches.append(watch)
            # Until a watch without a token knows its start, every new task is looked up.
            self._start_revision = 0 if token else 1 << 64
            self._uncertain = {task_id: None for task_id in self._uncertain if task_id in self._live}
            self._check.extend(self._uncertain)
            self._session_watch = watch
        self._counted, self._counted_since = 0, time.monotonic()
        watch.start()

    def _many(self) -> bool:
        """Whether asking may pay."""
        return len(self._live) > BULK_TASKS and time.monotonic() >= self._listen_until

    def _gather(self) -> None:
        """Lets ends gather for a few milliseconds if many are to come, and stops listening if that has become dear."""
        live = len(self._live)
        if live > BULK_TASKS // 4 and len(self._ended) < PAGE // 4:
            time.sleep(min(BULK_PAUSE_SECONDS, live * 2e-5))
        now = time.monotonic()
        self._counted += len(self._ended)
        if now - self._counted_since > 0.05:
            rate = self._counted / (now - self._counted_since)
            self._counted, self._counted_since = 0, now
            watch = self._session_watch
            self._is_saturated = False
            if rate > BULK_RATE and self._many() and watch is not None:
                with self._lock:
                    self._session_watch = None
                    self._early.clear()
                watch.end()

    def _ask(self) -> None:
        """Asks for the oldest unfinished tasks, for those that threads wait for, and for a part of the others in turn."""
        with self._lock:
            urgent = [task._id for task in list(self._urgent)[: PAGE // 4]]
            oldest = list(itertools.islice(self._live.keys(), PAGE * 5 // 8))
            others: list[str] = []
            self._asked += 1
            # To find the place costs time in proportion to the tasks before it.
            if self._asked % (1 + len(self._live) // 20_000) == 0:
                self._behind = max(self._behind, len(oldest))
                others = list(itertools.islice(self._live.keys(), self._behind, self._behind + PAGE // 8))
                self._behind = self._behind + len(others) if others else 0
        ids = [task_id for task_id in dict.fromkeys((*urgent, *oldest, *others)) if task_id in self._live]
        begin = time.monotonic()
        count = 0
        tasks, is_complete = self._list(ids, ENDED)
        for task in tasks:
            self._finish(task)
            count += 1
        while self._unwatched and self._unwatched[0]._phase == DONE:
            self._unwatched.popleft()
        self._behind = max(0, self._behind - count)
        self._poor = self._poor + 1 if count < BULK_RATE * BULK_PAUSE_SECONDS else 0
        self._is_saturated = not is_complete or count > len(oldest) * 0.8
        if self._poor >= 4 or not is_complete:
            self._poor = 0
            pause = WATCH_SECONDS_MIN if is_complete else LISTS_PAUSE_SECONDS
            self._listen_until = time.monotonic() + pause
            self._is_saturated = not is_complete
        elif count < len(oldest) // 2:
            time.sleep(max(0.0, BULK_PAUSE_SECONDS - (time.monotonic() - begin)))

    def _step(self) -> None:
        """Fetches the next results."""
        if self._ended:
            self._fetch(_take(self._ended, PAGE), ended=True)
        else:
            self._fetch(_take(self._check, PAGE), ended=False)

    def _watch_others(self) -> None:
        """Starts a watch for tasks that are not part of the session, with all that may be waited for next."""
        with self._lock:
            group = dict.fromkeys(task._id for task in _take(self._unwatched, PAGE))
            for task_id, task in self._tasks():
                if len(group) < PAGE and task._session != self._session and not task._watched:
                    task._watched = True
                    group[task_id] = None
            ids = [task_id for task_id in group if task_id in self._live]
            if not ids:
                return
            handles = [handle for task_id in ids if (handle := self._live.get(task_id)) is not None]
            tokens = {handle._resume for handle in handles}
            token = min(tokens, key=self._recent.__getitem__) if tokens and tokens <= self._recent.keys() else ""
            watch = _Watch(self, task_pb2.TaskFilter(task_ids=ids), set(ids), token)
            self._watches = [one for one in self._watches if not one.over]
            self._watches.append(watch)
        watch.start()

    def _fetch(self, ids: list[str], ended: bool) -> None:
        """Reads tasks and finishes their handles. `ended`: a missing one was deleted after its end."""
        live = self._live
        ids = [task_id for task_id in dict.fromkeys(ids) if task_id in live]
        if not ids:
            return
        missing = dict.fromkeys(ids)
        try:
            is_complete = False
            if time.monotonic() >= self._lists_from:
                tasks, is_complete = self._list(ids)
                for task in tasks:
                    missing.pop(task.task_id, None)
                    if task.state in ENDED:
                        self._finish(task)
            if not is_complete:
                self._read_one_by_one(missing)
        except BaseException:
            (self._ended if ended else self._check).extendleft(missing)
            raise
        for task_id in missing:
            handle = live.pop(task_id, None)
            if handle is not None:
                handle._fail(errors.TaskDeleted(task_id))

    def _read_one_by_one(self, ids: dict[str, None]) -> None:
        """Reads tasks with a call for each, many at a time, and removes those that it finds."""
        connection = self._client._connection
        get = connection.future("TaskService/GetTask", task_service_pb2.GetTaskResponse)
        calls: deque[tuple[str, Any]] = deque()
        left = iter(list(ids))
        while True:
            for task_id in itertools.islice(left, READS_AT_A_TIME - len(calls)):
                request = task_service_pb2.GetTaskRequest(task_id=task_id).SerializeToString()
                call = get(request, timeout=self._client.timeout, metadata=connection.metadata())
                calls.append((task_id, call))
            if not calls:
                return
            task_id, call = calls.popleft()
            try:
                task = call.result().task
            except grpc.RpcError as error:
                met = errors.from_rpc_error(error)
                if not isinstance(met, errors.NotFound):
                    raise met from None
            else:
                del ids[task_id]
                if task.state in ENDED:
                    self._finish(task)

    def _finish(self, task: task_pb2.Task) -> None:
        handle = self._live.pop(task.task_id, None)
        if handle is not None:
            handle._finish(task)

    def _list(self, ids: Sequence[str], states: Sequence[task_pb2.TaskState] = ()) -> tuple[list[task_pb2.Task], bool]:
        """Tasks with their results, and whether these are all; not, if the server has not answered quickly."""
        request = task_service_pb2.ListTasksRequest(
            filter=task_pb2.TaskFilter(task_ids=ids, states=states), page_size=PAGE, include_results=True
        )
        connection = self._client._connection
        send = connection.future("TaskService/ListTasks", task_service_pb2.ListTasksResponse)
        tasks: list[task_pb2.Task] = []
        while True:
            data = request.SerializeToString()
            call = send(data, timeout=self._client.timeout, metadata=connection.metadata())
            try:
                page = call.result(timeout=LIST_SECONDS)
            except grpc.FutureTimeoutError:
                call.cancel()
                self._lists_from = time.monotonic() + LISTS_PAUSE_SECONDS
                return tasks, False
            except grpc.RpcError as error:
                raise errors.from_rpc_error(error) from None
            tasks += page.tasks
            if not page.next_page_token:
                return tasks, True
            request.page_token = page.next_page_token

    def start_of_watch(self, wanted: task_pb2.TaskFilter) -> str:
        """The token of a watch from now on."""
        request = task_service_pb2.ListTasksRequest(filter=wanted, page_size=1)
        response = self._client._connection.call("TaskService/ListTasks", request, task_service_pb2.ListTasksResponse)
        if wanted.batch_id == self._session:
            with self._lock:
                self._start_revision = response.revision
        return response.resume_token


def _take(queue: deque[Any], limit: int) -> list[Any]:
    return [queue.popleft() for _ in range(min(limit, len(queue)))]


class _Watch(threading.Thread):
    """Reports the ends of the tasks of a filter, over any number of broken connections.

    `ids`: the tasks of the filter, if it names tasks; the watch ends with the last of them. None: the session, it goes on.
    """

    def __init__(self, results: Results, wanted: task_pb2.TaskFilter, ids: set[str] | None, token: str) -> None:
        super().__init__(name="lineshaft-watch", daemon=True)
        self.over = False
        self._results = results
        self._wanted = wanted
        self._ids = ids
        self._token = token
        self._call: Any = None
        self.opened = float("inf")
        """When the stream was opened the last time; in the future if it was not."""

    def end(self) -> None:
        self.over = True
        call = self._call
        if call is not None:
            call.cancel()

    def run(self) -> None:
        token = self._token
        backoff = Backoff()
        connection = self._results._client._connection
        while not self.over:
            forks = connection.forks
            try:
                if not token:
                    # In this order: what finishes after the list is in the watch, what finished before is looked up.
                    token = self._results.start_of_watch(self._wanted)
                    self._results.recheck(self._results.session_ids() if self._ids is None else list(self._ids))
                for message in self._open(token):
                    backoff = Backoff()
                    token = self._take(message) or token
                    if self.over:
                        return
            except (errors.LineshaftError, grpc.RpcError, ValueError) as error:
                if self.over or not isinstance(error, (errors.ServerError, grpc.RpcError)):
                    return  # ClientClosed; ValueError from a channel that was closed during the call
                met = error if isinstance(error, errors.ServerError) else errors.from_rpc_error(error)
                if connection.was_forked(met, forks):
                    continue
                if met.code in (grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.INVALID_ARGUMENT):
                    token = ""
                pause = backoff.pause(met)
                if pause is None:
                    # The look-up meets the same error and passes it on to those who wait.
                    self._results.recheck(self._results.session_ids() if self._ids is None else list(self._ids))
                    pause = 2.0
                time.sleep(pause)

    def _open(self, token: str) -> Iterable[task_service_pb2.WatchTasksResponse]:
        wanted = task_pb2.TaskFilter(states=ENDED)
        wanted.MergeFrom(self._wanted)
        request = task_service_pb2.WatchTasksRequest(filter=wanted, resume_token=token)
        connection = self._results._client._connection
        opened = connection.server_stream("TaskService/WatchTasks", task_service_pb2.WatchTasksResponse)
        self._call = opened(request.SerializeToString(), metadata=connection.metadata())
        self.opened = time.monotonic()
        if self.over:
            self._call.cancel()
        return self._call  # type: ignore[no-any-return]

    def _take(self, message: task_service_pb2.WatchTasksResponse) -> str:
        kind = message.WhichOneof("kind")
        if kind == "event":
            event = message.event
            self._results.seen(event.task_id)
            if self._ids is not None:
                self._ids.discard(event.task_id)
                if not self._ids:
                    self.end()
            return event.resume_token
        return message.progress.resume_token if kind == "progress" else ""
