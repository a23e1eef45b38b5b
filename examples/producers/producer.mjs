// A producer in JavaScript. Needs `npm install redis`. Usage: node producer.mjs QUEUE TYPE PAYLOAD [OPTION=VALUE]...
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createClient, defineScript } from "redis";

const enqueueScript = defineScript({
  SCRIPT: readFileSync(new URL("enqueue.lua", import.meta.url), "utf8"),
  NUMBER_OF_KEYS: 1,
  parseCommand: (parser, prefix, args) => { parser.pushKey(prefix); parser.push(...args); },
});
const url = process.env.REDIS_URL ?? "redis://127.0.0.1:6379";
const server = await createClient({ url, scripts: { enqueueScript } }).connect();

async function enqueue(queue, type, payload, options = {}, prefix = "wasmhost") {
  const named = Object.entries(options).flat().map(String);
  const job = [randomUUID(), queue, type, payload, String(named.length / 2), ...named];
  const [id, isNew] = await server.enqueueScript(prefix, ["1", "1", ...job]);
  return { id, isNew: isNew === 1 };
}

const [queue, type, payload, ...pairs] = process.argv.slice(2);
const options = Object.fromEntries(pairs.map((pair) => pair.split(/=(.*)/s, 2)));
console.log((await enqueue(queue, type, payload, options, process.env.WASMHOST_PREFIX)).id);
await server.close();
