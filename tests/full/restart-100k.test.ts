import { expect, inject, test } from 'vitest';
import { discrepancies, runWithRestarts } from '../integrity/accounting.ts';

test('100,000 events through separate processes, each killed and restarted half-way: every event and delivery accounted for, effects once and in order', async () => {
  const options = { brokers: inject('brokers'), registryUrl: inject('registryUrl'), events: 100_000, people: 5000, settleMs: 900_000 };
  const run = await runWithRestarts(options);
  try {
    const { problems, figures } = await discrepancies(options, run);
    console.log(JSON.stringify({ ...figures, sendSeconds: Math.round(run.sendMs / 1000), totalSeconds: Math.round(run.totalMs / 1000) }));
    expect(problems).toEqual([]);
    expect(figures).toMatchObject({ accepted: 100_000, deliveries: 200_000, delivered: 150_000, denied: 50_000, effects: 150_000, keys: 150_000 });
  } finally {
    await run.fleet.dispose();
  }
});
