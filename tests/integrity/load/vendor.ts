/**
 * A vendor for loads that would fill the sandbox's log: it keeps counts, not requests. POST /<destination> with
 * { who, n, at }: n grows per person, so order and repetitions show without a log. IPC: { down: [names] } answers 503
 * there, { look: name } tells and forgets the latencies.
 */
import { createServer } from 'node:http';

export type Order = { readonly down: readonly string[] } | { readonly look: string };
export interface Look {
  readonly effects: number;
  readonly refused: number;
  readonly people: number;
  readonly outOfOrder: number;
  readonly repeated: number;
  /** ms from the record's birth to its arrival, since the last look. */
  readonly p50: number;
  readonly p99: number;
  readonly measured: number;
}

interface Kept { readonly last: Map<string, number>; latencies: number[]; effects: number; refused: number; outOfOrder: number; repeated: number }
const kept = new Map<string, Kept>();
let down: ReadonlySet<string> = new Set();

function of(name: string): Kept {
  let found = kept.get(name);
  if (found === undefined) kept.set(name, found = { last: new Map(), latencies: [], effects: 0, refused: 0, outOfOrder: 0, repeated: 0 });
  return found;
}

function take(name: string, body: string): void {
  const vendor = of(name);
  const { who, n, at } = JSON.parse(body) as { who: string; n: number; at: number };
  const last = vendor.last.get(who) ?? -1;
  if (n === last) vendor.repeated++;
  else if (n < last) vendor.outOfOrder++;
  else vendor.last.set(who, n);
  vendor.effects++;
  vendor.latencies.push(Date.now() - at);
}

const server = createServer((request, response) => {
  const name = request.url!.slice(1);
  let body = '';
  request.setEncoding('utf8');
  request.on('data', (text: string) => { body += text; });
  request.on('end', () => {
    const refuse = down.has(name);
    if (refuse) of(name).refused++;
    else take(name, body);
    response.writeHead(refuse ? 503 : 200, { 'content-length': '2' }).end('{}');
  });
});
server.keepAliveTimeout = 60_000;

process.on('message', (order: Order) => {
  if ('down' in order) down = new Set(order.down);
  else {
    const { last, latencies, ...counts } = of(order.look);
    const sorted = latencies.toSorted((a, b) => a - b);
    of(order.look).latencies = [];
    const at = (q: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? 0;
    process.send!({ ...counts, people: last.size, p50: at(0.5), p99: at(0.99), measured: sorted.length } satisfies Look);
  }
});
process.on('disconnect', () => process.exit(0));
server.listen(0, '127.0.0.1', () => process.send!((server.address() as { port: number }).port));
