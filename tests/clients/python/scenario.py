"""What a Python client must be able to do; run by tests/clients/run.sh."""

import collections
import concurrent.futures
import json
import os
import pathlib
import socket
import threading
import time

import grpc
from channel import SERVICE_CONFIG, connect
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from lineshaft.v1 import pool_service_pb2 as p, pool_service_pb2_grpc as pool_rpc
from lineshaft.v1 import system_service_pb2 as y, system_service_pb2_grpc as system_rpc
from lineshaft.v1 import task_pb2 as t, task_service_pb2 as s, task_service_pb2_grpc as rpc
from watch import watch

ENDED = (t.TASK_STATE_COMPLETED, t.TASK_STATE_FAILED, t.TASK_STATE_CANCELLED)


def payload(value):
    return t.Payload(data=json.dumps(value).encode(), content_type="application/json")


def io(seconds, **more):
    return s.SubmitTaskRequest(handler="io", payload=payload(seconds), **more)


def control(word):
    """Asks the harness to break a connection or the server; returns when this is done."""
    host, port = os.environ["LINESHAFT_CONTROL"].rsplit(":", 1)
    with socket.create_connection((host, int(port))) as end, end.makefile("rw") as lines:
        lines.write(word + "\n")
        lines.flush()
        assert lines.readline() == "done\n"


def refusal(error):
    """The details of an error, by the name of their type."""
    details = {}
    for detail in rpc_status.from_call(error).details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.ResourceInfo):
            message = kind()
            if detail.Unpack(message):
                details[kind.__name__] = message
    return details


