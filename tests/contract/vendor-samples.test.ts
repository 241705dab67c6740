/**
 * The vendors' own sample payloads (shared/vendor-samples), through the example workspace: accepted at the door, mapped,
 * within the contracts, and then delivered or denied with a reason, on empty consent data.
 */
import { resolve } from 'node:path';
import type { InboundRequest, Json, JsonObject } from '@weir/adapter';
import { readAdapterFile, registry } from '@weir/adapters';
import { itemEventId, itemHash, keyedId } from '@weir/pipeline';
import { checkUse, decide, type Decision } from '@weir/policy';
import { compileRelease, readWorkspace, resolveConfig, withDefaults } from '@weir/release';
import { describe, expect, test } from 'vitest';
import { normalize, type Canonical } from '@weir/release';
import { readSample, samplesPresent, segmentFiles, segmentSamples, stripeSamples } from './samples.ts';
import { now, person, signed, webhookCases, type WebhookCase } from './world.ts';

const workspaceKey = Buffer.alloc(32, 7);
const release = compileRelease(withDefaults(readWorkspace(resolve(import.meta.dirname, '../../workspace')), registry, readAdapterFile), { adapters: registry, workspaceKey });
const secret = { reveal: () => 'not-a-secret' };
const vault = { get: () => secret, signing: () => undefined } as unknown as Parameters<typeof resolveConfig>[1]['vault'];

interface Decided { readonly output: Canonical; readonly decision: Decision }

function decideAll(source: string, output: Canonical): Decided[] {
  const subject = { recordName: output.recordType.replace('weir.canonical.', ''), record: output.record, source, key: output.subject, ids: output.ids, acceptedAt: now };
  const decisions = decide(release.policy, subject, { now, take: () => true, consent: (ids, route) => checkUse(ids, route.purpose!, route.channel ?? null, route.topic ?? null, release.policy.purposes.get(route.purpose!)!.legalBasis, () => [], now) });
  return decisions.map((decision) => ({ output, decision }));
}

/** The request of an allowed delivery; throws when the adapter cannot build it. */
function requestOf({ output, decision }: Decided): string {
  const { destination: name, operation } = decision.route!;
  const destination = release.destinations.get(name)!;
  const delivery = { destination: name, operation, recordType: output.recordType, record: { ...output.record, extras: null } as JsonObject, identifiers: [], eventId: 'evt', outputId: output.outputId, acceptedAt: now };
  return destination.adapter.destination!.request(delivery, 'dlv_1', resolveConfig(destination.config, { vault, sandboxUrl: 'http://127.0.0.1:1' }), now).url;
}

type Fate = { readonly reason: string } | readonly Decided[];

/** One request all the way: verify, split, normalize, decide, build. One fate per item. */
function fates(it: WebhookCase, request: InboundRequest, source: string): Fate[] {
  expect(it.source.verify(request, it.config, now)).toEqual({ ok: true });
  const { items, envelope } = it.source.split(request, it.config);
  return items.map((item) => {
    const hash = itemHash(item.bytes);
    const headers = { eventId: itemEventId(source, it.source.identify(item, it.config, envelope), hash), hash, acceptedAt: now, traceparent: '', envelope: envelope === undefined ? undefined : Buffer.from(JSON.stringify(envelope)), redriven: false, common: undefined };
    const result = normalize(source, { value: item.bytes } as never, headers, release, (type, value) => keyedId(workspaceKey, type, value));
    if (result.kind === 'dropped') return result;
    if (result.kind === 'dead') throw new Error(`${JSON.stringify(result.reasons)} for ${item.bytes.toString().slice(0, 500)}`);
    const decided = result.outputs.flatMap((output) => decideAll(source, output));
    for (const one of decided) {
      if (one.decision.effect === 'allow') expect(requestOf(one)).toMatch(/^http/);
      else expect(one.decision.reason).toMatch(/^[a-z-]+(:[a-z-]+)?$/);
    }
    return decided;
  });
}

