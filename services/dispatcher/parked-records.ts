import { WeirError } from '@weir/errors';
import type { Headers, LogRecord, OutRecord } from '@weir/log';
import { H, patiently, soon } from '@weir/pipeline';
import type { DestinationPorts } from './ports.ts';
import { createReadAhead } from './read-ahead.ts';
import { readDelivery } from './read-delivery.ts';
import type { DeliveryValue, Task } from './types.ts';

/**
 * The deliveries of one partition on weir.parked.<destination>: each record as it came from the dispatch topic, with one header
 * (`H.dispatched`) of where it stood there, since when, and since when it may have been called and was in trouble before it was parked.
 */
export interface ParkedRecords {
  /** Their offsets, once they are acknowledged. */
  append(tasks: readonly Task[]): Promise<readonly number[]>;
  /** The delivery at this offset. Rejects with log-out-of-range when the topic has lost it; waits while brokers, registry or keys are away, until it is `closed`: with log-assignment-stale then, where it has not been shown. */
  get(offset: number): Promise<Task>;
  /** The delivery of a record that was read from the topic. Rejects as `get` does. */
  decode(record: LogRecord): Promise<Task>;
}

interface Context {
  readonly ports: DestinationPorts;
  readonly partition: number;
  createTask(delivery: DeliveryValue, record: LogRecord, offset: number, parkedOffset: number, queuedAt: number): Task;
  /** Nobody waits for it any more. */
  closed(): boolean;
}

/** Looks for a parked record that is acknowledged and not shown, 200 ms apart: as long as a broker takes to learn that another one leads. */
const maxMisses = 300;

export function createParkedRecords({ ports, partition, createTask, closed }: Context): ParkedRecords {
  const topic = ports.topics.parked(ports.name);
  const ahead = createReadAhead(ports.reader, topic, partition);

  function recordOf(task: Task): OutRecord {
    const since = [task.maybeSince, task.trouble?.since ?? 0];
    while (since.at(-1) === 0) since.pop();
    const headers: Headers = [...task.record.headers.filter(([name]) => name !== H.dispatched), [H.dispatched, Buffer.from([task.offset, task.queuedAt, ...since].join(':'))]];
    return { partition, key: task.record.key, value: task.record.value, headers };
  }

  /** Undefined = it is gone. A leader that was cut off and does not know it yet may not show it, though it was acknowledged: it is waited for a while. */
  async function found(offset: number): Promise<LogRecord | undefined> {
    for (let misses = 0; ; misses++) {
      const record = await ahead.get(offset);
      if (record !== undefined || closed() || misses >= maxMisses || ((await ports.admin.beginningOffsets(topic)).get(partition) ?? 0) > offset) return record;
      await soon(ports.clock);
    }
  }

  async function decode(record: LogRecord): Promise<Task> {
    const delivery = await readDelivery(ports, record.value, closed);
    const at = record.headers.find(([name]) => name === H.dispatched)?.[1].toString('utf8').split(':') ?? ['-1', '0'];
    return Object.assign(createTask(delivery, record, Number(at[0]), record.offset, Number(at[1])), { maybeSince: Number(at[2] ?? 0), trouble: at[3] === undefined ? undefined : { since: Number(at[3]), at: Number(at[3]) } });
  }

  return {
    append: (tasks) => ports.appender.append(topic, tasks.map(recordOf)),
    async get(offset) {
      const record = await patiently(ports.clock, closed, () => found(offset));
      if (record === undefined && closed()) throw new WeirError('log-assignment-stale', `${topic}/${partition} is another one's`);
      if (record === undefined) throw new WeirError('log-out-of-range', `${topic}/${partition} lost offset ${offset} of a parked delivery before it was sent`, { details: { offset } });
      return decode(record);
    },
    decode,
  };
}
