import { simulate } from './world.ts';
import { check } from './checkers.ts';
const from = Number(process.argv[2]), n = Number(process.argv[3]);
const codes: Record<string, number> = {}; let states: Record<string, number> = {}; let dup = 0;
for (let seed = from; seed < from + n; seed++) {
  const { history } = await simulate(seed);
  const p = check(history); if (p.length) console.log(seed, p.slice(0, 3));
  const seen = new Set<string>();
  for (const r of history.records.get('sim.ledger.warehouse')!.flat()) if (r.key!.toString().endsWith('#end')) { const { value } = history.decode(r.value!); if (value.state === 'failed-over') codes[value.code] = (codes[value.code] ?? 0) + 1; }
  for (const r of history.records.get('sim.dispatch.newsletter')!.flat()) { const { value } = history.decode(r.value!); if (value.failedOver) { if (seen.has(value.outputId)) dup++; seen.add(value.outputId); } }
  for (const r of history.records.get('sim.ledger.newsletter')!.flat()) if (r.key!.toString().endsWith('#end')) { const { value } = history.decode(r.value!); if (value.operation !== 'subscribe' && value.operation !== 'unsubscribe') states[value.state] = (states[value.state] ?? 0) + 1; }
}
console.log({ codes, states, dup });
process.exit(0);
