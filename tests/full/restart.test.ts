import { expect, inject, test } from 'vitest';
import { discrepancies, runWithRestarts } from '../integrity/accounting.ts';

test('4,000 events through separate processes, each killed and restarted half-way: every event and delivery accounted for, effects once and in order', async () => {
  const options = { brokers: inject('brokers'), registryUrl: inject('registryUrl'), events: 4000, people: 40, settleMs: 80_000, slowMs: 40 };
  const run = await runWithRestarts(options);
  try {
    const { problems, figures } = await discrepancies(options, run);
    expect(problems).toEqual([]);
    // 2,000 identify: crm, warehouse, newsletter (denied); 2,000 track: warehouse.
    expect(figures).toMatchObject({ accepted: 4000, deliveries: 8000, delivered: 6000, denied: 2000, effects: 6000, keys: 6000 });
  } finally {
    await run.fleet.dispose();
  }
}, 180_000);
