// bee-queue as a peer: see `peer.cjs`. No events between processes, finished jobs are removed: the leanest setting.

const Queue = require('bee-queue');
const { concurrency, parts, start } = require('./peer.cjs');

const open = async (port, queue, isWorker) => {
  const opened = new Queue(queue, {
    redis: { host: '127.0.0.1', port },
    isWorker,
    getEvents: false,
    sendEvents: false,
    storeJobs: false,
    removeOnSuccess: true,
  });
  await opened.ready();
  return opened;
};

start({
  async fill(port, queue, n) {
    const producer = await open(port, queue, false);
    const started = performance.now();
    for (const part of parts(n)) {
      const jobs = Array.from({ length: part }, () => producer.createJob(null));
      const errors = await producer.saveAll(jobs);
      if (errors.size > 0) throw errors.values().next().value;
    }
    const took = performance.now() - started;
    await producer.close();
    return took;
  },

  async worker(port, queue, handler) {
    const worker = await open(port, queue, true);
    return {
      run(settled) {
        worker.on('succeeded', () => settled());
        worker.on('failed', (_, error) => settled(error));
        worker.on('error', settled);
        worker.process(concurrency, (job) => handler(job.data));
      },
      close: () => worker.close(),
    };
  },

  async producer(port, queue) {
    const producer = await open(port, queue, false);
    return (payload) => producer.createJob(payload).save();
  },
});