const cases = new Map(webhookCases().map((it) => [it.name, it]));
const sourceOf = (adapter: string): string => [...release.sources.values()].find((s) => s.adapter.manifest.name === adapter)!.name;
const run = (adapter: string, body: Json, url?: string): Fate[] => {
  const it = cases.get(adapter)!;
  return fates(it, signed(it, Buffer.from(JSON.stringify(body)), now, url), sourceOf(adapter));
};
const delivered = (found: readonly Fate[]): number => found.filter((f): f is readonly Decided[] => Array.isArray(f) && f.some((d) => d.decision.effect === 'allow')).length;

describe.skipIf(!samplesPresent)('vendor samples', () => {
  test.each(segmentFiles())('segment %s', (file) => {
    const { calls, parts } = segmentSamples(file);
    expect(parts).toEqual(file === 'spec-common.json' ? ['Integrations'] : []);
    for (const { call, line } of calls) {
      const found = run('segment', call, `/v1/${String(call['type'] ?? call['action'])}`);
      expect(found).toHaveLength(1);
      const known = ['userId', 'anonymousId', 'user_id'].some((k) => typeof call[k] === 'string') || call['type'] === 'group';
      if (known) expect(delivered(found), `${file} line ${line}`).toBe(1);
      else expect(found[0]).toMatchObject([{ decision: { reason: 'subject-unidentified' } }]);
    }
    expect(run('segment', { batch: calls.map(({ call }) => call) })).toHaveLength(calls.length);
  });

  test('sendgrid: all eleven events of a batch', () => {
    const found = run('sendgrid', readSample('sendgrid/event-webhook-batch.json'));
    expect(found).toHaveLength(11);
    expect(delivered(found)).toBe(11);
  });

  test('sendgrid: the four signed vectors get the verdict of the file, and the good ones go through', () => {
    const { headers: names, vectors } = readSample('sendgrid/event-webhook-signed-vectors.json');
    const it = cases.get('sendgrid')!;
    expect(vectors.map((v: any) => v.valid)).toEqual([true, true, false, false]);
    for (const vector of vectors) {
      const config = { verificationKey: vector.public_key };
      const request: InboundRequest = { method: 'POST', url: '/webhooks/sendgrid', headers: { [names.signature.toLowerCase()]: vector.signature, [names.timestamp.toLowerCase()]: vector.timestamp }, body: Buffer.from(vector.raw_body) };
      expect(it.source.verify(request, config, now).ok, vector.name).toBe(vector.valid);
      if (vector.valid) expect(delivered(fates({ ...it, config }, request, sourceOf('sendgrid'))), vector.name).toBeGreaterThan(0);
    }
  });

  test('stripe: customer and subscription of the fixtures in each of their events; the fixture event is left out by name', () => {
    for (const event of stripeSamples()) expect(delivered(run('stripe', event)), String(event['type'])).toBe(1);
    expect(run('stripe', readSample('stripe/fixtures3.json').resources.event)).toEqual([{ kind: 'dropped', reason: 'not-about-customers' }]);
  });
});

describe('the example workspace on empty consent data', () => {
  test.each([...cases.keys()])('a sample of %s has at least one effect', (adapter) => {
    const it = cases.get(adapter)!;
    expect(delivered(run(adapter, it.source.sample(person, now)))).toBeGreaterThan(0);
  });

  test('a purpose that needs opt-in denies a new person, and says so', () => {
    const it = cases.get('segment')!;
    const reasons = run('segment', it.source.sample(person, now)).flatMap((f) => (Array.isArray(f) ? (f as readonly Decided[]).flatMap((d) => (d.decision.effect === 'deny' ? [`${d.decision.route?.destination} ${d.decision.route?.purpose} ${d.decision.reason}`] : [])) : []));
    expect(reasons).toContain('newsletter email-marketing consent-missing');
  });
});
