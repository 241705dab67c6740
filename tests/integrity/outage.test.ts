import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startInstance, waitFor, type Instance } from '@weir/testing';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startPlatform, type Platform } from '../../infra/local/platform.ts';

let platform: Platform;
let weir: Instance;
const dataDir = mkdtempSync(join(tmpdir(), 'weir-outage-'));
beforeAll(async () => {
  platform = await startPlatform({ dataDir, shortLived: true });
  weir = await startInstance({ brokers: platform.bootstrap, registryUrl: platform.registryUrl, env: { WEIR_INGEST_ACK_TIMEOUT_MS: '1500', WEIR_INGEST_MAX_INFLIGHT_BYTES: '1000000' } });
});
afterAll(async () => {
  await weir?.dispose();
  await platform?.stop();
  rmSync(dataDir, { recursive: true, force: true });
});

const send = (n: string) => weir.segment('identify', { messageId: n, userId: n, traits: { email: `${n}@larkspur.example` } });

/** As a sender does: again with the same id until it is accepted (the time in which the log must acknowledge is short here). */
const accept = (n: string): Promise<string> => waitFor(`${n} is accepted`, async () => ((await send(n)).status === 200 ? n : undefined), 60_000);

test('without a broker it answers 503 with Retry-After, and goes on by itself when the broker is back', async () => {
  const accepted: string[] = [];
  for (let i = 0; i < 20; i++) accepted.push(await accept(`before-${i}`));
  platform.brokers[0]!.process().kill('SIGKILL');
  const refused = await send('during');
  expect(refused.status).toBe(503);
  expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0);
  expect(await refused.json()).toMatchObject({ success: false, error: 'log-unavailable' });
  // What is taken and not acknowledged is bounded: past it, requests are refused at once.
  const large = (): Promise<Response> => fetch(`${weir.ingest}/webhooks/segment`, { method: 'POST', headers: { 'content-type': 'application/json', authorization: `Basic ${Buffer.from(`${weir.writeKey()}:`).toString('base64')}` }, body: JSON.stringify({ type: 'track', messageId: `large-${Math.random()}`, userId: 'u', event: 'X', properties: { pad: 'x'.repeat(450_000) } }) });
  const pending = [large(), large(), large()];
  await waitFor('it refuses more', async () => {
    const response = await large();
    return response.status === 429 && Number(response.headers.get('retry-after')) > 0;
  });
  expect((await Promise.all(pending)).map((r) => r.status).every((s) => s === 503 || s === 429)).toBe(true);
  await platform.brokers[0]!.restart();
  await waitFor('it accepts again', async () => (await send('during')).status === 200, 60_000);
  accepted.push('during');
  for (let i = 0; i < 20; i++) accepted.push(await accept(`after-${i}`));
  await weir.settled(80_000);
  const effects = await weir.effects('crm');
  expect(new Set(effects.map((e) => e.subject))).toEqual(new Set(accepted.map((n) => `${n}@larkspur.example`)));
  expect(effects.length).toBe(accepted.length);
});

test('without the registry everything goes on', async () => {
  platform.registry().kill('SIGKILL');
  await accept('no-registry');
  await weir.settled();
  expect((await weir.effects('crm')).map((e) => e.subject)).toContain('no-registry@larkspur.example');
});
