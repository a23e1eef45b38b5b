import { job, log, progress, reject } from "./wasmhost.js";

// The payload, read as JSON, is `job.args`; what is returned is the result, written as JSON.
export const run = job(({ args, attempt, maxAttempts }) => {
  if (!args?.name) {
    throw reject("a greeting needs a name");
  }
  log.info(`greeting ${args.name}, attempt ${attempt} of ${maxAttempts}`);
  progress(50, "halfway");
  return { greeting: `Hello, ${args.name}!` };
});
