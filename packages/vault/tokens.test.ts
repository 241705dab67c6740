import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { WeirError } from '@weir/errors';
import { createHandClock } from '@weir/testing';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openVault, startVault, type VaultSettings } from './index.ts';

let dataDir: string;
beforeEach(() => { dataDir = mkdtempSync(join(tmpdir(), 'weir-tokens-')); });
afterEach(() => { rmSync(dataDir, { recursive: true, force: true }); });
const client = (tokenUrl: string): string => JSON.stringify({ type: 'oauth2', tokenUrl, clientId: 'c', clientSecret: 's' });
const turn = (): Promise<void> => new Promise((resolve) => { setImmediate(resolve); });

/** A vault on a clock turned by hand whose token servers (a secret each) answer after `latencyMs`, and a holder of each token as the dispatcher is one: it asks again when the revision moves. */
function world(names: readonly string[] = ['CRM']) {
  const clock = createHandClock(1_800_000_000_000);
  const state = { life: 100 as unknown, latencyMs: 20, up: true, hangs: '', told: 0, requests: [] as { readonly name: string; readonly at: number }[], inFlight: 0, mostInFlight: 0 };
  /** When a token truly runs out, by the server that gave it. */
  const ends = new Map<string, number>();
  const vault = openVault({
    dataDir, env: Object.fromEntries(names.map((name) => [`WEIR_SECRET_${name}`, client(`https://${name.toLowerCase()}.example/token`)])), now: clock.now, timers: clock as never,
    async callTokenServer(url) {
      const name = new URL(url).hostname.split('.')[0]!.toUpperCase();
      state.requests.push({ name, at: clock.at });
      state.mostInFlight = Math.max(state.mostInFlight, ++state.inFlight);
      const [{ life, up }, hangs, begun] = [state, state.hangs === name, clock.at];
      const given = Number(life) > 0 ? Number(life) * 1000 : 300_000;
      await new Promise<void>((resolve) => { clock.setTimer(resolve, hangs ? 10_000 : state.latencyMs); });
      state.inFlight--;
      if (!up || hangs) throw new WeirError('secret-unavailable', hangs ? 'no answer within 10000 ms' : 'answered 503');
      const token = `${name}-${state.requests.length}`;
      ends.set(token, begun + given);
      return { status: 200, body: { access_token: token, expires_in: life } };
    },
  });
  vault.onChange(() => { state.told++; });
  const held = new Map<string, string | undefined>();
  let heldAt = -1;
  function hold(name = 'CRM'): string | undefined {
    const revision = vault.revision();
    if (revision !== heldAt) {
      heldAt = revision;
      for (const of of names) {
        try {
          held.set(of, vault.get(of).reveal());
        } catch (error) {
          if (!(error instanceof WeirError) || error.code !== 'secret-unavailable') throw error;
          held.set(of, undefined);
        }
      }
    }
    return held.get(name);
  }
  /** Lets time pass; `look` at each timer, and at the end of it. */
  async function pass(ms: number, look: () => void = () => undefined): Promise<void> {
    for (const _ of clock.turn(ms)) {
      await turn();
      look();
    }
    await turn();
    look();
  }
  return { clock, state, ends, vault, hold, pass };
}

test('a token is fetched as soon as it is asked for, refreshed ahead of its end, and the revision moves with it; nobody else calls', async () => {
  const { clock, state, vault, hold, pass } = world();
  state.life = 40;
  await vault.refresh();
  const { told } = state;
  expect(hold()).toBeUndefined();
  await pass(20);
  expect([hold(), state.told]).toEqual(['CRM-1', told + 1]);
  await pass(31_979);
  expect([hold(), state.requests.length]).toEqual(['CRM-1', 1]);
  await pass(21);
  expect([hold(), state.requests.length, clock.at - state.requests[1]!.at, state.told]).toEqual(['CRM-2', 2, 20, told + 2]);
  vault.close();
  await pass(1_000_000);
  expect(state.requests).toHaveLength(2);
});

