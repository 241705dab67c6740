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

test('whether anybody is known: by a key, a link, a mark, or a state that is more than a no of the consent API', () => {
  const workspaceKey = Buffer.alloc(32, 1);
  const own = `anonymousId:${keyedId(workspaceKey, 'anonymousId', 'a-1')}`;
  type World = { links?: readonly string[] | 'wide'; states?: ReadonlyArray<readonly [state: string, source: string]> | 'too-many'; key?: boolean; mark?: boolean; sealing?: boolean };
  const known = ({ links = [], states = [], key = false, mark = false, sealing = true }: World) => {
    const tables = {
      caughtUp: () => true, linked: (ids: readonly string[]) => (links === 'wide' ? undefined : [...ids, ...links]), check: () => ({ ok: true }),
      states: (id: string) => (id !== own ? [] : states === 'too-many' ? states : states.map(([state], i) => ({ purpose: String(i), channel: '', topic: '', state, expiresAt: null }))),
      stored: (at: string) => { const i = Number(at.split('|')[1]); return { state: { source: (states as ReadonlyArray<readonly [string, string]>)[i]![1] } }; },
    };
    const keys = sealing ? { current: (id: string) => (key && id === own ? {} : undefined), erasedUntil: () => (mark ? 5 : 0) } : undefined;
    return createConsentLookup({ workspaceKey, keys, releases: { current: () => ({ policy: { purposes: new Map() } }) }, clock: { now: () => 0 } } as never, tables as never).lookup([{ anonymousId: 'a-1' }])[0]!.known;
  };
  expect(known({})).toBe('nobody');
  for (const one of [{ key: true }, { mark: true }, { links: ['email:x'] }, { links: 'wide' }, { states: 'too-many' }, { states: [['granted', 'consent-api']] }, { states: [['withdrawn', 'consent-api'], ['denied', 'shop']] }] as const) expect([one, known(one)]).toEqual([one, 'yes']);
  // A stop of before makes a key and a state: it says nothing of who else is known by it.
  expect(known({ key: true, states: [['withdrawn', 'consent-api'], ['denied', 'consent-api']] })).toBe('unclear');
  expect(known({ sealing: false })).toBe('unclear');
});
