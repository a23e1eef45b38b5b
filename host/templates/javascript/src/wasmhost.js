// What a jumpscript in JavaScript needs beside the language: typed jobs, errors, log, progress, state, further jobs, the
// node's configuration and secrets, HTTP, and the few things of the web that QuickJS lacks (TextEncoder, TextDecoder,
// console).
//
//   import { cancelled, config, enqueue, http, job, log, progress, reject, retry, secret, state } from "./wasmhost.js";
//   export const run = job(({ args }) => ({ sum: args.a + args.b }));

import settings from "wasi:config/store@0.2.0-rc.1";
import logging from "wasi:logging/logging@0.1.0-draft";
import atomics from "wasi:keyvalue/atomics@0.2.0-draft";
import store from "wasi:keyvalue/store@0.2.0-draft";
import client from "wasmhost:jumpscript/http@0.1.0";
import jobs from "wasmhost:jumpscript/jobs@0.1.0";
import reporting from "wasmhost:jumpscript/progress@0.1.0";
import secrets from "wasmhost:jumpscript/secrets@0.1.0";

/**
 * Makes the export `run` of a function from the job to its result.
 *
 * The job has `id`, `queue`, `jobType`, `node`, `attempt`, `maxAttempts`, `deadlineMs`, `enqueuedAtMs`, `contentType`,
 * `payload` (a Uint8Array), `text` (the payload as text), `args` (the payload as JSON; null when it is empty) and
 * `metadata` (pairs of texts). The result may be bytes (a Uint8Array), nothing, or anything that JSON can say.
 */
export function job(handler) {
  return (record) => {
    seed(record);
    try {
      return bytes(handler(new Job(record)));
    } catch (thrown) {
      throw jobError(thrown);
    }
  };
}

/** The error that ends a job for good: trying again cannot help. `throw reject("no such customer")` */
export const reject = (reason) => new JobError("reject", String(reason));

/** The error that asks for another attempt; without `afterMs` the host decides when. `throw retry("busy", 5000)` */
export const retry = (reason, afterMs = null) =>
  new JobError("retry", { afterMs: afterMs === null ? null : Math.ceil(afterMs), reason: String(reason) });

/** Log lines. They appear in the host's log and in the record of the job. */
export const log = Object.fromEntries(
  ["trace", "debug", "info", "warn", "error", "critical"].map((level) => [
    level,
    (...values) => logging.log(level, "", values.map(shown).join(" ")),
  ]),
);

/** Reports how far the job has come: 0 to 100, and a few words. */
export function progress(percent, message = "") {
  reporting.report(Math.max(0, Math.min(100, Math.round(percent))), String(message));
}

/**
 * Values by key that outlive the job: `state("visitors")`, which the manifest requests (`[permissions] state`), or
 * `state()`, the job's own. What is written commits with the result. Values are JSON.
 */
export function state(name = "") {
  const called = name === "" ? "the job's state" : `state ${name}`;
  const bucket = answered(called, () => store.open(name));
  const told = (key) => `${called}, key ${key}`;
  return {
    get(key) {
      const value = answered(told(key), () => bucket.get(key));
      return value == null ? null : JSON.parse(decode(new Uint8Array(value)));
    },
    set: (key, value) => answered(told(key), () => bucket.set(key, bytes(value))),
    delete: (key) => answered(told(key), () => bucket.delete(key)),
    increment: (key, by = 1) => answered(told(key), () => atomics.increment(bucket, key, by)),
  };
}

/**
 * Enqueues a job when this one is done, and gives its id. The manifest requests the queue (`[permissions] enqueue`).
 * Options: contentType, metadata (pairs), delayMs, runAtMs, idempotencyKey, priority, limitKey, maxAttempts, timeoutMs.
 */
export function enqueue(queue, jobType, payload, options = {}) {
  const none = {
    metadata: [], delayMs: null, runAtMs: null, idempotencyKey: null, priority: null, limitKey: null,
    maxAttempts: null, timeoutMs: null,
  };
  const contentType = isRaw(payload) ? "" : "application/json";
  const told = { ...none, contentType, ...options };
  return answered(`enqueue into ${queue}`, () => jobs.enqueue(queue, jobType, raw(payload), told));
}

/** The value of a key of the node's configuration, a text; null when there is none. The manifest requests the keys. */
export const config = (key) => answered(`config ${key}`, () => settings.get(key)) ?? null;

