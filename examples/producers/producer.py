"""A producer in Python. Needs `pip install redis`. Usage: producer.py QUEUE TYPE PAYLOAD [OPTION=VALUE]..."""
import os, pathlib, sys, uuid
import redis

server = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"))
script = server.register_script(pathlib.Path(__file__).with_name("enqueue.lua").read_text())

def enqueue(queue, job_type, payload, prefix="wasmhost", **options):
    named = [text for option in options.items() for text in option]
    job = [uuid.uuid4().hex, queue, job_type, payload, len(options), *named]
    job_id, is_new = script(keys=[prefix], args=[1, 1, *job])
    return job_id.decode(), is_new == 1

if __name__ == "__main__":
    options = dict(text.split("=", 1) for text in sys.argv[4:])
    print(enqueue(*sys.argv[1:4], prefix=os.environ.get("WASMHOST_PREFIX", "wasmhost"), **options)[0])
