"""A watch that reconnects: it resumes with the last token it received."""

import time

import grpc
from lineshaft.v1 import task_service_pb2 as s

PAUSE_SECONDS = 0.2


def watch(tasks, task_filter, resume_token):
    """Yields each matching event once and in order, and never ends. `tasks` is a TaskServiceStub."""
    while True:
        request = s.WatchTasksRequest(filter=task_filter, resume_token=resume_token)
        try:
            for step in tasks.WatchTasks(request, wait_for_ready=True):
                kind = step.WhichOneof("kind")
                if kind == "event":
                    resume_token = step.event.resume_token
                    yield step.event
                elif kind == "progress":
                    resume_token = step.progress.resume_token
        except grpc.RpcError as error:
            # OUT_OF_RANGE: the events are no longer stored; start again with include_snapshot.
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
        time.sleep(PAUSE_SECONDS)
