import type { Follower, LogAdmin, Reader, RecordBatch, Serde } from '@weir/log';

interface ControlPorts {
  readonly reader: Pick<Reader, 'read'>;
  readonly admin: Pick<LogAdmin, 'endOffsets'>;
  /** weir.control, which has one partition. */
  readonly topic: string;
}
type TakeBatch = (batch: RecordBatch) => void | Promise<void>;

/** Reads weir.control from its first record to its end of now. @returns the offset of that end */
export async function readControl({ reader, admin, topic }: ControlPorts, take: TakeBatch): Promise<number> {
  const end = (await admin.endOffsets(topic)).get(0) ?? 0;
  await reader.read(topic, 0, 0, end, take);
  return end;
}

/** As `readControl`, then follows it: what another instance writes counts here, too. `failed` is told what following ends with, unless it is closed. */
export async function followControl(ports: ControlPorts & { readonly reader: Pick<Reader, 'follow'> }, take: TakeBatch, failed: (error: Error) => void): Promise<Follower> {
  const end = await readControl(ports, take);
  return ports.reader.follow(ports.topic, new Map([[0, end]]), take, failed);
}

/** For `readControl` and `followControl`: the values under keys that begin so, decoded, in order. What was deleted is passed over. */
export function valuesUnder<T>(serde: Pick<Serde, 'prepare' | 'decode'>, prefix: string, take: (value: T) => void): TakeBatch {
  return async (batch) => {
    for (const { key, value } of batch.records) {
      if (value === null || key?.toString('latin1').startsWith(prefix) !== true) continue;
      await serde.prepare(value);
      take(serde.decode(value).value as T);
    }
  };
}
