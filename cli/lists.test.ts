import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import type { Command, CommandContext } from './command.ts';
import { command as consent } from './commands/consent.ts';
import { command as deliveries } from './commands/deliveries.ts';
import { command as policy } from './commands/policy.ts';
import { print, type Status } from './commands/status.ts';
import { createTerminal } from './terminal.ts';

let server: Server | undefined;
afterEach(() => {
  server?.closeAllConnections();
  server?.close();
});

/** Runs `weir <command> held`, or what is given, against a control API that answers this. */
async function held(command: Command, values: CommandContext['values'], answer: object, positionals: readonly string[] = ['held']): Promise<{ readonly out: string; readonly asked: URLSearchParams }> {
  let asked = '';
  server = createServer((request, response) => {
    asked = request.url!;
    request.resume().once('end', () => response.setHeader('content-type', 'application/json').end(JSON.stringify(answer)));
  });
  await new Promise<void>((done) => { server!.listen(0, '127.0.0.1', done); });
  let out = '';
  const stream = { write: (text: string) => { out += text; } };
  const target = { host: '127.0.0.1', port: (server.address() as AddressInfo).port - 1, dataDir: '/nonexistent', env: { WEIR_TOKEN: 'x' } };
  await command.run({ terminal: createTerminal({ out: stream, err: stream, env: {}, monotonic: () => 0 }), json: false, values, positionals, signal: new AbortController().signal, target });
  server.close();
  return { out, asked: new URL(asked, 'http://x').searchParams };
}
const next = '8999999999999999/dlq_x';

test('held deliveries of unknown effect that are not all say so, and go on where they ended', async () => {
  const one = { id: 'dlq_a', eventId: 'evt_a', at: 1, source: 'shop', destination: 'crm', operation: 'put', message: 'no' };
  expect((await held(deliveries, { limit: '1' }, { deadLetters: [one], left: 70, next })).out).toContain(`the first 1 of 71; the rest: the same with --after ${next}`);
  const second = await held(deliveries, { after: next }, { deadLetters: [one], left: 0, next: null });
  expect([second.asked.get('after'), second.out.includes('the rest')]).toEqual([next, false]);
});

test('what a rule holds: those that wait, with what is left of them; the others when they are asked for', async () => {
  const one = { id: 'dlq_a', eventId: 'evt_a', rule: 'big', destination: 'crm', operation: 'put', at: '', until: '', state: 'waiting', by: null };
  const first = await held(policy, {}, { held: [one], left: 70, next });
  expect([first.asked.get('state'), first.asked.get('limit')]).toEqual(['waiting', '50']);
  expect(first.out).toContain(`the first 1 of 71; the rest: the same with --after ${next}`);
  const all = await held(policy, { all: true, after: next }, { held: [], left: 0, next: null });
  expect([all.asked.get('state'), all.asked.get('after'), all.out]).toEqual([null, next, 'nothing is held\n']);
});

test('a status prints what somebody wrote without its control characters, says why deliveries stay pending, and keeps the replay of an incident that is over', () => {
  let out = '';
  const stream = { write: (text: string) => { out += text; } };
  const status: Status = { events: { accepted: 1, pending: 0 }, deliveries: { pending: 3 }, lag: {}, ready: true, incidents: [], ended: [{ destination: 'ads', code: 'credential-rejected', since: '2026-03-04T10:00:00.000Z', until: '2026-03-04T11:30:00.000Z', replay: 'weir replay dispatch --destination ads --since x --until y' }], paused: [{ destination: 'crm', reason: 'a\u001b]0;b\u0007', by: 'oidc:x\u001b[2J', since: '' }], retired: [{ destination: 'old', waiting: 3 }] };
  print(status, createTerminal({ out: stream, err: stream, env: {}, monotonic: () => 0 }));
  expect(out).toContain('by oidc:x\u00b7[2J: a\u00b7]0;b\u00b7; its events');
  expect(out).not.toMatch(/[\u001b\u0007]/);
  expect(out).toContain('ads was paused from 2026-03-04T10:00:00.000Z to 2026-03-04T11:30:00.000Z: credential-rejected; what was given up meanwhile: weir replay dispatch --destination ads --since x --until y');
  expect(out).toContain('old has left the release with 3 records on its topic');
});

test('receipts print who said and who recorded a change without its control characters', async () => {
  const id = `evt_${'a'.repeat(32)}`;
  const { out } = await held(consent, {}, { id, source: 'shop\u001b[2J', actor: 'oidc:x\u001b]0;b\u0007', acceptedAt: '', receipts: [] }, ['receipts', id]);
  expect(out).toContain(`${id}  from shop\u00b7[2J by oidc:x\u00b7]0;b\u00b7`);
  expect(out).not.toMatch(/[\u001b\u0007]/);
});