/** A secret of the node, as text. The manifest requests it (`[permissions] secrets`). The host hides it in the log. */
export const secret = (name) => decode(new Uint8Array(answered(`secret ${name}`, () => secrets.get(name))));

/** Whether the host is shutting down and waits for this job: a long one then ends with `retry`. */
export const cancelled = () => jobs.cancelled();

/**
 * HTTP requests: `http.get(url)`, `http.post(url, body)`, `http.request(method, url, { headers, body })`. The manifest
 * requests the place (`[permissions] http = ["api.example.com:443"]`), and the node allows it (`--allow-http`).
 *
 * A body that is a text or bytes is sent as it is, anything else as JSON. The answer has `status`, `headers` (an object;
 * names in lower case), `body` (a Uint8Array), `text`, `json`, and `isSuccess` (a status of 200 to 299); a status such
 * as 404 is an answer, not an error. Redirects are not followed.
 */
export const http = {
  get: (url, headers = {}) => http.request("GET", url, { headers }),
  post: (url, body, headers = {}) => http.request("POST", url, { headers, body }),
  request(method, url, { headers = {}, body } = {}) {
    const named = Object.entries(headers).map(([name, value]) => [name, encode(String(value))]);
    if (!isRaw(body) && !named.some(([name]) => name.toLowerCase() === "content-type")) {
      named.push(["content-type", encode("application/json")]);
    }
    const sent = { method, url: String(url), headers: named, body: raw(body) };
    const called = `${method} ${sent.url.split(/[?#]/)[0]}`;
    return new Answer(answered(called, () => client.send(sent), HTTP_DENIED), called);
  },
};

const HTTP_DENIED = "HTTP-request-denied";

class Answer {
  constructor({ status, headers, body }, called) {
    this.status = status;
    this.headers = {};
    for (const [name, value] of headers) {
      const text = decode(new Uint8Array(value));
      this.headers[name] = Object.hasOwn(this.headers, name) ? `${this.headers[name]}, ${text}` : text;
    }
    this.body = body instanceof Uint8Array ? body : new Uint8Array(body);
    Object.defineProperty(this, "called", { value: called });
  }

  get isSuccess() {
    return this.status >= 200 && this.status < 300;
  }

  get text() {
    return decode(this.body);
  }

  get json() {
    try {
      return JSON.parse(this.text);
    } catch (error) {
      throw new Error(`${this.called}: the answer is not JSON: ${error.message}`);
    }
  }
}

/** Whether a value is sent as it is: nothing, a text, bytes. */
function isRaw(value) {
  return value === undefined || typeof value === "string" || value instanceof ArrayBuffer || ArrayBuffer.isView(value);
}

/** The bytes of a value: a text as it is, anything else as JSON. */
const raw = (value) => (typeof value === "string" ? encode(value) : bytes(value));

/** What the host says, with its refusals as ordinary errors. */
function answered(what, ask, denied = "access-denied") {
  try {
    return ask();
  } catch (refused) {
    // The engine wraps what the host says: an error whose payload is a case of a variant, or its text.
    const said = refused?.payload ?? (refused instanceof Error ? undefined : refused);
    if (said === undefined) {
      throw refused;
    }
    const tag = said.tag ?? said;
    const isDenied = said.val === undefined && (tag === "denied" || tag === "access-denied");
    throw new Error(`${what}: ${isDenied ? `${denied} (the job's log says what would allow it)` : (said.val ?? tag)}`);
  }
}

class Job {
  constructor(record) {
    Object.assign(this, record);
    this.payload = record.payload instanceof Uint8Array ? record.payload : new Uint8Array(record.payload);
  }

  get text() {
    return decode(this.payload);
  }

  get args() {
    if (this.payload.length === 0) {
      return null;
    }
    try {
      return JSON.parse(this.text);
    } catch (error) {
      throw reject(`the payload is not JSON: ${error.message}`);
    }
  }
}

class JobError extends Error {
  constructor(tag, val) {
    super(typeof val === "string" ? val : val.reason);
    this.tag = tag;
    this.val = val;
  }
}

/** What the contract calls a job error, of anything thrown. An ordinary error has failed, with its place. */
function jobError(thrown) {
  if (thrown instanceof JobError) {
    return { tag: thrown.tag, val: thrown.val };
  }
  return { tag: "failed", val: shown(thrown) };
}

function bytes(result) {
  if (typeof result?.then === "function") {
    throw new Error("the job function returned a promise; nothing waits here: return the result itself");
  }
  if (result === undefined) {
    return new Uint8Array(0);
  }
  if (result instanceof ArrayBuffer) {
    return new Uint8Array(result);
  }
  if (ArrayBuffer.isView(result)) {
    return new Uint8Array(result.buffer, result.byteOffset, result.byteLength);
  }
  const text = JSON.stringify(result);
  if (text === undefined) {
    throw new TypeError(`the result is a ${typeof result}, which JSON cannot say`);
  }
  return encode(text);
}

function shown(value) {
  if (typeof value === "string") {
    return value;
  }
  if (value instanceof Error) {
    return `${value.name}: ${value.message}\n${value.stack ?? ""}`.trimEnd();
  }
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return String(value);
  }
}

// The engine is started when the file is built, and every job begins with a copy of that moment: without a new seed
// all jobs would draw the same numbers. Not for secrets.
let drawn = new Uint32Array(4);

function seed(record) {
  let hash = 0x811c9dc5;
  for (const char of `${record.id} ${record.attempt} ${record.deadlineMs} ${Date.now()}`) {
    hash = Math.imul(hash ^ char.codePointAt(0), 0x01000193);
  }
  for (let n = 0; n < 4; n++) {
    hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d) + 0x9e3779b9;
    drawn[n] = hash ^ (hash >>> 12);
  }
  drawn[0] |= 1;
}

