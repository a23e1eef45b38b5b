"""What a jumpscript in Python needs beside the language: typed jobs, errors, log and progress.

    import wasmhost

    def run(job):
        return {"sum": job.args["a"] + job.args["b"]}

    WitWorld = wasmhost.world(run)
"""

import json
import logging
import math
import traceback
from functools import cached_property

from componentize_py_types import Err
from wit_world.imports import logging as _logging
from wit_world.imports import progress as _progress
from wit_world.imports import types as _types


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
