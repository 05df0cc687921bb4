"""Runs a server whose artifacts are in moto's imitation of S3: `check.py BINARY DIRECTORY`."""

import base64
import hashlib
import json
import logging
import os
import pathlib
import subprocess
import sys
import time
import urllib.error
import urllib.request

import boto3
from moto.server import ThreadedMotoServer

TIMEOUT = 120
SECRET = "a-secret-that-nobody-logs"
CONFIG = """
[artifacts]
url = "s3://shelf/deep/er"

[[handler]]
name = "sh"
runner = "process"
argv = ["/bin/sh", "-c", "cd $LINESHAFT_ARTIFACTS && exec sh -"]
artifacts = true
retry = { attempts = 20, delay = "100ms", max_delay = "1s" }
"""


class Server:
    def __init__(self, binary, directory, endpoint):
        (directory / "lineshaft.toml").write_text(CONFIG)
        self.data, self.log, self.ready = directory / "data", directory / "log", directory / "ready"
        self.command = [binary, "serve", "--config", directory / "lineshaft.toml", "--data-dir", self.data]
        self.command += ["--listen", "127.0.0.1:0", "--ready-file", self.ready]
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "LINESHAFT_"))}
        self.env = plain | {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }
        self.start()

    def start(self):
        self.ready.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=self.env)
        eventually(lambda: self.ready.exists() or self.process.poll() is not None, "the server does not start")
        assert self.process.poll() is None, self.log.read_text()
        self.address = self.ready.read_text().strip()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def open(self, path, **headers):
        request = urllib.request.Request(f"http://{self.address}{path}", headers=headers)
        return urllib.request.urlopen(request, timeout=TIMEOUT)

    def call(self, method, message):
        url = f"http://{self.address}/lineshaft.v1.{method}"
        request = urllib.request.Request(url, json.dumps(message).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return json.load(response)

    def submit(self, task, script):
        payload = {"data": base64.b64encode(script.encode()).decode()}
        self.call("TaskService/SubmitTask", {"handler": "sh", "taskId": task, "payload": payload})

    def ended(self, task):
        while True:
            found = self.call("TaskService/WaitTask", {"taskId": task, "timeout": "60s"})["task"]
            if found["state"] in ("TASK_STATE_COMPLETED", "TASK_STATE_FAILED", "TASK_STATE_CANCELLED"):
                return found


def eventually(condition, what):
    until = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def check(binary, directory, s3, moto):
    bucket = s3.Bucket("shelf")
    bucket.create(CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})

    def keys():
        return sorted(item.key for item in bucket.objects.all())

    server = Server(binary, directory, "http://127.0.0.1:{}".format(moto.get_host_and_port()[1]))
    # One artifact in one request, one in several parts, and one that is empty.
    script = "head -c 12000000 /dev/urandom >large.bin; printf 0123456789 >'ü 1.txt'; : >empty"
    server.submit("t", script)
    task = server.ended("t")
    assert task["state"] == "TASK_STATE_COMPLETED", task
    names = [(item["name"], item["sizeBytes"]) for item in task["artifacts"]]
    assert names == [("empty", "0"), ("large.bin", "12000000"), ("ü 1.txt", "10")], names
    found = keys()
    assert len(found) == 3 and all(key.startswith("deep/er/") and "/default/t/" in key for key in found), found
    assert not (server.data / "artifacts" / "objects").exists()

    with server.open("/artifacts/t/large.bin") as response:
        large = response.read()
    assert len(large) == 12_000_000 and hashlib.sha256(large).hexdigest() == task["artifacts"][1]["sha256"]
    with server.open("/artifacts/t/large.bin", range="bytes=6000000-6999999") as response:
        assert response.status == 206 and response.read() == large[6_000_000:7_000_000]
    listed = server.call("ArtifactService/ListArtifacts", {"taskId": "t"})["artifacts"]
    with server.open(listed[2]["link"]) as response:
        assert response.read() == b"0123456789"
    with server.open("/artifacts/t/empty") as response:
        assert response.read() == b""

    # What a killed server has left goes once its task has ended.
    server.submit("killed", "echo x >x; [ -e ../../go ] || sleep 1000")
    eventually(
        lambda: server.call("TaskService/GetTask", {"taskId": "killed"})["task"]["state"] == "TASK_STATE_RUNNING",
        "start",
    )
    server.kill()
    owner = found[0].removeprefix("deep/er/").split("/")[0]
    bucket.put_object(Key=f"deep/er/{owner}/default/killed/99999999999/00", Body=b"half")
    bucket.put_object(Key="deep/er/another-server/default/t/1/00", Body=b"of another server")
    (server.data / "go").write_text("")
    server.start()
    assert [item["name"] for item in server.ended("killed")["artifacts"]] == ["x"]
    eventually(lambda: len(keys()) == 5, "what the killed server has left is still there")
    server.call("TaskService/DeleteTasks", {"filter": {"taskIds": ["t"]}})
    eventually(lambda: len(keys()) == 2, "the artifacts of a deleted task are still there")
    assert [key for key in keys() if "another-server" in key], "the objects of another server were removed"

    # A store that is away fails attempts, and the next ones succeed when it is back.
    bucket.objects.all().delete()
    bucket.delete()
    server.submit("away", "echo x >x")
    eventually(
        lambda: server.call("TaskService/GetTask", {"taskId": "away"})["task"].get("failure"), "no attempt has failed"
    )
    failure = server.call("TaskService/GetTask", {"taskId": "away"})["task"]["failure"]
    bucket.create(CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    task = server.ended("away")
    assert task["state"] == "TASK_STATE_COMPLETED" and task["attempt"] > 1, task
    assert "the object store failed" in failure["message"], failure
    try:
        server.open("/artifacts/killed/x")
        sys.exit("an artifact that is not there any more was read")
    except urllib.error.HTTPError as error:
        assert error.code == 404, error
    server.process.terminate()
    assert server.process.wait(TIMEOUT) == 0
    assert SECRET not in server.log.read_text()


def main(binary, directory):
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto.start()
    endpoint = "http://127.0.0.1:{}".format(moto.get_host_and_port()[1])
    s3 = boto3.resource(
        "s3", endpoint_url=endpoint, region_name="eu-central-1", aws_access_key_id="key", aws_secret_access_key=SECRET
    )
    check(binary, directory, s3, moto)
    moto.stop()
    print("artifacts in S3 are as expected")


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]))
