/**
 * `node bench/fold-path.ts [changes]`: what a no that is said with every call (Global Privacy Control) costs in the fold, in one
 * process without a broker: µs of CPU to fold it and encode its state, and the bytes that go onto the topics for it.
 */
import { eventId, outputId } from '@weir/pipeline';
import { foldConsent, type ConsentState } from '@weir/policy';
import { createLocalSerde } from '@weir/testing';

const changes = Number(process.argv[2] ?? 50_000);
const stateName = 'weir.internal.ConsentState';
const changeName = 'weir.canonical.ConsentChange';
const id = `anonymousId:${'k'.repeat(22)}`;
const serde = await createLocalSerde();

const outputOf = (n: number): string => outputId(eventId('segment', [String(n)]), 'privacy-control', '');
let state: ConsentState | undefined;
let bytes = 0;
const began = process.cpuUsage();
for (let n = 0; n < changes; n++) {
  state = foldConsent(state, id, { changeId: outputOf(n), purpose: 'advertising', channel: '', topic: '', state: 'denied', source: 'segment', acceptedAt: 1_700_000_000_000 + n * 1000, loggedAt: 1_700_000_000_000 + n * 1000, legalBasis: null, proof: null, expiresAt: null, repeats: true }, n);
  bytes += serde.encode(stateName, state!).length;
}
const { user, system } = process.cpuUsage(began);
const change = serde.encode(changeName, { id: outputOf(0), source: 'segment', objectKey: null, occurredAt: 1_700_000_000_000, purpose: 'advertising', state: 'denied', reason: 'gpc', anonymousId: 'a-1' });
console.log(`${changes} changes of one person: ${((user + system) / changes).toFixed(1)} µs of CPU each (id, fold, state encoded), state ${Math.round(bytes / changes)} bytes, change ${change.length} bytes, before compression`);
