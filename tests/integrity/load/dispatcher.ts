/**
 * A dispatcher as services/dispatcher/main.ts starts it, with a clock that can be put forward and a look at its memory.
 * Orders come by IPC: { advance: ms } lets simulated time pass at once, { look: true } answers what it holds.
 */
import { readFileSync } from 'node:fs';
import { registry } from '@weir/adapters';
import { readConfig } from '@weir/config';
import type { GroupConsumerOptions } from '@weir/log';
import { createContext, type Clock } from '@weir/service';
import { createDispatcher } from '../../../services/dispatcher/app.ts';
import { options } from '../../../services/dispatcher/config.ts';

export type Order = { readonly advance: number } | { readonly look: true };
export interface Look {
  /** Anonymous memory after a collection, bytes; mapped files (local tables) are not in it. */
  readonly rssAnon: number;
  readonly heapUsed: number;
  readonly external: number;
  readonly metrics: string;
}

let offset = 0;
const timers = new Set<{ readonly due: number; readonly callback: () => void; real: NodeJS.Timeout }>();
const clock: Clock = {
  now: () => Date.now() + offset,
  monotonic: () => performance.now() + offset,
  random: Math.random,
  setTimer(callback, ms) {
    const timer = { due: clock.monotonic() + ms, callback: () => { timers.delete(timer); callback(); }, real: undefined as unknown as NodeJS.Timeout };
    timer.real = setTimeout(timer.callback, ms);
    timers.add(timer);
    return timer;
  },
  clearTimer(handle) {
    const timer = handle as { real: NodeJS.Timeout } | undefined;
    if (timer === undefined) return;
    clearTimeout(timer.real);
    timers.delete(timer as never);
  },
};

function advance(ms: number): void {
  offset += ms;
  for (const timer of timers) {
    clearTimeout(timer.real);
    timer.real = setTimeout(timer.callback, Math.max(0, timer.due - clock.monotonic()));
  }
}

async function look(metrics: () => Promise<string>): Promise<Look> {
  for (let i = 0; i < 3; i++) {
    globalThis.gc!();
    await new Promise((done) => setTimeout(done, 20));
  }
  const rssAnon = Number(/^RssAnon:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'))![1]) * 1024;
  const { heapUsed, external } = process.memoryUsage();
  return { rssAnon, heapUsed, external, metrics: await metrics() };
}

const config = readConfig(options);
const context = await createContext('dispatcher', config, registry, process.env);
// The group's lease is kept on the real clock, by the brokers: it is told in the time of this process.
const log = { ...context.log, consumer: (given: GroupConsumerOptions) => { const consumer = context.log.consumer(given); return { ...consumer, leaseUntil: () => consumer.leaseUntil() + offset }; } };
const service = createDispatcher({ ...context, log, clock }, config);
void service.failed.then((error) => {
  console.error(error);
  process.exit(1);
});
process.on('message', (order: Order) => {
  if ('advance' in order) advance(order.advance);
  else void look(() => context.registry.metrics()).then((found) => process.send!(found));
});
process.on('disconnect', () => process.exit(0));
await service.start();
process.send!('started');
