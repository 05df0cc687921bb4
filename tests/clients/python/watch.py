"""A watch that reconnects: it resumes after the last revision it received."""

import time

import grpc
from lineshaft.v1 import task_service_pb2 as s

PAUSE_SECONDS = 0.2


def watch(tasks, task_filter, after_revision):
    """Yields each matching event once and in order, and never ends. `tasks` is a TaskServiceStub."""
    while True:
        request = s.WatchTasksRequest(filter=task_filter, after_revision=after_revision)
        try:
            for step in tasks.WatchTasks(request, wait_for_ready=True):
                kind = step.WhichOneof("kind")
                if kind == "event":
                    after_revision = step.event.revision
                    yield step.event
                elif kind == "progress":
                    after_revision = step.progress.revision
        except grpc.RpcError as error:
            # OUT_OF_RANGE: the events are no longer stored; start again with include_snapshot.
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
        time.sleep(PAUSE_SECONDS)
