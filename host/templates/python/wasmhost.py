"""What a jumpscript in Python needs beside the language: typed jobs, errors, log, progress, state, further jobs, the
node's configuration and secrets, HTTP.

    import wasmhost

    def run(job):
        return {"sum": job.args["a"] + job.args["b"]}

    WitWorld = wasmhost.world(run)
"""

import json
import logging
import math
import traceback
from contextlib import contextmanager
from functools import cached_property

from componentize_py_types import Err
from wit_world.imports import atomics as _atomics
from wit_world.imports import http as _http
from wit_world.imports import jobs as _jobs
from wit_world.imports import logging as _logging
from wit_world.imports import progress as _progress
from wit_world.imports import secrets as _secrets
from wit_world.imports import types as _types
from wit_world.imports import wasi_config_store as _config
from wit_world.imports import wasi_keyvalue_store as _store


class Reject(Exception):
    """Ends the job for good: trying again cannot help. `raise Reject("no such customer")`"""


class Retry(Exception):
    """Asks for another attempt, not before `after` seconds; without it the host decides. `raise Retry("busy", after=5)`"""

    def __init__(self, reason, after=None):
        super().__init__(reason)
        self.after = after


class Job:
    """One attempt at one job: id, queue, job_type, node, attempt, max_attempts, deadline_ms, enqueued_at_ms,
    content_type, payload (bytes), metadata (pairs of texts), and the payload as `text` and as `args`."""

    def __init__(self, record):
        self.__dict__.update(record.__dict__)

    @cached_property
    def text(self):
        """The payload as text."""
        try:
            return self.payload.decode()
        except UnicodeDecodeError as error:
            raise Reject(f"the payload is not UTF-8: {error}") from None

    @cached_property
    def args(self):
        """The payload as JSON; None when it is empty."""
        try:
            return json.loads(self.text) if self.payload else None
        except json.JSONDecodeError as error:
            raise Reject(f"the payload is not JSON: {error}") from None


def progress(percent, message=""):
    """Reports how far the job has come: 0 to 100, and a few words."""
    _progress.report(max(0, min(100, round(percent))), str(message))


class Refused(Exception):
    """The host did not do what it was asked for."""


@contextmanager
def _asking(what, denied="access-denied"):
    try:
        yield
    except Err as error:
        said = getattr(error.value, "value", None)
        if said is None:
            name = type(error.value).__name__.removeprefix("Error_")
            said = f"{denied} (the job's log says what would allow it)" if name in ("AccessDenied", "Denied") else name
        raise Refused(f"{what}: {said}") from None


class State:
    """Values by key that outlive the job: `State("visitors")`, which the manifest requests (`[permissions] state`), or
    `State()`, the job's own. What is written commits with the result. Values are JSON."""

    def __init__(self, name=""):
        self._called = f"state {name}" if name else "the job's state"
        with _asking(self._called):
            self._bucket = _store.open(name)

    def get(self, key, default=None):
        with _asking(f"{self._called}, key {key}"):
            value = self._bucket.get(key)
        return default if value is None else json.loads(value)

    def set(self, key, value):
        with _asking(f"{self._called}, key {key}"):
            self._bucket.set(key, json.dumps(value, ensure_ascii=False).encode())

    def delete(self, key):
        with _asking(f"{self._called}, key {key}"):
            self._bucket.delete(key)

    def increment(self, key, by=1):
        with _asking(f"{self._called}, key {key}"):
            return _atomics.increment(self._bucket, key, by)


def enqueue(queue, job_type, payload, *, content_type=None, metadata=(), delay_ms=None, run_at_ms=None,
            idempotency_key=None, priority=None, limit_key=None, max_attempts=None, timeout_ms=None):
    """Enqueues a job when this one is done, and gives its id. The manifest requests the queue
    (`[permissions] enqueue`). A text is the payload itself, other values become JSON."""
    if content_type is None:
        content_type = "" if _is_raw(payload) else "application/json"
    options = _jobs.Options(content_type, list(metadata), delay_ms, run_at_ms, idempotency_key, priority, limit_key,
                            max_attempts, timeout_ms)
    payload = payload.encode() if isinstance(payload, str) else _bytes(payload)
    with _asking(f"enqueue into {queue}"):
        return _jobs.enqueue(queue, job_type, payload, options)


