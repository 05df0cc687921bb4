"""Python: Lineshaft, Celery, Dramatiq and Huey. See README.md for the commands that each program has."""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

ADDRESS = os.environ["PEER_ADDRESS"]
CONCURRENCY = int(os.environ["PEER_CONCURRENCY"])
DONE = os.open(os.environ["PEER_DONE"], os.O_RDWR | os.O_APPEND)
WAIT_SECONDS_MAX = 60
BACKLOG_MAX = 2_000


def noop():
    os.write(DONE, b".")


def sleep():
    time.sleep(0.005)
    os.write(DONE, b".")


def true():
    subprocess.run(["/bin/true"], check=True)
    os.write(DONE, b".")


FUNCTIONS = [noop, sleep, true]


class Lineshaft:
    """`submit` returns before the task is stored, so that measurements end with `flush`."""

    def __init__(self):
        import lineshaft

        self.library = lineshaft
        self.client = lineshaft.Client(ADDRESS)
        self.submit = self.client.submit
        self.call = self.client.run
        self.flush = self.client.flush

    def work(self):
        worker = self.library.Worker(ADDRESS, concurrency=CONCURRENCY)
        for function in FUNCTIONS:
            worker.handler(function)
        worker.run()


class Celery:
    """Pool of threads; results only of the tasks that are waited for."""

    def __init__(self):
        from celery import Celery

        url = f"redis://{ADDRESS}/0"
        self.app = Celery("peers", broker=url, backend=url)
        self.tasks = {function.__name__: self.app.task(function, name=function.__name__) for function in FUNCTIONS}

    def submit(self, name):
        self.tasks[name].apply_async(ignore_result=True)

    def call(self, name):
        self.tasks[name].apply_async().get()

    def flush(self):
        pass

    def work(self):
        quiet = ["--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        self.app.worker_main(["worker", "--pool", "threads", "--concurrency", str(CONCURRENCY), *quiet])


class Dramatiq:
    """Results of the tasks that are waited for: those of actors with `store_results`."""

    def __init__(self):
        import dramatiq
        from dramatiq.brokers.redis import RedisBroker
        from dramatiq.results import Results
        from dramatiq.results.backends import RedisBackend

        self.library = dramatiq
        self.broker = RedisBroker(url=f"redis://{ADDRESS}/0")
        self.broker.add_middleware(Results(backend=RedisBackend(url=f"redis://{ADDRESS}/0")))
        dramatiq.set_broker(self.broker)
        self.actors = {one.__name__: dramatiq.actor(one, actor_name=one.__name__) for one in FUNCTIONS}
        self.calls = {
            one.__name__: dramatiq.actor(one, actor_name=f"call-{one.__name__}", store_results=True) for one in FUNCTIONS
        }

    def submit(self, name):
        self.actors[name].send()

    def call(self, name):
        self.calls[name].send().get_result(block=True)

    def flush(self):
        pass

    def work(self):
        self.library.Worker(self.broker, worker_threads=CONCURRENCY).start()
        threading.Event().wait()


class Huey:
    """`notify_result`, so that waits for results do not poll. Functions that return nothing store no result."""

    def __init__(self):
        from huey import RedisHuey

        host, port = ADDRESS.split(":")
        self.huey = RedisHuey("peers", host=host, port=int(port), notify_result=True)
        self.tasks = {one.__name__: self.huey.task(name=one.__name__)(one) for one in FUNCTIONS}
        self.calls = {
            one.__name__: self.huey.task(name=f"call_{one.__name__}")(lambda one=one: one() or True) for one in FUNCTIONS
        }

    def submit(self, name):
        self.tasks[name]()

    def call(self, name):
        self.calls[name]().get(blocking=True)

    def flush(self):
        pass

    def work(self):
        self.huey.create_consumer(workers=CONCURRENCY, worker_type="thread", periodic=False).run()


def done():
    return os.fstat(DONE).st_size


def submit_until(system, name, callers, ended, backlog_max=None):
    """Each caller submits in a loop until `ended()`; returns the number of submissions."""
    before = done()
    counts = [0] * callers

    def loop(caller):
        while not ended():
            if backlog_max is not None and counts[caller] % 20 == 0:
                while sum(counts) - (done() - before) > backlog_max and not ended():
                    time.sleep(0.001)
            system.submit(name)
            counts[caller] += 1

    with ThreadPoolExecutor(callers) as threads:
        list(threads.map(loop, range(callers)))
    return sum(counts)


def submit(system, callers, seconds):
    """Submissions per second; no worker runs."""
    system.submit("noop")
    system.flush()
    start = time.monotonic()
    count = submit_until(system, "noop", callers, lambda: time.monotonic() > start + seconds)
    system.flush()
    return count / (time.monotonic() - start)


def wait_for(count):
    until = time.monotonic() + WAIT_SECONDS_MAX
    while done() < count:
        if time.monotonic() > until:
            raise TimeoutError(f"{done()} of {count} tasks have run")
        time.sleep(0.001)


def run(system, name, callers, seconds):
    """Tasks per second that the worker completes while the callers submit."""
    before = done()
    system.submit(name)
    wait_for(before + 1)
    ending = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        submitting = thread.submit(submit_until, system, name, callers, ending.is_set, BACKLOG_MAX)
        time.sleep(seconds / 3)
        count, start = done(), time.monotonic()
        time.sleep(seconds)
        rate = (done() - count) / (time.monotonic() - start)
        ending.set()
        submitted = submitting.result()
    system.flush()
    wait_for(before + 1 + submitted)
    return rate


def call(system, name, seconds):
    """Median time in ms from the submission to the result, one task at a time."""
    for _ in range(20):
        system.call(name)
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        start = time.perf_counter()
        system.call(name)
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2] * 1_000


SYSTEMS = {"lineshaft": Lineshaft, "celery": Celery, "dramatiq": Dramatiq, "huey": Huey}

if __name__ == "__main__":
    system = SYSTEMS[sys.argv[1]]()
    match sys.argv[2:]:
        case ["work"]:
            system.work()
        case ["submit", callers, seconds]:
            result = submit(system, int(callers), float(seconds))
        case ["run", name, callers, seconds]:
            result = run(system, name, int(callers), float(seconds))
        case ["call", name, seconds]:
            result = call(system, name, float(seconds))
    print(json.dumps(result), flush=True)
    os._exit(0)  # not every library ends its threads
