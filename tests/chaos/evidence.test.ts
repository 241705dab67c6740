import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { keepEvidence, tidy } from './evidence.ts';
import type { History } from './history.ts';

const linesOf = (file: string): unknown[] => readFileSync(file, 'utf8').split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as unknown);

test('of a round with a violation the folder stays, with what the services wrote and what the checkers saw; of another one nothing does', () => {
  const dir = mkdtempSync(join(tmpdir(), 'weir-evidence-'));
  const dataDir = mkdtempSync(join(tmpdir(), 'weir-fleet-'));
  mkdirSync(join(dataDir, 'logs'));
  writeFileSync(join(dataDir, 'logs/policy-2.log'), 'a line');
  const canonical = Array.from({ length: 2500 }, (_, n) => ({ output: `o${n}`, value: Buffer.from([n & 255]) }));
  const history = { canonical, leaves: [{ bytes: Buffer.from('{"id":"leaf_1"}'), at: 3 }], releases: new Set(['r1']), switches: new Map([['crm', true]]), unreadable: 2, letters: [{ event: 'e1', value: null }] } as unknown as History;
  const world = {
    dir, fleet: { dataDir },
    traffic: { log: { answered: new Map([['u-1', ['e1', 'e2']]]), refusals: [{ at: 1, instance: 2, status: 500, retryAfter: null }] } },
    operators: { log: { pauses: [], switches: new Map([['crm', false]]), tokens: new Map(), replays: new Set(['rpl_1']), erasures: [], odd: ['x'] } },
  } as unknown as Parameters<typeof keepEvidence>[0];
  try {
    expect(keepEvidence(world, ['I7: ingest 2 answered 500'], history)).toBe(dir);
    tidy(dataDir, false);
    tidy(dir, true);
    const at = (name: string): string => join(dir, 'history', name);
    expect(readFileSync(join(dir, 'violations.txt'), 'utf8')).toBe('I7: ingest 2 answered 500\n');
    expect(readFileSync(join(dir, 'fleet/logs/policy-2.log'), 'utf8')).toBe('a line');
    expect(linesOf(at('canonical.jsonl'))).toHaveLength(2500);
    expect(linesOf(at('canonical.jsonl'))[2001]).toEqual({ output: 'o2001', value: Buffer.from([2001 & 255]).toString('base64') });
    expect([linesOf(at('leaves.jsonl')), linesOf(at('releases.jsonl')), linesOf(at('switches.jsonl')), linesOf(at('letters.jsonl'))]).toEqual([[{ leaf: '{"id":"leaf_1"}', at: 3 }], ['r1'], [['crm', true]], [{ event: 'e1', value: null }]]);
    expect([linesOf(at('answered.jsonl')), linesOf(at('refusals.jsonl'))]).toEqual([[['u-1', ['e1', 'e2']]], [{ at: 1, instance: 2, status: 500, retryAfter: null }]]);
    expect(JSON.parse(readFileSync(at('operators.json'), 'utf8'))).toMatchObject({ switches: [['crm', false]], replays: ['rpl_1'], odd: ['x'] });
  } finally {
    tidy(dataDir, false);
    tidy(dir, false);
  }
  expect([existsSync(dir), existsSync(dataDir)]).toEqual([false, false]);
});
