/** A process with an idle member, follower and appender; measures itself and tells. */
import { createHook } from 'node:async_hooks';
import { createLog, type LogOptions } from '@weir/log';

export interface Measured {
  readonly cpuShare: number;
  readonly timersPerSecond: number;
  readonly warnings: readonly string[];
}

const measuredMs = 5000;
const { topic, groupId, ...options } = JSON.parse(process.argv[2]!) as LogOptions & { topic: string; groupId: string };
const warnings: string[] = [];
process.on('warning', (w) => { if (/Timeout/.test(w.name)) warnings.push(`${w.name}: ${w.message}`); });
const log = createLog(options);
const appender = await log.appender();
await appender.append(topic, [{ partition: 0, key: null, value: Buffer.from('x') }]);
const consumer = log.consumer({ groupId, topics: [topic], handlers: { async assigned() {}, async revoked() {}, batch() {}, failed(error) { throw error; } } });
await consumer.start();
await (await log.reader()).follow(topic, new Map(), () => {}, (error) => { throw error; });
// What is compiled and loaded at first is not idle.
await new Promise((done) => setTimeout(done, 2000));
let timers = 0;
createHook({ init(_id, type) { if (type === 'Timeout') timers++; } }).enable();
const [cpu, began] = [process.cpuUsage(), performance.now()];
await new Promise((done) => setTimeout(done, measuredMs));
const { user, system } = process.cpuUsage(cpu);
const ms = performance.now() - began;
const measured: Measured = { cpuShare: (user + system) / 1000 / ms, timersPerSecond: (timers * 1000) / ms, warnings };
process.send!(measured);
