"""Exports the tables of park.sql and opens the files with independent readers.

`check.py BINARY DIRECTORY PORT`; PostgreSQL listens on the port, and the directory has the file `password`.
"""

import base64
import csv
import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import urllib.request

import openpyxl

TIMEOUT = 300
CONNECTION = """
[[pool]]
name = "export"
size = 5

[[connection]]
name = "park"
postgres = "postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=disable"
password_file = "{directory}/password"
"""
HANDLER = """
[[handler]]
name = "{name}"
runner = "export"
retry = {{ attempts = 5, delay = "100ms" }}
[handler.export]
connection = "park"
{source}
filters = ["id"{filters}]
"""
TABLES = ["building", "tenant", "lease", "odd", "reading"]
GONE = """
[[connection]]
name = "gone"
postgres = "postgresql://postgres@127.0.0.1:1/postgres?sslmode=disable"

[[handler]]
name = "gone"
runner = "export"
retry = { attempts = 1 }
[handler.export]
connection = "gone"
table = "lease"
"""
HANDLERS = [
    *((table, f'table = "public.{table}"', ', "starts"' if table == "lease" else "") for table in TABLES),
    ("slow", 'query = "SELECT i AS id, pg_sleep(0.001)::text AS s FROM generate_series(1, 100000000) i"', ""),
    ("brief", 'query = "SELECT i AS id, pg_sleep(0.01)::text AS s FROM generate_series(1, 300) i"', ""),
    ("wrong", 'query = "SELECT missing AS id FROM lease"', ""),
]
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")
csv.field_size_limit(1 << 30)


