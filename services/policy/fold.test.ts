import type { ConsumerHandlers, OutRecord } from '@weir/log';
import { groupNames, topicNames } from '@weir/pipeline';
import type { ConsentState } from '@weir/policy';
import { expect, test } from 'vitest';
import { createFolder } from './fold.ts';
import type { PolicyPorts } from './ports.ts';

/** A folder that owns partition 0, with tables that say what they are told to. */
async function world() {
  const topics = topicNames('t');
  const appended: OutRecord[] = [];
  const table = { regressed: [] as string[], position: 0 };
  let handlers: ConsumerHandlers | undefined;
  let advance: () => void = () => {};
  let offset = 100;
  createFolder({
    context: {
      topics, groups: groupNames('t'), serde: { encode: (_name: string, value: object) => Buffer.from(JSON.stringify(value)) }, logger: { warn() {} },
      log: { consumer: (options: { handlers: ConsumerHandlers }) => { handlers = options.handlers; return {}; } },
    },
    appender: { append: async (_topic: string, records: readonly OutRecord[]) => { appended.push(...records); return records.map(() => offset++); } },
    tables: {
      readToEnd: async () => {}, regressed: () => table.regressed, consentPositions: () => [table.position], onAdvance: (listener: () => void) => { advance = listener; },
      stored: (key: string) => ({ partition: 0, state: { version: 7 } as ConsentState, bytes: Buffer.from(`the newest of ${key}`) }),
    },
    fail: (error: unknown) => { throw error as Error; },
  } as unknown as PolicyPorts);
  await handlers!.assigned([{ topic: topics.consentChanges, partition: 0, epoch: 1, position: 0 }]);
  appended.length = 0;
  /** The table has read what the topic holds, and says that these keys were overwritten. */
  const read = async (regressed: string[]): Promise<string[]> => {
    table.regressed = regressed;
    table.position = offset;
    advance();
    advance();
    for (let i = 0; i < 10; i++) await Promise.resolve();
    return appended.splice(0).map(({ key, value }) => `${key!.toString()}: ${value!.toString()}`);
  };
  return { read };
}

// Compaction leaves only the last record of a key: a dispatcher with an empty cache would have read the older one, a grant perhaps.
test('a state that a late writer overwrote is written again when that is seen, once, not only at the next assignment', async () => {
  const { read } = await world();
  expect(await read(['a'])).toEqual(['a: the newest of a']);
  expect(await read([])).toEqual([]);
  expect(await read(['a', 'b'])).toEqual(['a: the newest of a', 'b: the newest of b']);
});
