/** `bare-hop.ts accept <topic> <secret> | hop <from> <to> | call <from> <port>`: one hop of the bare chain: no mapping, no policy, no ledger; appended and acknowledged, then committed. */
import { verifyWebhook } from '@weir/adapter';
import { createLog, handOn, type RecordBatch } from '@weir/log';
import Fastify from 'fastify';
import { Pool } from 'undici';

const [kind, from, to] = process.argv.slice(2) as [string, string, string];
const log = createLog({ brokers: process.env['KAFKA_BROKERS']!.split(','), clientId: `bare-${kind}` });
const fail = (error: unknown): never => {
  console.error(error);
  process.exit(1);
};

async function accept(): Promise<void> {
  const appender = await log.appender();
  const partitions = await appender.partitions(from);
  let turn = 0;
  const app = Fastify();
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));
  app.post('/webhooks/contacts', async (request, reply) => {
    const body = request.body as Buffer;
    if (!verifyWebhook([to], request.headers as Record<string, string>, body, Date.now(), 300_000).ok) return reply.code(401).send({ ok: false });
    await appender.append(from, [{ partition: turn++ % partitions, key: null, value: body }]);
    return reply.code(202).send({ ok: true });
  });
  app.get('/readyz', () => ({ ready: true }));
  await app.listen({ host: '127.0.0.1', port: Number(process.env['PORT']) });
}

async function consume(take: (batch: RecordBatch) => Promise<unknown>): Promise<void> {
  const queues = new Map<number, Promise<void>>();
  const consumer = log.consumer({
    groupId: `bare-${from}`, topics: [from], sessionTimeoutMs: 30_000,
    handlers: {
      async assigned() {},
      async revoked() {},
      batch(batch) {
        queues.set(batch.partition, (queues.get(batch.partition) ?? Promise.resolve()).then(async () => {
          await take(batch);
          // Its turn may be a tenth of a second away: nothing waits for it.
          consumer.commit([{ topic: batch.topic, partition: batch.partition, epoch: batch.epoch, offset: batch.nextOffset }]).catch(fail);
        }).catch(fail));
      },
      failed: fail,
    },
  });
  await consumer.start();
}

if (kind === 'accept') await accept();
else if (kind === 'hop') {
  const appender = await log.appender();
  await appender.partitions(to);
  await consume((batch) => appender.append(to, batch.records.map((record) => handOn(record, batch.partition))));
} else {
  const pool = new Pool(`http://127.0.0.1:${to}`, { connections: 64 });
  await consume((batch) => Promise.all(batch.records.map(async (record) => {
    const { body } = await pool.request({ path: '/contacts', method: 'PUT', headers: { 'content-type': 'application/json' }, body: record.value });
    await body.dump();
  })));
}
