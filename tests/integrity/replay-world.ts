/**
 * Dead letters of which a known part had in fact been applied (the vendor took them and cut the line), on a fleet of
 * processes that can be killed one by one.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { startFleet, waitFor, type Fleet } from '@weir/testing';

const files = (concurrency: number, limit: string): Readonly<Record<string, string>> => ({
  'weir.yaml': 'name: replay\n',
  'purposes.yaml': 'purposes:\n  service: { legalBasis: contract, doc: Service. }\n',
  'policies/all.yaml': 'rules:\n  - { name: all, effect: allow, when: \'purpose == "service"\' }\n',
  'sources/segment.yaml': 'adapter: segment\nconfig: { writeKey: { secret: SEGMENT_WRITE_KEY } }\n',
  'destinations/till.yaml': `adapter: http
config:
  baseUrl: sandbox://till
  operations:
    put:
      accepts: [Event]
      path: /put
      body: { id: "{{event_id}}", email: "{{record.email}}" }
      idempotency: { scheme: header, window: 24h, pastWindow: hold }
      verify:
        path: /put?idempotency_key={{key}}
        settle: 0s
        answers:
          - { status: 200, answer: applied }
          - { status: 404, answer: not-applied }
${limit}routes:
  - { on: Event, operation: put, purpose: service }
concurrency: ${concurrency}
`,
});

export interface ReplayWorld {
  readonly fleet: Fleet;
  api(path: string, body?: object): Promise<any>;
  /** Looks at an order until it holds. */
  order(id: string, what: string, holds: (view: any) => boolean, deadlineMs?: number): Promise<any>;
  /** Keys of what took effect, with how often. */
  effects(): Promise<Map<string, number>>;
  dispose(): Promise<void>;
}

export async function startReplayWorld(options: { brokers: readonly string[]; registryUrl: string; env?: Readonly<Record<string, string>>; concurrency?: number; limit?: { readonly count: number; readonly seconds: number } }): Promise<ReplayWorld> {
  const workspace = mkdtempSync(join(tmpdir(), 'weir-replay-'));
  for (const [path, text] of Object.entries(files(options.concurrency ?? 64, options.limit === undefined ? '' : `      limit: { steady: { count: ${options.limit.count}, per: ${options.limit.seconds}s } }\n`))) {
    mkdirSync(dirname(join(workspace, path)), { recursive: true });
    writeFileSync(join(workspace, path), text);
  }
  const fleet = await startFleet({ brokers: options.brokers, registryUrl: options.registryUrl, workspace, env: options.env });
  rmSync(workspace, { recursive: true, force: true });
  const control = fleet.url('control');
  const headers = { authorization: `Bearer ${fleet.secret('ADMIN_TOKEN')}`, 'content-type': 'application/json' };
  const world: ReplayWorld = {
    fleet,
    async api(path, body) {
      const response = await fetch(control + path, { method: body === undefined ? 'GET' : 'POST', headers, body: body === undefined ? undefined : JSON.stringify(body) });
      const answer = (await response.json()) as any;
      if (!response.ok) throw new Error(`${response.status} ${answer.message}`);
      return answer;
    },
    order: (id, what, holds, deadlineMs = 60_000) => waitFor(what, async () => {
      const view = await world.api(`/v1/replays/${id}`);
      if (view.state === 'failed') throw new Error(view.reason);
      return holds(view) ? view : undefined;
    }, deadlineMs),
    async effects() {
      const text = await (await fetch(`${fleet.sandbox}/effects?destination=till`, { headers: { accept: 'application/x-ndjson' } })).text();
      const keys = new Map<string, number>();
      for (const line of text.split('\n')) {
        if (line === '') continue;
        const { idempotencyKey } = JSON.parse(line) as { idempotencyKey: string };
        keys.set(idempotencyKey, (keys.get(idempotencyKey) ?? 0) + 1);
      }
      return keys;
    },
    dispose: () => fleet.dispose(),
  };
  return world;
}

/** A status asks the broker some thirty times: as often as could be, it takes half a core from those that it waits for. */
const statusEveryMs = 250;