test.each([
  ['contacts:write  lists', 'contacts', ['contacts:write', 'lists']], [undefined, 'contacts lists', ['contacts', 'lists']], ['', 'contacts', ['contacts']], [7, 'contacts', ['contacts']], [undefined, undefined, undefined], ['contacts', undefined, ['contacts']],
])('scopes: answered %j, asked for %j', async (answered, asked, known) => {
  const text = JSON.stringify({ type: 'oauth2', tokenUrl: 'https://crm.example/token', clientId: 'c', clientSecret: 's', scope: asked });
  const vault = openVault({ dataDir, env: { WEIR_SECRET_CRM: text, WEIR_SECRET_PLAIN: 'contacts' }, callTokenServer: async () => ({ status: 200, body: { access_token: 't', scope: answered } }) });
  expect(vault.scopes('CRM')).toEqual(asked?.split(' '));
  expect(() => vault.get('CRM')).toThrow(/not fetched yet/);
  await vault.refresh();
  expect([vault.get('CRM').reveal(), vault.scopes('CRM')]).toEqual(['t', known]);
  expect([vault.scopes('PLAIN'), vault.scopes('NONE'), vault.scopes('no name')]).toEqual([undefined, undefined, undefined]);
});

test('who only looks turns no refresh token over', async () => {
  let asked = 0;
  const text = JSON.stringify({ type: 'oauth2', tokenUrl: 'https://crm.example/token', clientId: 'c', clientSecret: 's', refreshToken: 'r', scope: 'contacts' });
  const vault = openVault({ dataDir, env: { WEIR_SECRET_CRM: text }, changesNothing: true, callTokenServer: async () => { asked++; return { status: 200, body: { access_token: 't', refresh_token: 'next' } }; } });
  expect(() => vault.get('CRM')).toThrow(/by who only looks/);
  await vault.refresh();
  expect([asked, vault.scopes('CRM')]).toEqual([0, ['contacts']]);
});

test('a token that has run out is never given, nor kept by who holds it; who is told of changes is told, and it is fetched when the server is back', async () => {
  const { clock, state, ends, vault, hold, pass } = world();
  hold();
  await pass(20);
  state.up = false;
  const end = ends.get(hold()!)!;
  await pass(end - clock.at - 1);
  const { told } = state;
  expect(hold()).toBe('CRM-1');
  // The timer of the vault has not come yet.
  clock.at = end;
  expect(hold()).toBeUndefined();
  expect(() => vault.get('CRM')).toThrow(/secret CRM cannot be had: answered 503/);
  await pass(0);
  expect(state.told).toBe(told + 1);
  state.up = true;
  await pass(30_020);
  expect(hold()).toMatch(/^CRM-/);
  vault.close();
});

test('a token server that hangs keeps the token of another one from nobody, and is asked once at a time', async () => {
  const { state, vault, hold, pass } = world(['CRM', 'ADS']);
  state.hangs = 'CRM';
  hold();
  const read = vault.refresh();
  await pass(20);
  expect([hold('CRM'), hold('ADS')]).toEqual([undefined, 'ADS-2']);
  await pass(9_900);
  expect([state.requests.length, state.mostInFlight]).toEqual([2, 2]);
  state.hangs = '';
  await pass(1000);
  await read;
  expect(hold('CRM')).toMatch(/^CRM-/);
  vault.close();
});

test('a read of the vault counts those that are first asked for while it goes on', async () => {
  const { vault, hold, pass } = world(['CRM', 'ADS']);
  expect(() => vault.get('ADS')).toThrow(/cannot be had/);
  const read = vault.refresh();
  await pass(10);
  expect(() => vault.get('CRM')).toThrow(/cannot be had/);
  let got: string | undefined;
  const ended = read.then(() => { got = vault.get('CRM').reveal(); });
  await pass(100);
  await ended;
  expect([got, hold('CRM')]).toEqual(['CRM-2', 'CRM-2']);
  vault.close();
});

test('a token that a vendor refused is asked for anew, at most every 10 s and also while a read goes on, and that of nobody else', async () => {
  const { state, vault, hold, pass } = world(['CRM', 'ADS']);
  state.life = 3600;
  hold();
  await pass(20);
  const asked = (): number[] => ['CRM', 'ADS'].map((of) => state.requests.filter(({ name }) => name === of).length);
  for (let i = 0; i < 10; i++) {
    for (let again = 0; again < 3; again++) void vault.refresh(['CRM']);
    await pass(30_000);
  }
  expect(asked()).toEqual([11, 1]);
  void vault.refresh();
  void vault.refresh(['ADS', 'NO_CLIENT']);
  await pass(20);
  expect(asked()).toEqual([11, 2]);
  vault.close();
});

