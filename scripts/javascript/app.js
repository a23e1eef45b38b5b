// Runs a script in JavaScript. docs/interpreters.md says what a script is given, and what it can use.
//
// A script runs as one text in the global scope, so its value is that of its last statement; each job has an engine of
// its own, so nothing stays behind.

import { cancelled, config, enqueue, http, job, log, progress, reject, retry, secret, state } from "./wasmhost.js";

const RESERVED = "wasmhost.";
const own = Object.getOwnPropertyNames(globalThis).filter((name) => name !== "wit");
const evaluate = globalThis.eval;

export const run = job((record) => {
  const order = read(record);
  if (order.mode === "library") {
    return library();
  }
  try {
    if (order.mode === "check") {
      check(order.script);
      return null;
    }
    Object.assign(globalThis, globals(record, order));
    const value = evaluate(order.script);
    if (typeof value?.then === "function") {
      throw new TypeError("the value of the script is a promise, and nothing waits here: compute the value itself");
    }
    if (value !== undefined && JSON.stringify(value) === undefined) {
      throw new TypeError(`the value of the script is a ${typeof value}, which JSON does not have`);
    }
    return ended(value === undefined ? null : value);
  } catch (thrown) {
    // A text is a failure in these very words.
    throw ended(failed(thrown, order));
  }
});

/** How the script asked to be ended, also when it has caught that itself. */
let stopped = null;

function stop(how) {
  stopped = how;
  throw how;
}

function ended(otherwise) {
  if (stopped !== null) {
    throw stopped;
  }
  return otherwise;
}

/** What the job asks for: the script, its arguments, and how. */
function read(record) {
  const first = new Map();
  for (const [name, value] of record.metadata) {
    if (!first.has(name)) {
      first.set(name, value);
    }
  }
  const text = new TextDecoder("utf-8", { fatal: true });
  let payload;
  try {
    payload = text.decode(record.payload);
  } catch {
    throw reject("the payload is not UTF-8 text");
  }
  const metadata = Object.fromEntries([...first].filter(([name]) => !name.startsWith(RESERVED)));
  const order = { payload, metadata, file: first.get("wasmhost.file") ?? "", mode: first.get("wasmhost.mode") ?? "" };
  let value = null;
  try {
    value = payload === "" ? null : JSON.parse(payload);
  } catch {
    value = payload;
  }
  if (first.has("wasmhost.script")) {
    return { ...order, script: first.get("wasmhost.script"), args: value };
  }
  if (value !== null && typeof value === "object" && !Array.isArray(value) && "script" in value) {
    const { script, args = null, ...others } = value;
    if (typeof script !== "string") {
      throw reject("`script` in the payload is not a text");
    }
    for (const key of Object.keys(others)) {
      throw reject(`\`${key}\` in the payload is not known, only \`script\` and \`args\` are`);
    }
    return { ...order, script, args };
  }
  return { ...order, script: payload, args: null };
}

/** What a script finds beside the language. */
function globals(record, { args, payload, metadata }) {
  const shown = (values) => values.map((value) => (typeof value === "string" ? value : describe(value))).join(" ");
  return {
    args,
    payload,
    job: {
      id: record.id,
      queue: record.queue,
      type: record.jobType,
      node: record.node,
      attempt: record.attempt,
      max_attempts: record.maxAttempts,
      deadline_ms: Number(record.deadlineMs),
      enqueued_at_ms: Number(record.enqueuedAtMs),
      content_type: record.contentType,
      metadata,
    },
    print: (...values) => log.info(shown(values)),
    log: (level, ...values) => {
      if (!Object.hasOwn(log, level)) {
        throw new RangeError(`\`${level}\` is no level of a log, must be one of ${Object.keys(log).join(", ")}`);
      }
      log[level](shown(values));
    },
    progress,
    state: (name) => state(name),
    enqueue: (queue, type, payload, options = {}) => enqueue(queue, type, payload, enqueueOptions(options)),
    cancelled,
    config,
    secret,
    http: { ...http },
    retry: (reason, afterMs = null) => stop(retry(reason, afterMs)),
    reject: (reason) => stop(reject(reason)),
    require: (name) => {
      throw new Error(absent(name));
    },
  };
}

/** What `enqueue` may be told, by the names that all languages have. */
const OPTIONS = {
  content_type: "contentType",
  metadata: "metadata",
  delay_ms: "delayMs",
  run_at_ms: "runAtMs",
  idempotency_key: "idempotencyKey",
  priority: "priority",
  limit_key: "limitKey",
  max_attempts: "maxAttempts",
  timeout_ms: "timeoutMs",
};

function enqueueOptions(options) {
  const known = {};
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(OPTIONS, name)) {
      throw new TypeError(`\`${name}\` is no option of a job, must be one of ${Object.keys(OPTIONS).join(", ")}`);
    }
    known[OPTIONS[name]] = name === "metadata" ? Object.entries(value) : value;
  }
  return known;
}

function describe(value) {
  if (value instanceof Error) {
    return `${value.name}: ${value.message}`;
  }
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return String(value);
  }
}

function absent(name) {
  return `there is no module \`${name}\`: a script has the language and its job, and imports nothing`;
}

/** Reads the script without running it. */
function check(script) {
  try {
    // On the same line, so that the lines of errors stay what they are.
    evaluate(`throw undefined;${script}`);
  } catch (thrown) {
    if (thrown !== undefined) {
      throw thrown;
    }
  }
}

/** An error in words: the line of the script, what was thrown, and the calls that led there. */
function failed(thrown, { file, script }) {
  const isError = thrown instanceof Error;
  const places = [];
  for (const entry of String((isError && thrown.stack) || "").split("\n")) {
    const found = /^\s*at (?:(.*?) \()?<input>:(\d+)(?::\d+)?\)?\s*$/.exec(entry);
    if (found) {
      places.push({ name: found[1] && !/^<.*>$/.test(found[1]) ? found[1] : "", line: Number(found[2]) });
    }
  }
  let line = places[0]?.line;
  let message = isError ? `${thrown.name}: ${thrown.message}` : describe(thrown);
  if (isError && thrown.name === "SyntaxError") {
    const lines = script.split("\n");
    const at = lines.findIndex((text) => /^\s*import[\s"'{*]/.test(text));
    if (at >= 0) {
      const name = /["']([^"']*)["']/.exec(lines[at])?.[1] ?? "";
      line = at + 1;
      message = absent(name);
    }
  }
  const place = line === undefined ? "" : `line ${line}`;
  const head = [file, place].filter((part) => part !== "").join(" ");
  const calls = places.slice(1).map(({ name, line }) => `\n  called ${name ? `in \`${name}\` ` : ""}at line ${line}`);
  return `${head === "" ? "" : `${head}: `}${message}${calls.join("")}`;
}

/** The names that a script finds, and what each holds. */
function library() {
  const names = (object) => Object.getOwnPropertyNames(object).filter((name) => /^[a-zA-Z]\w*$/.test(name));
  const holders = ["JSON", "Math", "Object", "Array", "String", "Number", "Promise", "Reflect", "Date"];
  const list = own.filter((name) => /^[A-Za-z]\w*$/.test(name)).sort();
  const members = holders.flatMap((holder) => names(globalThis[holder]).map((name) => `${holder}.${name}`));
  return [...list, ...members.filter((name) => !/\.(length|name|prototype)$/.test(name)).sort()];
}
