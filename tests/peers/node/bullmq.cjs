// BullMQ as a peer: see `peer.cjs`. Finished jobs are removed, the leanest setting.

const { Queue, Worker } = require('bullmq');
const { concurrency, parts, start } = require('./peer.cjs');

const connection = (port) => ({ host: '127.0.0.1', port });

const open = async (port, queue) => {
  const opened = new Queue(queue, { connection: connection(port) });
  await opened.waitUntilReady();
  return opened;
};

start({
  async fill(port, queue, n) {
    const producer = await open(port, queue);
    const started = performance.now();
    for (const part of parts(n)) {
      await producer.addBulk(Array.from({ length: part }, () => ({ name: 'noop', data: null })));
    }
    const took = performance.now() - started;
    await producer.close();
    return took;
  },

  async worker(port, queue, handler) {
    const worker = new Worker(queue, (job) => handler(job.data), {
      connection: connection(port),
      concurrency,
      autorun: false,
      removeOnComplete: { count: 0 },
    });
    await worker.waitUntilReady();
    return {
      run(settled) {
        worker.on('completed', () => settled());
        worker.on('failed', (_, error) => settled(error));
        worker.on('error', settled);
        worker.run().catch(settled);
      },
      close: () => worker.close(),
    };
  },

  async producer(port, queue) {
    const producer = await open(port, queue);
    return (payload) => producer.add('noop', payload);
  },
});
