"""Says what a text is made of."""

import re
from collections import Counter
from statistics import median

import wasmhost
from wasmhost import Reject, Retry, log, progress


def run(job):
    text = job.text
    if not text.strip():
        raise Reject("there is no text")
    if text == "later":
        raise Retry("not yet", after=0.5)
    words = re.findall(r"\w+", text.lower())
    log.info("%d words, attempt %d", len(words), job.attempt)
    progress(50, "counting")
    counted = Counter(words)
    return {
        "words": len(words),
        "different": len(counted),
        "most": sorted(counted.items(), key=lambda word: -word[1])[:2],
        "median_length": median(len(word) for word in words),
    }


WitWorld = wasmhost.world(run)
