import { keyedId } from '@weir/pipeline';
import { expect, test } from 'vitest';
import { createConsentLookup } from './consent.ts';

test('the consent of a telephone number is found however it is written: mappings keep it in E.164', () => {
  const workspaceKey = Buffer.alloc(32, 1);
  const asked: string[] = [];
  const tables = { caughtUp: () => true, linked: (ids: readonly string[]) => { asked.push(...ids); return ids; }, states: () => [], check: () => ({ ok: true }) };
  const releases = { current: () => ({ policy: { purposes: new Map() } }) };
  createConsentLookup({ workspaceKey, releases, clock: { now: () => 0 } } as never, tables as never).lookup([{ phone: '+49 30 90018 20' }, { phone: '+49309001820' }, { phone: 'no number' }]);
  expect(asked).toEqual(['+49309001820', '+49309001820', 'no number'].map((value) => `phone:${keyedId(workspaceKey, 'phone', value)}`));
});
