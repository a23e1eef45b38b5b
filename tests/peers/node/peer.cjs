// The protocol of the peers written in JavaScript; `../peer/src/lib.rs` describes it. Each peer gives four functions:
//
//   fill(port, queue, n)               enqueues n no-op jobs, `bulk` a call; gives the milliseconds of these calls
//   worker(port, queue, handler)       connects; gives { run(settled), close() }; `settled` is called once Redis has
//                                      answered to the last write of a job
//   producer(port, queue)              connects; gives an async function that enqueues one job with a payload

const bulk = 500;
const concurrency = 64;

// Nanoseconds of a clock that all processes of the machine share. As a text: they are more than a number holds.
const now = () => process.hrtime.bigint();

const cpuMicros = () => {
  const { user, system } = process.cpuUsage();
  return user + system;
};

const say = (text) => process.stdout.write(text + '\n');

// The measurement's first line is the word to start; the end of its lines is ours, whatever we are at.
const wordToStart = new Promise((resolve) => {
  process.stdin.on('data', resolve);
  process.stdin.on('end', () => process.exit(1));
});

const untilSettled = (worker, n) =>
  new Promise((resolve, reject) => {
    let done = 0;
    worker.run((error) => {
      if (error) reject(error);
      else if (++done === n) resolve();
    });
  });

async function fill(peer, port, queue, n, warmUp) {
  if (warmUp > 0) await peer.fill(port, queue + '-fill-warm-up', warmUp);
  say(`filled ${Math.round((await peer.fill(port, queue, n)) * 1000)}`);
}

async function drain(peer, port, queue, n, warmUp) {
  const noop = async () => null;
  if (warmUp > 0) {
    await peer.fill(port, queue + '-drain-warm-up', warmUp);
    const worker = await peer.worker(port, queue + '-drain-warm-up', noop);
    await untilSettled(worker, warmUp);
    await worker.close();
  }
  const worker = await peer.worker(port, queue, noop);
  say('ready');
  await wordToStart;
  const before = cpuMicros();
  await untilSettled(worker, n);
  say(`done ${cpuMicros() - before}`);
}

async function serve(peer, port, queue, n) {
  const waits = [];
  let all;
  const handled = new Promise((resolve) => (all = resolve));
  const worker = await peer.worker(port, queue, async (sent) => {
    waits.push(Number(now() - BigInt(sent)) / 1e6);
    if (waits.length === n) all();
    return null;
  });
  worker.run((error) => {
    if (error) throw error;
  });
  say('ready');
  await handled;
  say(`done ${JSON.stringify(waits)}`);
}

async function send(peer, port, queue, n, rate) {
  const enqueue = await peer.producer(port, queue);
  const started = performance.now();
  for (let i = 0; i < n; i++) {
    const early = started + (i * 1000) / rate - performance.now();
    if (early > 0) await new Promise((resolve) => setTimeout(resolve, early));
    await enqueue(now().toString());
  }
}

async function main(peer) {
  const [role, port, queue, n, extra] = process.argv.slice(2);
  if (role === 'fill') await fill(peer, Number(port), queue, Number(n), Number(extra));
  else if (role === 'drain') await drain(peer, Number(port), queue, Number(n), Number(extra));
  else if (role === 'serve') await serve(peer, Number(port), queue, Number(n));
  else if (role === 'send') await send(peer, Number(port), queue, Number(n), Number(extra));
  else throw new Error(`unknown role \`${role}\``);
  process.exit(0);
}

// The number of jobs of each enqueue call until `n` are there.
function* parts(n) {
  for (let left = n; left > 0; left -= bulk) yield Math.min(left, bulk);
}

module.exports = {
  concurrency,
  parts,
  start: (peer) =>
    main(peer).catch((error) => {
      console.error(error);
      process.exit(1);
    }),
};
