import { compileEncoder, type Sink } from '@weir/log';
import type { CompiledRoute } from '@weir/policy';
import { loadSchemas } from '@weir/schemas';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Canonical, Standby } from './delivery.ts';
import { createDeliveryBytes } from './delivery-bytes.ts';
import { Heads } from './heads.ts';

const whole = compileEncoder(loadSchemas().get('weir.internal.Delivery'))!;
const text = fc.string({ unit: 'binary', maxLength: 80 }).map((s) => s.toWellFormed());
const maybe = <T>(of: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> => fc.option(of, { nil: undefined });
const number = fc.integer({ min: 0, max: 2 ** 45 });
const route = fc.record({ destination: text, operation: text, kind: fc.constantFrom('use' as const, 'restrict' as const), on: text, purpose: maybe(text), channel: maybe(text), topic: maybe(text) }).map((of) => ({ ...of, when: undefined }) as CompiledRoute);
const routes = fc.array(route, { minLength: 1, maxLength: 3 });
const standby: fc.Arbitrary<Standby | null> = fc.option(fc.record({ destination: text, operation: text, refused: fc.option(text), rule: fc.option(text), payload: fc.option(fc.uint8Array({ maxLength: 40 }).map((b) => Buffer.from(b))), notBefore: fc.option(number) }));
const seen = fc.array(fc.record({ id: text, purpose: text, state: text, version: number }), { maxLength: 3 });
const delivery = fc.record({ route: fc.nat(2), rule: fc.constantFrom('a', 'b'), basis: fc.constantFrom(null, 'contract'), intent: text, consent: seen, notBefore: fc.option(number), payload: fc.uint8Array({ maxLength: 300 }).map((b) => Buffer.from(b)), standby });
const record = fc.record({
  name: fc.constantFrom('weir.canonical.Profile', 'weir.canonical.Event'), eventId: text, outputId: text, source: text, acceptedAt: number, now: number, hash: text,
  release: fc.constantFrom('rel_a', 'rel_b'), ids: fc.array(text, { maxLength: 4 }), consentOffsets: fc.array(number, { maxLength: 7 }), identityOffsets: fc.array(number, { maxLength: 7 }), deliveries: fc.array(delivery, { maxLength: 4 }),
});

test('deliveries that are put together of pieces have the bytes of those that are written whole, whatever the ones before were', () => {
  fc.assert(fc.property(routes, fc.array(record, { minLength: 1, maxLength: 5 }), (known, records) => {
    const bytes = createDeliveryBytes({ idOf: () => 77 });
    for (const { deliveries, hash, ...of } of records) {
      const heads = new Heads({ offset: 0, timestamp: 0, key: null, value: null, headers: [] });
      heads.hash = hash;
      const from = { ...of, heads } as unknown as Canonical;
      bytes.record(from);
      for (const { route: i, rule, basis, intent, consent, notBefore, payload, standby: second } of deliveries) {
        const to = known[i % known.length]!;
        const sink: Sink = { bytes: Buffer.alloc(8), at: 3 };
        bytes.delivery({ route: to, rule, consent, notBefore }, intent, basis, payload, second, sink);
        const wanted: Sink = { bytes: Buffer.alloc(64), at: 0 };
        whole(wanted, {
          outputId: of.outputId, eventId: of.eventId, destination: to.destination, operation: to.operation, kind: to.kind, recordType: of.name, payload, itemHash: hash, source: of.source, acceptedAt: of.acceptedAt, decidedAt: of.now,
          release: of.release, rule, purpose: to.purpose ?? null, channel: to.channel ?? null, topic: to.topic ?? null, legalBasis: basis, consent, consentOffsets: of.consentOffsets, identityOffsets: of.identityOffsets, ids: of.ids, notBefore, intent, standby: second,
        });
        expect(sink.bytes.subarray(0, sink.at).toString('hex')).toBe(`000000004d${wanted.bytes.subarray(0, wanted.at).toString('hex')}`);
      }
    }
  }), { numRuns: 200 });
});