/** Sends events about as many people and makes all of them dead letters; 2 in 5 had taken effect. */
export async function makeDeadLetters(world: ReplayWorld, events: number, deadlineMs: number): Promise<void> {
  const { fleet } = world;
  const fault = async (order: object): Promise<void> => {
    const response = await fetch(`${fleet.sandbox}/faults`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ destination: 'till', operation: 'put', ...order }) });
    if (!response.ok) throw new Error(await response.text());
  };
  await fault({ mode: 'late-after-commit', once: true, rate: 0.4, count: events * 0.4 });
  await fault({ mode: 'permanent' });
  const authorization = `Basic ${Buffer.from(`${fleet.secret('SEGMENT_WRITE_KEY')}:`).toString('base64')}`;
  for (let from = 0; from < events; from += 100) {
    const batch = Array.from({ length: Math.min(100, events - from) }, (_, k) => ({ type: 'track', messageId: `r-${from + k}`, userId: `u-${from + k}`, timestamp: '2026-03-04T05:06:07Z', event: 'Order Placed', context: { traits: { email: `p${from + k}@larkspur.example` } } }));
    for (;;) {
      const status = await fetch(`${fleet.ingest}/v1/batch`, { method: 'POST', body: JSON.stringify({ batch }), headers: { authorization, 'content-type': 'application/json' } }).then((r) => r.status, () => 0);
      if (status === 200) break;
      await new Promise((done) => setTimeout(done, 50));
    }
  }
  await waitFor('all are dead letters', async () => {
    const status = await fleet.status();
    return status.events.accepted === events && status.events.pending === 0 && status.deliveries.pending === 0 && status.deliveries.deadLettered === events;
  }, deadlineMs, statusEveryMs);
  await fetch(`${fleet.sandbox}/faults`, { method: 'DELETE' });
}

/** The proof: preview and verify know what was applied, and the replay, killed on the way, makes the rest take effect, once. */
export async function replayProof(world: ReplayWorld, events: number, options: { readonly rate: number; readonly kills: readonly { readonly service: 'control' | 'dispatcher'; readonly atRequeued: number }[]; readonly deadlineMs: number }): Promise<Record<string, unknown>> {
  const applied = events * 0.4;
  const before = await world.effects();
  const began = performance.now();
  const { id } = await world.api('/v1/replays', { from: 'dlq', destination: 'till', verify: true, rate: options.rate, ahead: 5000 });
  const { preview } = await world.order(id, 'the preview is there', (v) => v.state === 'previewed', options.deadlineMs);
  const previewMs = Math.round(performance.now() - began);
  const named: { eventId: string }[] = [];
  for (let after = ''; ;) {
    const { deliveries, left, next } = await world.api(`/v1/replays/${id}/verified?answer=applied&limit=${Math.ceil(events / 8)}${after}`);
    named.push(...deliveries);
    if (left === 0) break;
    after = `&after=${encodeURIComponent(next)}`;
  }
  const plain = await world.api('/v1/replays', { from: 'dlq', destination: 'till' });
  const plainPreview = (await world.order(plain.id, 'the plain preview is there', (v) => v.state === 'previewed', options.deadlineMs)).preview;
  const overlaps = plain.overlaps as { id: string }[];
  await world.api(`/v1/replays/${plain.id}/cancel`, {});
  await world.api(`/v1/replays/${id}/start`, {});
  for (const { service, atRequeued } of options.kills) {
    await world.order(id, `${atRequeued} are put back`, (v) => (v.counts.requeued ?? 0) >= atRequeued, options.deadlineMs);
    await world.fleet.restart(service);
  }
  const view = await world.order(id, 'the replay is finished', (v) => v.state === 'finished', options.deadlineMs);
  const after = await world.effects();
  return {
    order: id,
    unknown: plainPreview.deliveries.unknownKeyed, notApplied: plainPreview.deliveries.notApplied, verifiedApplied: preview.verified.applied, named: new Set(named.map((d) => d.eventId)).size,
    effectsBefore: before.size, newEffects: after.size - before.size, twice: [...after.values()].filter((n) => n > 1).length, selected: view.counts.selected, requeued: view.counts.requeued, ended: view.ended,
    told: overlaps.some((o) => o.id === id), previewMs, runMs: Math.round(performance.now() - began) - previewMs, applied,
  };
}
