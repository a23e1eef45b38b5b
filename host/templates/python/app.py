"""Greets whoever is named."""

import wasmhost
from wasmhost import Reject, log, progress


# The payload, read as JSON, is `job.args`; what is returned is the result, written as JSON.
def run(job):
    name = (job.args or {}).get("name", "").strip()
    if not name:
        raise Reject("a greeting needs a name")
    log.info("greeting %s, attempt %d of %d", name, job.attempt, job.max_attempts)
    progress(50, "halfway")
    return {"greeting": f"Hello, {name}!"}


WitWorld = wasmhost.world(run)
