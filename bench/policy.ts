/**
 * Decisions per second of one core, with everything on: 12 rules of every effect, 5 routes, classes, residency, consent
 * over linked identifiers, hashing, masking, minimisation to bytes. No broker. `node scripts/setup.mjs node bench/policy.ts`
 */
import { readAdapterFile, registry } from '@weir/adapters';
import { checkUse, createLimits, decide, type ConsentEntry } from '@weir/policy';
import { compileRelease, readWorkspace, withDefaults } from '@weir/release';
import { loadSchemas } from '@weir/schemas';
import avsc from 'avsc';
import { cpus } from 'node:os';
import { join } from 'node:path';

const seconds = 5;
const distinct = 2000;
const rules = `rules:
  - { name: all, effect: allow, when: source != "legacy" }
  - { name: nobody, effect: deny, when: 'record.email != null && re(record.email, "@(example\\\\.invalid|test\\\\.invalid)$")' }
  - { name: minors, effect: deny, purpose: email-marketing, when: has(record.attributes.minor) }
  - { name: stay, effect: residency, residency: { subject: [EEA], destinations: [adequate] } }
  - { name: where, effect: deny, when: 'destination == "newsletter" && inRegion(region, "CN")' }
  - { name: split, effect: route, when: record.plan == "none", route: { to: [crm], among: [crm, klaviyo] } }
  - { name: nights, effect: delay, purpose: email-marketing, quietHours: { from: "22:00", to: "07:00", timezone: Europe/Berlin } }
  - { name: often, effect: limit, when: operation == "insert", limit: { count: 1000000, per: 1d } }
  - { name: hash, effect: hash, when: destination == "warehouse", hash: { as: meta, fields: [email, phone] } }
  - { name: mask, effect: mask, when: destination == "warehouse", mask: { fields: [postalCode], first: 2 } }
  - { name: drop, effect: minimise, fields: [title, gender] }
  - { name: big, effect: require-approval, when: record.balance > 1000000000 }
`;

const workspace = join(import.meta.dirname, '..', 'workspace');
const files = withDefaults(readWorkspace(workspace), registry, readAdapterFile).filter((f) => !f.path.startsWith('policies/'));
const release = compileRelease([...files, { path: 'policies/bench.yaml', content: rules }], { adapters: registry, workspaceKey: Buffer.alloc(32) });
const type = avsc.Type.forSchema(loadSchemas().get('weir.canonical.Profile') as avsc.Schema);
const records = Array.from({ length: distinct }, (_, i) => {
  const record = type.clone({
    id: `out_${i}`, source: 'segment', objectKey: `user_${i}`, occurredAt: 1_770_000_000_000, userId: `user_${i}`, email: `person.${i}@example.com`, phone: `+4930${1_000_000 + i}`, firstName: 'Ada', lastName: 'Lovelace', title: 'Countess', gender: 'f',
    birthday: '1985-02-06', locale: 'de-DE', timezone: 'Europe/Berlin', street: 'Unter den Linden 1', city: 'Berlin', postalCode: '10117', country: 'DE', plan: 'gold', lifecycleStage: 'customer', currency: 'EUR', balance: 500, attributes: { tier: 'gold', shop: 'berlin' },
    extras: '{"utm":"x","referrer":"https://example.com/a/b/c"}',
  }, { wrapUnions: false });
  const bytes = Buffer.concat([Buffer.from([0, 0, 0, 0, 1]), type.toBuffer(record)]);
  return { bytes, record: type.fromBuffer(bytes.subarray(5)) as Record<string, unknown>, ids: [`userId:u${i}`, `email:e${i}`, `phone:p${i}`], key: `userId:u${i}` };
});
const granted: readonly ConsentEntry[] = [{ purpose: 'email-marketing', channel: 'email', topic: '', state: 'granted', version: 1, expiresAt: null }];
const { take } = createLimits();
const now = 1_770_000_000_000;

function run(until: number): { records: number; decided: number; sent: number; bytes: number } {
  const total = { records: 0, decided: 0, sent: 0, bytes: 0 };
  while (performance.now() < until) {
    for (const { bytes, record, ids, key } of records) {
      const decisions = decide(release.policy, { recordName: 'Profile', record, source: 'segment', key, ids, eventId: 'evt_1', acceptedAt: now }, {
        now, take, consent: (linked, route) => checkUse(linked, route.purpose!, route.channel ?? null, route.topic ?? null, release.policy.purposes.get(route.purpose!)!.legalBasis, () => granted, now),
      });
      for (const decision of decisions) {
        if (decision.effect !== 'allow') continue;
        total.sent++;
        total.bytes += decision.minimiser.bytes(bytes).length;
      }
      total.records++;
      total.decided += decisions.length;
    }
  }
  return total;
}

run(performance.now() + 1000);
const cpu = process.cpuUsage();
const began = performance.now();
const total = run(began + seconds * 1000);
const elapsed = (performance.now() - began) / 1000;
const used = process.cpuUsage(cpu);
const core = (used.user + used.system) / 1e6;
const per = (n: number, by: number): string => Math.round(n / by).toLocaleString('en');
process.stdout.write(`${new Date().toISOString()}  ${cpus()[0]?.model ?? ''} x${cpus().length}\n`);
process.stdout.write(`${per(total.decided, core)} deliveries decided per second of one core (${per(total.records, core)} records, ${per(total.sent, core)} minimised payloads); wall ${elapsed.toFixed(1)} s, cpu ${core.toFixed(1)} s\n`);