def refused(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call should have been refused")


def submit(tasks, _):
    request = s.SubmitTaskRequest(
        handler="compute", payload=payload(100), request_id="python-submit", priority=t.PRIORITY_HIGH,
        labels={"from": "python"})
    first = tasks.SubmitTask(request, timeout=10)
    assert first.task_id and not first.duplicate and first.durability == t.DURABILITY_FSYNC, first
    done = tasks.WaitTask(s.WaitTaskRequest(task_id=first.task_id), timeout=40)
    assert done.finished and done.task.state == t.TASK_STATE_COMPLETED, done
    assert json.loads(done.task.result.data)["value"] == 4950, done
    again = tasks.SubmitTask(request, timeout=10)
    assert again.duplicate and again.task_id == first.task_id, again
    task = tasks.GetTask(s.GetTaskRequest(task_id=first.task_id, include_payload=True), timeout=10).task
    assert task.payload.data == b"100" and task.labels == {"from": "python"}, task
    assert task.priority == t.PRIORITY_HIGH and task.finished_at.ToDatetime() >= task.submitted_at.ToDatetime()


def batch(tasks, _):
    accepted = tasks.BatchSubmitTasks(s.BatchSubmitTasksRequest(tasks=[io(0) for _ in range(20)]), timeout=10)
    assert len(set(accepted.task_ids)) == 20, accepted
    listed, token = [], ""
    while True:
        page = tasks.ListTasks(
            s.ListTasksRequest(filter=t.TaskFilter(batch_id=accepted.batch_id), page_size=7, page_token=token),
            timeout=10)
        listed += [task.task_id for task in page.tasks]
        token = page.next_page_token
        if not token:
            break
    assert listed == list(reversed(accepted.task_ids)), (listed, accepted.task_ids)


def stream(tasks, _):
    def requests():
        for sequence in range(50):
            task = io(0) if sequence != 7 else s.SubmitTaskRequest(handler="io", labels={"": "x"})
            yield s.SubmitTasksRequest(sequence=sequence, task=task)

    responses = {response.sequence: response for response in tasks.SubmitTasks(requests(), timeout=20)}
    assert sorted(responses) == list(range(50)), sorted(responses)
    rejected = responses.pop(7).rejected
    assert rejected.reason == "INVALID_FIELD" and rejected.field == 'task.labels[""]', rejected
    assert rejected.code == grpc.StatusCode.INVALID_ARGUMENT.value[0], rejected
    assert all(response.accepted.task_id for response in responses.values()), responses


def run(tasks, _):
    task = io(1, request_id="python-run")
    steps = tasks.RunTask(s.RunTaskRequest(task=task), timeout=20)
    first = next(steps).accepted
    control("cut")
    assert refused(lambda: list(steps)).code() == grpc.StatusCode.UNAVAILABLE
    # A second call with the same request id follows the same task.
    again = list(tasks.RunTask(s.RunTaskRequest(task=task), timeout=20, wait_for_ready=True))
    assert again[0].accepted.duplicate and again[0].accepted.task_id == first.task_id, again
    assert again[-1].task.state == t.TASK_STATE_COMPLETED and again[-1].task.attempt == 1, again


def resumed_watch(tasks, _):
    accepted = tasks.BatchSubmitTasks(
        s.BatchSubmitTasksRequest(tasks=[io(0.05) for _ in range(40)]), timeout=10)
    wanted = t.TaskFilter(batch_id=accepted.batch_id)
    seen, states = [], {}
    for event in watch(tasks, wanted, accepted.resume_token):
        assert event.previous_state == states.get(event.task_id, t.TASK_STATE_UNSPECIFIED), event
        states[event.task_id] = event.state
        seen.append((event.revision, event.task_id, event.state))
        if len(seen) == 15:
            control("cut")
        if len(seen) == 60:
            control("crash")
        if len(states) == 40 and all(state == t.TASK_STATE_COMPLETED for state in states.values()):
            break
    assert all(one[0] < next[0] for one, next in zip(seen, seen[1:])), "revisions rise"
    replayed = []
    for event in watch(tasks, wanted, accepted.resume_token):
        replayed.append((event.revision, event.task_id, event.state))
        if event.revision == seen[-1][0]:
            break
    assert seen == replayed, "events were lost or repeated"


def cancel(tasks, _):
    accepted = tasks.SubmitTask(io(60, request_id="python-cancel"), timeout=10)
    for event in watch(tasks, t.TaskFilter(task_ids=[accepted.task_id]), accepted.resume_token):
        if event.state == t.TASK_STATE_RUNNING and not event.HasField("cancel"):
            response = tasks.CancelTask(
                s.CancelTaskRequest(task_id=accepted.task_id, reason="not needed any more"), timeout=10)
            assert response.state == t.TASK_STATE_RUNNING, response
        if event.state in ENDED:
            break
    assert event.state == t.TASK_STATE_CANCELLED, event
    assert event.cancel.reason == "not needed any more" and event.cancel.HasField("stopped_at"), event
    assert event.cancel.method == t.STOP_METHOD_TOKEN, event


def errors(tasks, _):
    error = refused(tasks.SubmitTask, s.SubmitTaskRequest(handler="nosuch"), timeout=10)
    assert error.code() == grpc.StatusCode.NOT_FOUND, error
    details = refusal(error)
    assert details["ErrorInfo"].reason == "UNKNOWN_HANDLER", details
    assert details["ErrorInfo"].domain == "lineshaft.dev", details
    assert details["ErrorInfo"].metadata["handler"] == "nosuch", details
    assert details["ResourceInfo"].resource_type == "handler", details
    bad = s.BatchSubmitTasksRequest(tasks=[io(0), io(0, display_name="x" * 200)])
    error = refused(tasks.BatchSubmitTasks, bad, timeout=10)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
    details = refusal(error)
    assert details["ErrorInfo"].reason == "INVALID_FIELD", details
    assert details["BadRequest"].field_violations[0].field == "tasks[1].display_name", details


def deadline(tasks, _):
    accepted = tasks.SubmitTask(io(60), timeout=10)
    begin = time.monotonic()
    error = refused(tasks.WaitTask, s.WaitTaskRequest(task_id=accepted.task_id), timeout=0.3)
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    followed = tasks.WatchTasks(s.WatchTasksRequest(), timeout=0.3)
    error = refused(lambda: list(followed))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    assert time.monotonic() - begin < 5
    # The deadline ended the call, not the task.
    task = tasks.GetTask(s.GetTaskRequest(task_id=accepted.task_id), timeout=10).task
    assert task.state in (t.TASK_STATE_QUEUED, t.TASK_STATE_RUNNING), task
    tasks.CancelTask(s.CancelTaskRequest(task_id=accepted.task_id), timeout=10)


def metrics(tasks, pools):
    request = p.StreamPoolMetricsRequest(pools=["default"], include_workers=True)
    request.interval.FromMilliseconds(100)
    readings = []
    for reading in pools.StreamPoolMetrics(request, timeout=20):
        readings.append(reading)
        if len(readings) == 1:
            tasks.SubmitTask(io(0), timeout=10)
        if len(readings) == 5:
            break
    first, last = readings[0].pools[0], readings[-1].pools[0]
    assert first.pool == "default" and first.size == 4 and len(first.workers) == 4, first
    assert last.submitted > first.submitted and last.time.ToNanoseconds() > first.time.ToNanoseconds()
    assert readings[-1].system.cores > 0


def retry(tasks, _):
    # The server is down during this call; the service config of the channel waits and retries.
    control("crash")
    accepted = tasks.SubmitTask(io(0, request_id="python-retry"), timeout=30)
    assert not accepted.duplicate, accepted
    assert tasks.SubmitTask(io(0, request_id="python-retry"), timeout=30).duplicate


def spread(*_):
    """Two servers behind one name: both get calls, and when one drains no call fails."""
    addresses = os.environ["LINESHAFT_TWINS"]
    # A channel to the first server without health checks.
    both, first = twins(), grpc.insecure_channel(addresses.split(",")[0])
    answered = collections.Counter()
    while len(answered) < 2:
        answered[instance(both)] += 1
    answered = collections.Counter(instance(both) for _ in range(20))
    assert min(answered.values()) >= 8 and len(answered) == 2, answered
    leaving = instance(first)
    tasks = rpc.TaskServiceStub(first)
    long = tasks.SubmitTask(io(60), timeout=10).task_id
    while tasks.GetTask(s.GetTaskRequest(task_id=long), timeout=10).task.state != t.TASK_STATE_RUNNING:
        pass
    stop = threading.Event()

    def call():
        calls = 0
        while not stop.is_set():
            submit_once(both, f"python-spread-{calls}")
            calls += 1
        return calls

    with concurrent.futures.ThreadPoolExecutor(1) as beside:
        calls = beside.submit(call)
        # The running task delays the end of the server, and its health service reports NOT_SERVING.
        limit = duration_pb2.Duration(seconds=60)
        system_rpc.SystemServiceStub(first).Drain(y.DrainRequest(limit=limit), timeout=10)
        others = 0
        while others < 20:
            others = 0 if instance(both) == leaving else others + 1
        stop.set()
        assert calls.result() > 0, "no call was made during the drain"
    # Without health checks the call is refused, and the channel retries it on the other server.
    blind = ("grpc.inhibit_health_checking", 1)
    with twins(blind, ("grpc.enable_retries", 0)) as hasty:
        met = None
        while met is None:
            try:
                submit_once(hasty, "python-hasty")
            except grpc.RpcError as error:
                met = error
        assert met.code() == grpc.StatusCode.UNAVAILABLE, met
        assert refusal(met)["ErrorInfo"].reason == "DRAINING", met
    with twins(blind) as repeating:
        known = set()
        while len(known) < 2:
            known.add(instance(repeating))
        for number in range(4):
            submit_once(repeating, f"python-repeated-{number}")
    tasks.CancelTask(s.CancelTaskRequest(task_id=long), timeout=10)
    both.close()
    first.close()


def twins(*more):
    """A channel to both servers, as `dns:///NAME` gives for servers with a DNS name."""
    # Without this the list of addresses would be the authority, which is not valid.
    options = [("grpc.service_config", SERVICE_CONFIG), ("grpc.default_authority", "twins"), *more]
    return grpc.insecure_channel("ipv4:" + os.environ["LINESHAFT_TWINS"], options)


def instance(channel):
    """The instance id of the server that responds."""
    return system_rpc.SystemServiceStub(channel).GetServerInfo(y.GetServerInfoRequest(), timeout=10).instance_id


def submit_once(channel, request_id):
    rpc.TaskServiceStub(channel).SubmitTask(io(0, request_id=request_id), timeout=20)


def tls(*_):
    ca = pathlib.Path(os.environ["LINESHAFT_CA"]).read_bytes()
    submitter, viewer = os.environ["LINESHAFT_SUBMITTER"], os.environ["LINESHAFT_VIEWER"]
    with connect(os.environ["LINESHAFT_SECURE"], ca, submitter) as channel:
        tasks = rpc.TaskServiceStub(channel)
        accepted = tasks.SubmitTask(io(0), timeout=30)
        done = tasks.WaitTask(s.WaitTaskRequest(task_id=accepted.task_id), timeout=40)
        assert done.task.state == t.TASK_STATE_COMPLETED and "submitter" in done.task.submitted_by, done
    with connect(os.environ["LINESHAFT_SECURE"], ca, viewer) as channel:
        error = refused(rpc.TaskServiceStub(channel).SubmitTask, io(0), timeout=30)
        assert error.code() == grpc.StatusCode.PERMISSION_DENIED, error
        info = refusal(error)["ErrorInfo"]
        assert info.reason == "PERMISSION_DENIED" and info.metadata["role"] == "submitter", info
    with connect(os.environ["LINESHAFT_SECURE"], ca) as channel:
        error = refused(rpc.TaskServiceStub(channel).SubmitTask, io(0), timeout=30)
        assert error.code() == grpc.StatusCode.UNAUTHENTICATED, error
        assert refusal(error)["ErrorInfo"].reason == "UNAUTHENTICATED", error


CHECKS = {
    "submit": submit, "batch": batch, "stream": stream, "run": run, "watch": resumed_watch, "cancel": cancel,
    "errors": errors, "deadline": deadline, "metrics": metrics, "retry": retry, "spread": spread,
    "tls": tls,
}


def main():
    with connect(os.environ["LINESHAFT_PROXY"]) as channel:
        serving = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert serving.status == health_pb2.HealthCheckResponse.SERVING, serving
        for name, check in CHECKS.items():
            check(rpc.TaskServiceStub(channel), pool_rpc.PoolServiceStub(channel))
            print("ok", name, flush=True)


if __name__ == "__main__":
    main()
