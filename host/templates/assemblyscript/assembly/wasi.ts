// The few functions of WASI preview 1 that a jumpscript needs: payload, result, log, environment, exit.

@external("wasi_snapshot_preview1", "fd_read")
declare function fd_read(fd: u32, vectors: usize, count: u32, n: usize): u16;
@external("wasi_snapshot_preview1", "fd_write")
declare function fd_write(fd: u32, vectors: usize, count: u32, n: usize): u16;
@external("wasi_snapshot_preview1", "environ_sizes_get")
declare function environ_sizes_get(count: usize, size: usize): u16;
@external("wasi_snapshot_preview1", "environ_get")
declare function environ_get(pointers: usize, texts: usize): u16;
@external("wasi_snapshot_preview1", "proc_exit")
declare function proc_exit(code: u32): void;

// One vector (address, length) and one count of bytes.
const vector = memory.data(8, 4);
const count = memory.data(4, 4);

/** The payload, whole. */
export function input(): ArrayBuffer {
  let bytes = new ArrayBuffer(4096);
  let length = 0;
  while (true) {
    if (length == bytes.byteLength) {
      const larger = new ArrayBuffer(2 * length);
      memory.copy(changetype<usize>(larger), changetype<usize>(bytes), length);
      bytes = larger;
    }
    store<u32>(vector, (changetype<usize>(bytes) + length) as u32);
    store<u32>(vector, bytes.byteLength - length, 4);
    if (fd_read(0, vector, 1, count) != 0) {
      log("the payload cannot be read");
      exit(1);
    }
    const n = load<u32>(count);
    if (n == 0) {
      return bytes.slice(0, length);
    }
    length += n;
  }
}

/** Writes to the result. */
export function output(bytes: ArrayBuffer): void {
  write(1, bytes);
}

/** Writes a line to the log. */
export function log(line: string): void {
  write(2, String.UTF8.encode(line + "\n"));
}

/** A variable of the environment, such as JOB_ID; empty when it is not there. */
export function env(name: string): string {
  environ_sizes_get(vector, count);
  const n = load<u32>(vector);
  const pointers = new ArrayBuffer(4 * n);
  const texts = new ArrayBuffer(load<u32>(count));
  environ_get(changetype<usize>(pointers), changetype<usize>(texts));
  for (let at: u32 = 0; at < n; at++) {
    const start = load<u32>(changetype<usize>(pointers) + 4 * at);
    let end = start;
    while (load<u8>(end) != 0) end++;
    const text = String.UTF8.decodeUnsafe(start, end - start);
    if (text.startsWith(name + "=")) {
      return text.slice(name.length + 1);
    }
  }
  return "";
}

/** Ends the job: 0 done, 75 try again, anything else failed. */
export function exit(code: u32): void {
  proc_exit(code);
}

/** What `throw` and failed checks end in. */
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  log((message ? message : "aborted") + " at " + (file ? file : "?") + ":" + line.toString() + ":" + column.toString());
  exit(1);
}

function write(fd: u32, bytes: ArrayBuffer): void {
  let at = 0;
  while (at < bytes.byteLength) {
    store<u32>(vector, (changetype<usize>(bytes) + at) as u32);
    store<u32>(vector, bytes.byteLength - at, 4);
    if (fd_write(fd, vector, 1, count) != 0) {
      proc_exit(1);
    }
    at += load<u32>(count);
  }
}
