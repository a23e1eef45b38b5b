"""Runs a script in Python. docs/interpreters.md says what a script is given, and what it can use.

The value of a script is that of its last statement, when that is an expression. There are no files at run time, so the
modules that a script may import are those that were imported when this was built: `MODULES`.
"""

import ast
import importlib
import json
import linecache
import random
import sys
import traceback

import wasmhost
from componentize_py_types import Err
from wasmhost import Reject, Retry
from wit_world.imports import types

# What scripts may import; a name that this Python does not have is left out.
MODULES = """
abc argparse array ast base64 binascii bisect calendar cmath codecs collections collections.abc colorsys configparser
contextlib copy csv dataclasses datetime decimal difflib enum errno fnmatch fractions functools gettext graphlib
hashlib heapq hmac html html.entities html.parser inspect io ipaddress itertools json keyword linecache locale logging
marshal math numbers operator os os.path pathlib pickle pprint queue random re reprlib secrets shlex statistics string
struct sys textwrap time timeit token tokenize tomllib traceback types typing unicodedata unittest urllib.parse uuid
warnings weakref xml.etree.ElementTree zlib zoneinfo
"""
RESERVED = "wasmhost."
CALLS_SHOWN = 12
LEVELS = {"trace": 5, "debug": 10, "info": 20, "warn": 30, "error": 40, "critical": 50}


def _load():
    names = []
    for name in MODULES.split():
        try:
            importlib.import_module(name)
            names.append(name)
        except ImportError:
            pass
    return names


LOADED = _load()


class Stop(BaseException):
    """Ends the script; an `except Exception` does not hold it up."""


class Order:
    """What the job asks for: the script, its arguments, and how."""

    def __init__(self, job):
        first = {}
        for name, value in job.metadata:
            first.setdefault(name, value)
        self.payload = job.text
        self.metadata = {name: value for name, value in first.items() if not name.startswith(RESERVED)}
        self.file = first.get("wasmhost.file", "")
        self.mode = first.get("wasmhost.mode", "")
        value = None
        if self.payload:
            try:
                value = json.loads(self.payload)
            except json.JSONDecodeError:
                value = self.payload
        self.args = None
        if "wasmhost.script" in first:
            self.script, self.args = first["wasmhost.script"], value
        elif isinstance(value, dict) and "script" in value:
            self.script, self.args = value.pop("script"), value.pop("args", None)
            if not isinstance(self.script, str):
                raise Reject("`script` in the payload is not a text")
            for key in value:
                raise Reject(f"`{key}` in the payload is not known, only `script` and `args` are")
        else:
            self.script = self.payload

    def at(self, line):
        """How a message begins: where in the script it is."""
        place = " ".join(part for part in (self.file, f"line {line}" if line else "") if part)
        return f"{place}: " if place else ""


def run(job):
    order = Order(job)
    if order.mode == "library":
        return sorted(LOADED)
    name = order.file or "<script>"
    try:
        tree = ast.parse(order.script, name)
    except SyntaxError as error:
        raise _failed(order, error.lineno, f"{type(error).__name__}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise _failed(order, None, f"{type(error).__name__}: {error}") from None
    last = tree.body[-1] if tree.body else None
    value_of_last = isinstance(last, ast.Expr)
    if value_of_last:
        tree.body[-1] = ast.copy_location(ast.Assign([ast.Name("__value__", ast.Store())], last.value), last)
        ast.fix_missing_locations(tree)
    try:
        code = compile(tree, name, "exec")
    except SyntaxError as error:
        raise _failed(order, error.lineno, f"{type(error).__name__}: {error.msg}") from None
    if order.mode == "check":
        return None
    # Tracebacks show the lines of the script.
    linecache.cache[name] = (len(order.script), None, order.script.splitlines(True), name)
    # Every job begins with a copy of the moment in which this was built.
    random.seed()
    stop = []
    scope = _globals(order, job, stop)
    try:
        exec(code, scope)
    except Stop:
        pass
    except SystemExit as error:
        if error.code not in (None, 0) and not stop:
            raise _failed(order, _line(error, name), f"the script has called exit({error.code!r})") from None
    except BaseException as error:
        if not stop:
            raise _thrown(order, error, name) from None
    if stop:
        raise stop[0]
    value = scope.get("__value__") if value_of_last else None
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        at = last.lineno if value_of_last else None
        raise _failed(order, at, f"the value of the script is not JSON: {error}") from None


def _globals(order, job, stop):
    """What a script finds beside the language."""

    def log(level, *values):
        if level not in LEVELS:
            raise ValueError(f"`{level}` is no level of a log, must be one of {', '.join(LEVELS)}")
        wasmhost.log.log(LEVELS[level], "%s", " ".join(map(str, values)))

    def end(how):
        stop.append(how)
        raise Stop

    def enqueue(queue, type, payload, *, metadata=None, **options):
        return wasmhost.enqueue(queue, type, payload, metadata=list((metadata or {}).items()), **options)

    def retry(reason, after_ms=None):
        end(Retry(str(reason), after=None if after_ms is None else max(0, after_ms) / 1000))

    record = {
        "id": job.id,
        "queue": job.queue,
        "type": job.job_type,
        "node": job.node,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "deadline_ms": job.deadline_ms,
        "enqueued_at_ms": job.enqueued_at_ms,
        "content_type": job.content_type,
        "metadata": order.metadata,
    }
    return {
        "__name__": "__main__",
        "__builtins__": __builtins__,
        "args": order.args,
        "payload": order.payload,
        "job": record,
        "log": log,
        "progress": wasmhost.progress,
        "state": wasmhost.State,
        "enqueue": enqueue,
        "cancelled": wasmhost.cancelled,
        "config": wasmhost.config,
        "secret": lambda name: wasmhost.secret(name).decode(),
        "http": wasmhost.http,
        "retry": retry,
        "reject": lambda reason: end(Reject(str(reason))),
    }


class _Failed(BaseException):
    """A failure whose words are complete; nothing adds the lines of this file to it."""


def _failed(order, line, text):
    return _Failed(f"{order.at(line)}{text}")


def _line(error, name):
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
    return lines[-1] if lines else None


def _thrown(order, error, name):
    """An error in words: the line of the script, what was raised, and the calls that led there."""
    if isinstance(error, SyntaxError) and error.filename == name:
        return _failed(order, error.lineno, f"{type(error).__name__}: {error.msg}")
    text = "".join(traceback.format_exception_only(error)).strip()
    if isinstance(error, ImportError) and error.name and error.name not in sys.modules:
        text += " (docs/interpreters.md lists the modules that a script has; there are no files to import others from)"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
    calls = frames[-CALLS_SHOWN:]
    calls = [f"\n  in `{frame.name}`, at line {frame.lineno}: {frame.line}" for frame in reversed(calls)]
    return _failed(order, frames[-1].lineno if frames else None, text + ("".join(calls) if len(calls) > 1 else ""))


class WitWorld(wasmhost.world(run)):
    """What the build looks for."""

    def run(self, record):
        try:
            return super().run(record)
        except _Failed as failed:
            raise Err(types.JobError_Failed(str(failed))) from None
