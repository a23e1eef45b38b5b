// Greets whoever is named. What stands at the top level runs once, for one job.

import { env, exit, input, log, output } from "./wasi";

const name = String.UTF8.decode(input()).trim();
if (name.length == 0) {
  log("a greeting needs a name");
  // 0 done, 75 try again, anything else failed.
  exit(1);
}
log("greeting " + name + ", attempt " + env("JOB_ATTEMPT"));
output(String.UTF8.encode("Hello, " + name + "!"));