function next() {
  const t = drawn[3];
  let s = drawn[0];
  drawn.copyWithin(1, 0, 3);
  let x = t ^ (t << 11);
  x ^= x >>> 8;
  drawn[0] = x ^ s ^ (s >>> 19);
  return drawn[0];
}

Math.random = () => ((next() >>> 5) * 0x4000000 + (next() >>> 6)) / 0x20000000000000;

function encode(text) {
  const out = [];
  for (const char of text) {
    let code = char.codePointAt(0);
    if (code >= 0xd800 && code <= 0xdfff) {
      code = 0xfffd;
    }
    if (code < 0x80) {
      out.push(code);
    } else if (code < 0x800) {
      out.push(0xc0 | (code >> 6), 0x80 | (code & 63));
    } else if (code < 0x10000) {
      out.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
    } else {
      out.push(0xf0 | (code >> 18), 0x80 | ((code >> 12) & 63), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
    }
  }
  return new Uint8Array(out);
}

/** Bytes as text. What is not UTF-8 becomes U+FFFD, or an error when `isFatal`. */
function decode(bytes, isFatal = false) {
  let text = "";
  let at = 0;
  const least = [0, 0x80, 0x800, 0x10000];
  while (at < bytes.length) {
    const first = bytes[at++];
    const more = first < 0x80 ? 0 : first >= 0xf0 && first < 0xf5 ? 3 : first >= 0xe0 && first < 0xf0 ? 2 : first >= 0xc2 && first < 0xe0 ? 1 : -1;
    let code = more <= 0 ? first : first & (0x3f >> more);
    let n = 0;
    while (n < more && at + n < bytes.length && (bytes[at + n] & 0xc0) === 0x80) {
      code = (code << 6) | (bytes[at + n++] & 63);
    }
    const isWrong = more < 0 || n < more || code < least[more] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff);
    if (isWrong && isFatal) {
      throw new TypeError("the bytes are not UTF-8");
    }
    text += isWrong ? "\ufffd" : String.fromCodePoint(code);
    at += n;
  }
  return text;
}

globalThis.TextEncoder ??= class TextEncoder {
  encoding = "utf-8";
  encode(text = "") {
    return encode(String(text));
  }
};

globalThis.TextDecoder ??= class TextDecoder {
  constructor(encoding = "utf-8", { fatal = false } = {}) {
    if (!/^utf-?8$/i.test(encoding)) {
      throw new RangeError(`the encoding ${encoding} is not here, only utf-8`);
    }
    this.encoding = "utf-8";
    this.fatal = fatal;
  }
  decode(bytes = new Uint8Array(0)) {
    const view = ArrayBuffer.isView(bytes)
      ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
      : new Uint8Array(bytes);
    const text = decode(view, this.fatal);
    return text.startsWith("\ufeff") ? text.slice(1) : text;
  }
};

globalThis.console ??= { debug: log.debug, log: log.info, info: log.info, warn: log.warn, error: log.error };