def config(key, default=None):
    """The value of a key of the node's configuration, a text. The manifest requests the keys (`[permissions] config`)."""
    with _asking(f"config {key}"):
        value = _config.get(key)
    return default if value is None else value


def secret(name):
    """A secret of the node, as bytes. The manifest requests it (`[permissions] secrets`). The host hides it in the log."""
    with _asking(f"secret {name}"):
        return _secrets.get(name)


def cancelled():
    """Whether the host is shutting down and waits for this job: a long one then raises `Retry`."""
    return _jobs.cancelled()


def _is_raw(value):
    """Whether a value is sent as it is: nothing, a text, bytes."""
    return value is None or isinstance(value, (str, bytes, bytearray, memoryview))


class Answer:
    """What came back: `status`, `headers` (a dictionary; names in lower case), `body` (bytes), `text`, `json`, and
    `is_success` (a status of 200 to 299). A status such as 404 is an answer, not an error."""

    def __init__(self, answer, called):
        self.status = answer.status
        self.headers = {}
        for name, value in answer.headers:
            value = bytes(value).decode(errors="replace")
            self.headers[name] = f"{self.headers[name]}, {value}" if name in self.headers else value
        self.body = bytes(answer.body)
        self._called = called

    @property
    def is_success(self):
        return 200 <= self.status < 300

    @cached_property
    def text(self):
        return self.body.decode(errors="replace")

    @cached_property
    def json(self):
        try:
            return json.loads(self.text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{self._called}: the answer is not JSON: {error}") from None


class http:
    """HTTP requests. The manifest requests the place (`[permissions] http = ["api.example.com:443"]`), and the node
    allows it (`--allow-http`). A body that is a text or bytes is sent as it is, anything else as JSON. Redirects are not
    followed; when there is no answer, `Refused` says why."""

    @staticmethod
    def get(url, headers=None):
        return http.request("GET", url, headers=headers)

    @staticmethod
    def post(url, body=None, headers=None):
        return http.request("POST", url, headers=headers, body=body)

    @staticmethod
    def request(method, url, *, headers=None, body=None):
        headers = {name: str(value) for name, value in (headers or {}).items()}
        if not _is_raw(body) and not any(name.lower() == "content-type" for name in headers):
            headers["content-type"] = "application/json"
        body = body.encode() if isinstance(body, str) else _bytes(body)
        pairs = [(name, value.encode()) for name, value in headers.items()]
        called = f"{method} {str(url).split('#')[0].split('?')[0]}"
        with _asking(called, "HTTP-request-denied"):
            return Answer(_http.send(_http.Request(method, str(url), pairs, body)), called)


class _Handler(logging.Handler):
    """Passes the log of every library to the host."""

    def emit(self, record):
        levels = _logging.Level
        level = {10: levels.DEBUG, 20: levels.INFO, 30: levels.WARN, 40: levels.ERROR, 50: levels.CRITICAL}
        nearest = level.get(record.levelno // 10 * 10, levels.TRACE)
        context = "" if record.name == "root" else record.name
        _logging.log(nearest, context, self.format(record))


logging.basicConfig(level=logging.DEBUG, format="%(message)s", handlers=[_Handler()])
log = logging.getLogger()


def world(function):
    """Makes the class that the build looks for, `WitWorld`, of a function from the job to its result.

    The result may be bytes, None, or anything that `json.dumps` takes.
    """

    class WitWorld:
        def run(self, record):
            try:
                return _bytes(function(Job(record)))
            except Reject as error:
                raise Err(_types.JobError_Reject(str(error))) from None
            except Retry as error:
                after = None if error.after is None else math.ceil(error.after * 1000)
                raise Err(_types.JobError_Retry(_types.RetryInfo(after, str(error)))) from None
            except Exception as error:
                # The lines of the script, without the one above.
                error.__traceback__ = error.__traceback__.tb_next
                text = "".join(traceback.format_exception(error)).rstrip()
                raise Err(_types.JobError_Failed(text)) from None

    return WitWorld


def _bytes(result):
    if result is None:
        return b""
    if isinstance(result, (bytes, bytearray, memoryview)):
        return bytes(result)
    return json.dumps(result, ensure_ascii=False, separators=(",", ":")).encode()
