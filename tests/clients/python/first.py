"""Submits one task, follows it to the end, and prints its result."""

import os
import uuid

import grpc
from lineshaft.v1 import task_pb2 as t, task_service_pb2 as s, task_service_pb2_grpc as rpc

address = os.environ.get("LINESHAFT_SERVER", "127.0.0.1:7070")
payload = t.Payload(data=b'{"op": "primes", "n": 5000000}', content_type="application/json")
# The request id makes a retry safe: it returns the first task.
task = s.SubmitTaskRequest(handler="compute", payload=payload, request_id=str(uuid.uuid4()))

with grpc.insecure_channel(address) as channel:
    for step in rpc.TaskServiceStub(channel).RunTask(s.RunTaskRequest(task=task), timeout=60):
        kind = step.WhichOneof("kind")
        if kind == "event":
            print(t.TaskState.Name(step.event.state))
        elif kind == "task":
            print(step.task.result.data.decode())