class Server:
    def __init__(self, binary, directory, port):
        config = CONNECTION.format(port=port, directory=directory)
        config += "".join(HANDLER.format(name=n, source=s, filters=f) for n, s, f in HANDLERS)
        (directory / "lineshaft.toml").write_text(config + GONE)
        self.data, self.log, self.ready = directory / "data", directory / "log", directory / "ready"
        self.command = [binary, "serve", "--config", directory / "lineshaft.toml", "--data-dir", self.data]
        self.command += ["--listen", "127.0.0.1:0", "--ready-file", self.ready]
        self.start()

    def start(self):
        self.ready.unlink(missing_ok=True)
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LINESHAFT_"))}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=plain)
        until = time.monotonic() + TIMEOUT
        while not self.ready.exists():
            if self.process.poll() is not None or time.monotonic() > until:
                sys.exit(f"the server did not start:\n{self.log.read_text()}")
            time.sleep(0.01)
        self.address = self.ready.read_text().strip()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(TIMEOUT)

    def call(self, method, message):
        url = f"http://{self.address}/lineshaft.v1.TaskService/{method}"
        request = urllib.request.Request(url, json.dumps(message).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return json.load(response)

    def submit(self, handler, **payload):
        return self.call("SubmitTask", {"handler": handler, "payload": {"json": payload}})["taskId"]

    def ended(self, task):
        while True:
            found = self.call("WaitTask", {"taskId": task, "timeout": "60s"})["task"]
            if found["state"] in ("TASK_STATE_COMPLETED", "TASK_STATE_FAILED", "TASK_STATE_CANCELLED"):
                return found

    def export(self, handler, **payload):
        """The result and the path of the file of an export."""
        task = self.ended(self.submit(handler, **payload))
        assert task["state"] == "TASK_STATE_COMPLETED", task
        result = task["result"]
        result = result["json"] if "json" in result else json.loads(base64.b64decode(result["data"]))
        return result, self.file(task["taskId"])

    def file(self, task):
        (path,) = (path for path in (self.data / "artifacts").rglob("*") if path.is_file() and task in path.parts)
        return path

    def peak_memory(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) // 1024


def eventually(condition, what):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def sql(query):
    return subprocess.run(["psql", "-Atc", query], check=True, capture_output=True, text=True).stdout.strip()


def running():
    return sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lineshaft' AND state = 'active'")


def check_table(server, table):
    """The formats agree on all cells."""
    _, path = server.export(table, format="csv", order=["id"])
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    result, path = server.export(table, format="jsonl", order=["id"])
    objects = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    assert len(rows) == len(objects) == result["rows"] and list(objects[0]) == header, table
    _, path = server.export(table, format="xlsx", order=["id"])
    sheet = openpyxl.load_workbook(path.open("rb"), read_only=True).worksheets[0]
    names, *cells = sheet.iter_rows(values_only=True)
    assert list(names) == header and len(cells) == len(rows), table
    for row, object_, cell in zip(rows, objects, cells):
        for text, (column, value), excel in zip(row, object_.items(), cell):
            check_cell(text, value, excel, (table, column, row[0]))


def check_cell(text, value, excel, where):
    match value:
        case None:
            assert text in ("", "null") and excel in (None, "null"), (where, text, excel)
        case bool():
            assert text == str(value).lower() and excel is value, (where, text, excel)
        case int():
            assert text == str(value) == str(excel), (where, text, excel)
        case float():
            assert float(text) == value == float(excel), (where, text, excel)
        case str():
            assert text == ("'" + value if value.startswith(FORMULAS) and not is_number(value) else value), (where, text)
            check_excel(value, excel, where)
        case _:
            assert json.loads(text) == value == json.loads(excel), (where, text, excel)


def is_number(text):
    return re.fullmatch(r"-(\d+\.?\d*|Infinity|infinity|\d{4}-\d\d-\d\d)", text)


def check_excel(value, excel, where):
    match excel:
        case None:
            assert value == "", (where, value)
        case datetime.datetime():
            assert value[:10] == excel.isoformat()[:10] and (len(value) == 10 or value[:19] == excel.isoformat()[:19]), where
        case datetime.time():
            assert value.startswith(excel.isoformat()[:8]), where
        case int() | float():
            assert float(value) == excel, (where, value, excel)
        case str() if len(value) > 32767:
            assert len(excel) == 32767 and excel.endswith(f"[cut from {len(value)} characters]"), where
        case str():
            plain = re.sub("_x([0-9A-F]{4})_", lambda found: chr(int(found[1], 16)), excel)
            assert plain == value, (where, value, excel)


def check_pdf(server):
    result, path = server.export("lease", format="pdf", order=["id"], columns=["id", "building", "rent", "signed"])
    assert result == {"file": "lease.pdf", "rows": 10000, "more_rows": True, "cut_cells": 0}, result
    text = subprocess.run(["pdftotext", "-layout", path, "-"], check=True, capture_output=True, text=True).stdout
    pages = text.split("\f")[:-1]
    assert all(re.search(r"id +building +rent +signed", page) for page in pages), "the header is not repeated"
    assert all("The first 10,000 rows; there are more." in page for page in pages)
    assert [f"Page {number} of {len(pages)}" in page for number, page in enumerate(pages, 1)] == [True] * len(pages)
    found = re.findall(r"^ *(\d+) +\d+ +([\d.]+) +\S+Z$", text, re.MULTILINE)
    assert len(found) == 10000 and found[-1] == ("10000", sql("SELECT rent FROM lease WHERE id = 10000")), found[-1]
    result, path = server.export("tenant", format="pdf", filters={"id": {"to": 6}})
    assert result["cut_cells"] == 1, result
    text = subprocess.run(["pdftotext", path, "-"], check=True, capture_output=True, text=True).stdout
    assert "Ελληνικά ΑΕ 1" in text and "ООО Ромашка 2" in text and "Müller & Söhne 6" in text, text


def check_values(server):
    _, path = server.export("odd", format="csv", order=["id"])
    first, second, third = path.read_bytes().decode().split("\r\n")[1:4]
    assert first == (
        "1,123456789012345678901234567890.123456789,0.1,0.1,9223372036854775807,-0043-03-15,2026-11-30T10:15:00.5,"
        '2026-11-30T04:30:00Z,23:59:59.999,12.50,10.0.0.1/8,"[1,null,3]","[1, 2]",x'
    ), first
    assert second.startswith("2,NaN,Infinity,-Infinity,-1,infinity,-infinity,infinity,24:00:00,,,[],,\"tab\tcontrol\x01 "), second
    assert third.startswith("3,-0.00000012,,1e+300,0,"), third
    payload = {"filters": {"starts": {"from": "2021-01-01", "before": "2021-02-01"}, "id": [367, 368, 5]}, "columns": ["id"]}
    result, path = server.export("lease", order=["-id"], **payload)
    assert path.read_bytes() == b"id\r\n368\r\n367\r\n", path.read_bytes()


def check_failures(server):
    for handler, payload, expected in [
        ("lease", {"filters": {"starts": {"from": "soon"}}}, "`filters.starts.from` does not suit its column"),
        ("lease", {"filters": {"id": "1 OR 1=1"}}, "`filters.id` does not suit its column"),
        ("lease", {"columns": ["rent; DROP TABLE lease"]}, "`columns[0]` is `rent; DROP TABLE lease`"),
        ("wrong", {}, 'column "missing" does not exist'),
        ("gone", {}, "the connection failed: error connecting to server: Connection refused"),
    ]:
        task = server.ended(server.submit(handler, **payload))
        assert expected in task["failure"]["message"] and task["attempt"] == 1, task
    # A cancel ends the query.
    task = server.submit("slow")
    eventually(lambda: running() == "1", "the query does not run")
    server.call("CancelTask", {"taskId": task})
    assert server.ended(task)["state"] == "TASK_STATE_CANCELLED"
    eventually(lambda: running() == "0", "the query goes on after the cancel")
    # A connection that breaks is tried again.
    task = server.submit("brief")
    eventually(lambda: running() == "1", "the query does not run")
    sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lineshaft'")
    task = server.ended(task)
    assert task["state"] == "TASK_STATE_COMPLETED" and task["attempt"] == 2, task
    # The query of a server that is killed ends, and the next server begins anew.
    task = server.submit("brief")
    eventually(lambda: running() == "1", "the query does not run")
    server.kill()
    eventually(lambda: running() == "0", "the query goes on without its server")
    server.start()
    found = server.ended(task)
    assert found["state"] == "TASK_STATE_COMPLETED" and found["attempt"] == 1, found
    lines = server.file(task).read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["id", *map(str, range(1, 301))], lines


def check_memory(server):
    server.export("reading", limit=1000)
    before = server.peak_memory()
    began = time.monotonic()
    result, path = server.export("reading")
    took = time.monotonic() - began
    assert result["rows"] == 1_000_000 and path.stat().st_size > 60_000_000, result
    grown = server.peak_memory() - before
    print(f"a million rows to CSV: {took:.1f}s, the server's memory grew by {grown} MiB from {before} MiB")
    assert grown < 48, grown


def main(binary, directory, port):
    with Server(binary, directory, port) as server:
        # First, since the peak of the memory counts.
        check_memory(server)
        for table in TABLES[:4]:
            check_table(server, table)
        check_values(server)
        check_pdf(server)
        check_failures(server)
    print("the exports of PostgreSQL are as expected")


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3])
