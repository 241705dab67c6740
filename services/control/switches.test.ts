import type { OutRecord } from '@weir/log';
import type { DestinationSwitch } from '@weir/release';
import { expect, test } from 'vitest';
import { createSwitchApi } from './switches.ts';

/** What was done, in order; `left` is what the barrier answers. */
function world(left: readonly string[] | undefined, appendMs = 0) {
  const done: string[] = [];
  const switches = new Map<string, DestinationSwitch>();
  const time = { monotonic: 1000 };
  const api = createSwitchApi({ releases: { current: () => ({ destinations: new Map([['crm', {}]]) }), switches: () => switches }, serde: { encode: (_name: string, value: object) => Buffer.from(JSON.stringify(value)) }, topics: { control: 'c' }, clock: { now: () => 5, monotonic: () => time.monotonic } } as never, {
    append: async (topic: string, [record]: readonly OutRecord[]) => {
      done.push(`${topic} ${record!.key!.toString()} ${(JSON.parse(record!.value!.toString()) as DestinationSwitch).paused}`);
      time.monotonic += appendMs;
      return [41];
    },
  } as never, { switchedOff: async (offset, deadlineMs) => { done.push(`asked ${offset}, ${deadlineMs} ms`); return left; } });
  return { api, done };
}
const by = { actor: 'token:a', leaf: 'leaf_1' };

test('a pause is answered with whether every dispatcher has it, and who has not; a resume asks nobody', async () => {
  const all = world([]);
  expect(await all.api.set('crm', true, 'wrong', by)).toEqual({ destination: 'crm', paused: true, reason: 'wrong', by: 'token:a', since: new Date(5).toISOString(), applied: true, missing: [] });
  expect(all.done).toEqual(['c switch/crm true', 'asked 41, 25000 ms']);
  expect(await all.api.set('crm', false, null, by)).toMatchObject({ paused: false, applied: true, missing: [] });
  expect(all.done.slice(2)).toEqual(['c switch/crm false']);
  expect(await world(['d2']).api.set('crm', true, null, by)).toMatchObject({ paused: true, applied: false, missing: ['d2'] });
  expect(await world(undefined).api.set('crm', true, null, by)).toMatchObject({ paused: true, applied: false, missing: [] });
  await expect(all.api.set('other', true, null, by)).rejects.toThrow('no destination other');
});

test('what the record took of the time is not waited for once more, and who has read it can still say so', async () => {
  const slow = world([], 9000);
  await slow.api.set('crm', true, null, by);
  const late = world([], 40_000);
  await late.api.set('crm', true, null, by);
  expect([slow.done[1], late.done[1]]).toEqual(['asked 41, 16000 ms', 'asked 41, 1000 ms']);
});
