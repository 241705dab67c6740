import type { Decision } from '@weir/policy';
import { beforeEach, expect, test } from 'vitest';
import type { Recorded } from './history.ts';
import { tallyFlips } from './rehearsal.ts';

const route = (destination: string) => ({ destination, operation: 'send', on: 'Profile', kind: 'use' as const, when: undefined });
const allow = (destination: string): Decision => ({ effect: 'allow', route: route(destination), rule: 'all', consent: [], notBefore: null, minimiser: {} as never });
const deny = (destination: string, reason: string, rule: string | null = null): Decision => ({ effect: 'deny', route: route(destination), rule, reason, consent: [] });
const hold = (destination: string): Decision => ({ effect: 'hold', route: route(destination), rule: 'big', reason: 'approval:big', consent: [], expiresMs: 1, escalate: false });
const recorded = (destination: string | null, effect: string, reason: string | null = null): Recorded => ({ destination, operation: destination === null ? null : 'send', effect, reason, rule: null, release: 'rel_a', at: 1, consent: [], outputId: 'out_a' });

let flips: Map<string, { count: number; readonly examples: string[] }>;
beforeEach(() => { flips = new Map(); });
const told = (...given: Parameters<typeof tallyFlips> extends [unknown, unknown, ...infer Rest] ? Rest : never): string[] => {
  tallyFlips({ flips }, 'evt_a', ...given);
  return [...flips].map(([key, { count }]) => `${count} ${key.split('\0').join('|')}`);
};

test('what is decided as it was recorded is no flip, whatever the running release says', () => {
  expect(told([recorded('crm', 'allow'), recorded('mail', 'deny', 'rule:x')], [deny('crm', 'rule:y')], [allow('crm'), deny('mail', 'rule:x', 'x')])).toEqual([]);
});
test('a flip names destination, what was, what would be, and the rule', () => {
  expect(told([recorded('crm', 'allow')], [], [deny('crm', 'rule:new', 'new')])).toEqual(['1 crm|send|allow|deny rule:new|new']);
  expect(told([recorded('crm', 'allow')], [], [deny('crm', 'rule:new', 'new')])).toEqual(['2 crm|send|allow|deny rule:new|new']);
});
test('a route that is gone, and one that is new, are flips', () => {
  expect(told([recorded('crm', 'allow')], [], [allow('mail')]).sort()).toEqual(['1 crm|send|allow|none|', '1 mail|send|none|allow|all']);
});
test('without a recorded decision the running release is the measure', () => {
  expect(told([], [allow('crm')], [deny('crm', 'no-allow-rule')])).toEqual(['1 crm|send|allow|deny no-allow-rule|']);
});
test('what an approver decided on a held delivery is not taken for a decision of the rules', () => {
  expect(told([recorded('crm', 'hold', 'approval:big'), recorded('crm', 'allow')], [], [hold('crm')])).toEqual([]);
  expect(told([recorded('crm', 'hold', 'approval:big'), recorded('crm', 'deny', 'approval-refused')], [], [hold('crm')])).toEqual([]);
  expect(told([recorded('crm', 'hold', 'approval:big'), recorded('crm', 'allow')], [], [allow('crm')])).toEqual(['1 crm|send|hold approval:big|allow|all']);
});
test('what lacked something for its destination was let through by the rules; a record that could not be read was not decided', () => {
  expect(told([recorded('crm', 'dead-letter', 'contract-breached'), recorded(null, 'dead-letter', 'avro-undecodable')], [], [allow('crm')])).toEqual([]);
});
test('examples are few, whatever the count', () => {
  for (let i = 0; i < 50; i++) tallyFlips({ flips }, `evt_${i}`, [recorded('crm', 'allow')], [], [deny('crm', 'rule:new', 'new')]);
  expect([...flips.values()].map(({ count, examples }) => [count, examples.length])).toEqual([[50, 5]]);
});
