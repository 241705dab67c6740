import { expect, test } from 'vitest';
import { sumOf, type Round } from './results.ts';
import { chaosTable } from './tables.ts';

const round = (over: Partial<Round>): Round => ({ commit: 'abc1234', at: '2026-11-28T00:00:00Z', machine: '2 cores', seed: 1, round: 0, seconds: 60, kills: 10, uncounted: 1, endedByThemselves: 0, events: 100, effects: 90, faults: {}, points: { 'ingest random': 3 }, violations: {} as Round['violations'], firstViolations: [], ...over });

test('a run says which proxy its network failed by; one of before that was told is read as it is', () => {
  expect(chaosTable([round({})])).toContain('| 2026-11-28 `abc1234`, seed 1, 2 cores | 1 |');
  expect(chaosTable([round({ proxy: 'own' })])).toContain('seed 1, 2 cores, own proxy | 1 |');
  expect(chaosTable([round({ proxy: 'toxiproxy' }), round({ round: 1, proxy: 'own' }), round({ round: 2 })])).toContain('2 cores, Toxiproxy, own proxy | 3 |');
  expect(sumOf([round({}), round({ proxy: 'own', answers: { 503: 2 } })]).kills).toBe(20);
});
