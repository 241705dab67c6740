/** A destination that counts: every call is answered 200. Keys that came twice, and the time since the stamp in the title of a body, are kept. */
import { createServer } from 'node:http';
import { answer, clock, percentiles } from './helper.ts';

const keys = new Set<string>();
let calls = 0;
let twice = 0;
let stamps: number[] = [];
const waiting: { readonly count: number; readonly done: () => void }[] = [];

const server = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => chunks.push(chunk)).on('end', () => {
    const key = request.headers['idempotency-key'] as string | undefined;
    if (key !== undefined && keys.has(key)) twice++;
    if (key !== undefined) keys.add(key);
    calls++;
    const stamp = /"title":"(\d+\.?\d*)"/.exec(Buffer.concat(chunks).toString('latin1'))?.[1];
    if (stamp !== undefined) stamps.push(clock() - Number(stamp));
    response.setHeader('content-type', 'application/json');
    response.end('{}');
    for (let i = waiting.length - 1; i >= 0; i--) if (calls >= waiting[i]!.count) waiting.splice(i, 1)[0]!.done();
  });
});
server.keepAliveTimeout = 60_000;

answer({
  listen: () => new Promise((done) => server.listen(0, '127.0.0.1', () => done((server.address() as { port: number }).port))),
  /** Resolves when there were so many calls. */
  until: (count: number) => (calls >= count ? true : new Promise((done) => waiting.push({ count, done: () => done(true) }))),
  /** Counts since the last one. */
  result() {
    const found = { calls, distinct: keys.size, twice, ...percentiles(Float64Array.from(stamps)) };
    keys.clear();
    stamps = [];
    calls = 0;
    twice = 0;
    return found;
  },
});
