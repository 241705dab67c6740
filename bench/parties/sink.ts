/** A destination that counts: every call is answered 200, and so is every item of one to `…/bulk`. Keys that came twice, and the time since the stamp in the title of a body, are kept. */
import { createServer } from 'node:http';
import { answer, clock, percentiles } from './helper.ts';

const keys = new Set<string>();
let calls = 0;
let items = 0;
let twice = 0;
let stamps: number[] = [];
const waiting: { readonly count: number; readonly done: () => void }[] = [];

function take(key: string | undefined): void {
  items++;
  if (key === undefined) return;
  if (keys.has(key)) twice++;
  keys.add(key);
}

const server = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => chunks.push(chunk)).on('end', () => {
    calls++;
    const body = Buffer.concat(chunks).toString('latin1');
    let answered = '{}';
    if (request.url!.endsWith('/bulk')) {
      const ids = [...body.matchAll(/"id":"(dlv_[0-9a-f]{32})"/g)].map((match) => match[1]!);
      ids.forEach(take);
      answered = JSON.stringify({ results: ids.map((id) => ({ id, status: 200 })) });
    } else take(request.headers['idempotency-key'] as string | undefined);
    const stamp = /"title":"(\d+\.?\d*)"/.exec(body)?.[1];
    if (stamp !== undefined) stamps.push(clock() - Number(stamp));
    response.setHeader('content-type', 'application/json');
    response.end(answered);
    for (let i = waiting.length - 1; i >= 0; i--) if (items >= waiting[i]!.count) waiting.splice(i, 1)[0]!.done();
  });
});
server.keepAliveTimeout = 60_000;

answer({
  listen: () => new Promise((done) => server.listen(0, '127.0.0.1', () => done((server.address() as { port: number }).port))),
  /** Resolves when there were so many deliveries, one or many a call. */
  until: (count: number) => (items >= count ? true : new Promise((done) => waiting.push({ count, done: () => done(true) }))),
  /** Counts since the last one, and times since what was stamped was due: `begin` is when the stamps begin. */
  result(begin = 0) {
    const found = { calls, items, distinct: keys.size, twice, ...percentiles(Float64Array.from(stamps, (stamp) => stamp - begin)) };
    keys.clear();
    stamps = [];
    calls = 0;
    items = 0;
    twice = 0;
    return found;
  },
});