test.each([[1, 800], [0.001, 500], [40, 32_000], ['40', 32_000], [undefined, 240_000], [null, 240_000], [0, 240_000], [-5, 240_000], ['soon', 240_000], [Number.NaN, 240_000], [1e18, 86_400_000], [Number.POSITIVE_INFINITY, 86_400_000]])('expires_in %s: it is refreshed after %d ms', async (life, ms) => {
  const { state, vault, hold, pass } = world();
  state.life = life;
  hold();
  await pass(ms * 3 + 100, hold);
  expect(state.requests.map(({ at }) => at - state.requests[0]!.at)).toEqual([0, ms, 2 * ms, 3 * ms]);
  vault.close();
});

test('while its server refuses it is asked with a backoff to 30 s, also when the vault is read all the time', async () => {
  const { state, vault, hold, pass } = world();
  state.up = false;
  state.latencyMs = 0;
  hold();
  for (let i = 0; i < 1000; i++) {
    await pass(100);
    void vault.refresh();
  }
  await pass(0);
  expect(state.requests.map(({ at }) => at - state.requests[0]!.at)).toEqual([0, 500, 1500, 3500, 7500, 15_500, 31_500, 61_500, 91_500]);
  expect(vault.status()).toMatchObject({ available: false, reason: 'answered 503' });
  vault.close();
});

test('a clock that is set back an hour keeps nothing from being refreshed', async () => {
  const { clock, state, vault, hold, pass } = world();
  state.up = false;
  hold();
  await pass(20);
  clock.at -= 3_600_000;
  state.up = true;
  const read = vault.refresh();
  await pass(40);
  await read;
  expect(hold()).toMatch(/^CRM-/);
  vault.close();
});

test('property: whatever the server does, no token is held that has run out, one request is made at a time and not too many, and it is there again half a minute after the server is', async () => {
  const life = fc.oneof(fc.integer({ min: 1, max: 200 }), fc.double({ min: 0.001, max: 2, noNaN: true }), fc.constantFrom<unknown>(undefined, -1, 0, 'x', 1e18));
  const step = fc.record({ ms: fc.integer({ min: 1, max: 60_000 }), up: fc.boolean(), latencyMs: fc.integer({ min: 0, max: 3000 }), life, read: fc.constantFrom('', 'once', 'forced') });
  await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 8 }), async (steps) => {
    const { clock, state, ends, vault, hold, pass } = world();
    const look = (): void => {
      const token = hold();
      if (token !== undefined) expect(ends.get(token)).toBeGreaterThan(clock.at);
      expect(state.mostInFlight).toBeLessThanOrEqual(1);
    };
    look();
    let forced = 0;
    for (const { ms, read, ...server } of steps) {
      Object.assign(state, server);
      if (read !== '') void vault.refresh(read === 'forced' ? ['CRM'] : []);
      if (read === 'forced') forced++;
      await pass(ms, look);
    }
    const between = state.requests.slice(1).map(({ at }, i) => at - state.requests[i]!.at);
    expect(between.filter((ms) => ms < 500).length).toBeLessThanOrEqual(forced);
    Object.assign(state, { up: true, latencyMs: 100, life: 100 });
    // Of the time that the last request takes, the longest backoff, and the answer.
    await pass(3000 + 30_000 + 100, look);
    // From now on it is there without a gap, with as few requests as that needs.
    const before = state.requests.length;
    await pass(1_000_000, () => {
      look();
      expect(hold()).toBeDefined();
    });
    expect(state.requests.length - before).toBeLessThanOrEqual(13);
    vault.close();
  }), { numRuns: 60 });
}, 60_000);

test('startVault refreshes a token that lives a second, although the vault is read every five minutes', async () => {
  let given = 0;
  const server = createServer((_request, response) => { response.writeHead(200).end(JSON.stringify({ access_token: `t${++given}`, expires_in: 1 })); });
  await new Promise<void>((done) => { server.listen(0, '127.0.0.1', done); });
  const settings = { vaultAddr: undefined, vaultRefreshMs: 300_000, vaultMaxStaleMs: 3_600_000 } as unknown as VaultSettings;
  const vault = await startVault({ dataDir, env: { WEIR_SECRET_CRM: client(`http://127.0.0.1:${(server.address() as AddressInfo).port}/token`) }, settings, logger: { info() {}, warn() {} } });
  try {
    expect(() => vault.get('CRM')).toThrow(/cannot be had/);
    await expect.poll(() => given, { timeout: 10_000 }).toBeGreaterThan(2);
    await expect.poll(() => vault.get('CRM').reveal(), { timeout: 5000 }).toBe(`t${given}`);
  } finally {
    vault.close();
    server.closeAllConnections();
    server.close();
  }
}, 30_000);
