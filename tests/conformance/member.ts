/** A group member in a process of its own, to be stopped and blocked from outside. Tells its history over IPC. */
import { createLog, type Assignment, type LogOptions } from '@weir/log';
import { createMember, type History } from './traffic.ts';
import type { Event } from './checker.ts';
import type { World } from './world.ts';

export interface ChildOptions extends LogOptions {
  readonly topic: string;
  readonly groupId: string;
  readonly name: string;
  readonly sessionTimeoutMs: number;
}
/** What it was asked; `block` = keep the event loop busy, then say in the same turn what is still held. */
export type Asked = { readonly block: number } | 'close';
export type Told =
  | { readonly event: Event }
  /** It takes these for its own at this moment (milliseconds of the wall clock). */
  | { readonly holds: readonly number[]; readonly at: number; readonly now?: true }
  | { readonly commit: string }
  | { readonly started: true }
  | { readonly failed: string };

const options = JSON.parse(process.argv[2]!) as ChildOptions;
const tell = (told: Told): void => { process.send!(told); };
const clock = (): number => performance.timeOrigin + performance.now();
const log = createLog(options);
const events = { push(event: Event) { tell({ event }); return 0; } } as unknown as Event[];
const history: History = { events, topic: options.topic, groupId: options.groupId, value: () => '', atEnd() {} };
const member = createMember({ name: () => options.name } as unknown as World, log, history, { sessionTimeoutMs: options.sessionTimeoutMs, handlers: { failed: (error) => tell({ failed: String(error) }) } });
const held = (parts: readonly Assignment[]): number[] => parts.filter((p) => member.consumer.holds(p.topic, p.partition, p.epoch)).map((p) => p.partition);

/** The last assignment that had partitions: what a zombie believes in. */
let believed: readonly Assignment[] = [];
let last = clock();
setInterval(() => {
  const stoodStill = clock() - last > options.sessionTimeoutMs;
  last = clock();
  tell({ holds: held(believed), at: clock(), ...(stoodStill ? { now: true as const } : {}) });
  if (stoodStill) commitAsZombie();
  const parts = member.consumer.assignments();
  if (parts.length > 0) believed = parts;
}, 20);

function commitAsZombie(): void {
  const [part] = believed;
  if (part === undefined) return;
  // Far past everything: if it were taken, records would be skipped.
  member.consumer.commit([{ topic: part.topic, partition: part.partition, epoch: part.epoch, offset: 1_000_000 }]).then(() => tell({ commit: 'taken' }), (error: unknown) => tell({ commit: (error as { code?: string }).code ?? String(error) }));
}

process.on('message', (asked: Asked) => {
  if (asked === 'close') {
    void member.consumer.close().then(() => log.close()).then(() => process.exit(0));
    return;
  }
  const end = performance.now() + asked.block;
  while (performance.now() < end);
});
process.on('disconnect', () => process.exit(1));
await member.consumer.start();
tell({ started: true });
