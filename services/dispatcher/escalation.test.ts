import { createServer } from 'node:http';
import { createServer as createTcpServer, type AddressInfo, type Socket } from 'node:net';
import { verifyWebhook } from '@weir/adapter';
import { createHttpClient } from '@weir/http';
import type { Escalation, EscalationConfig, Incident } from '@weir/release';
import { systemClock } from '@weir/service';
import { Registry } from 'prom-client';
import { SMTPServer } from 'smtp-server';
import { afterEach, expect, test, vi } from 'vitest';
import { createChannels } from './escalation-channels.ts';
import { createEscalations, decide, escalatedOthers, speakerFor, type EscalationPorts, type Notice, type Observed } from './escalation.ts';

const logger = { info: () => undefined, warn: () => undefined, error: () => undefined } as never;
const seen = (over: Partial<Observed>): Observed => ({ destination: 'crm', openSince: undefined, openCode: 'vendor-unavailable', aliveAt: 0, credential: undefined, ...over });
const minute = 60_000;
const closing: (() => unknown)[] = [];
afterEach(async () => { for (const close of closing.splice(0)) await close(); });

test('a breaker is told when it stays open, once, and its end once', () => {
  const at = (told: Escalation | undefined, now: number, over: Partial<Observed>) => decide('breaker', told, seen(over), now, 15 * minute);
  expect(at(undefined, 14 * minute, { openSince: 0 })).toBeUndefined();
  const opened = at(undefined, 15 * minute, { openSince: 0 })!;
  expect(opened).toMatchObject({ code: 'vendor-unavailable', since: 0, until: null });
  expect(at(opened, 60 * minute, { openSince: 0 })).toBeUndefined();
  // A new owner has a closed breaker and has seen no answer: that is no end.
  expect(at(opened, 61 * minute, {})).toBeUndefined();
  const ended = at(opened, 62 * minute, { aliveAt: 62 * minute })!;
  expect(ended).toMatchObject({ since: 0, until: 62 * minute });
  expect(at(ended, 63 * minute, { aliveAt: 63 * minute })).toBeUndefined();
  expect(at(ended, 99 * minute, { openSince: 80 * minute })).toMatchObject({ since: 80 * minute, until: null });
});

test('a credential is told at once, as itself and not as a breaker', () => {
  const incident: Incident = { destination: 'crm', code: 'credential-rejected', since: 5, until: null };
  expect(decide('breaker', undefined, seen({ openSince: 0, credential: incident }), 60 * minute, minute)).toBeUndefined();
  const opened = decide('credential', undefined, seen({ credential: incident }), 6, minute)!;
  expect(opened).toMatchObject({ code: 'credential-rejected', since: 5, until: null });
  expect(decide('credential', opened, seen({ credential: incident }), 7, minute)).toBeUndefined();
  const ended = decide('credential', opened, seen({ credential: { ...incident, until: 9 } }), 10, minute)!;
  expect(ended).toMatchObject({ since: 5, until: 9 });
  expect(decide('credential', ended, seen({ credential: { ...incident, until: 9 } }), 11, minute)).toBeUndefined();
});

test('a rule that escalates is told once, and its end once; incidents of destinations are not taken for rules', () => {
  const incident: Incident = { destination: 'policy/odd-plans', code: 'approval-required', since: 5, until: null };
  const [observed, ...more] = escalatedOthers([incident, { ...incident, destination: 'crm' }]);
  expect([observed!.destination, more]).toEqual(['policy/odd-plans', []]);
  const opened = decide('credential', undefined, observed!, 6, minute)!;
  expect(opened).toMatchObject({ destination: 'policy/odd-plans', code: 'approval-required', since: 5, until: null });
  expect(decide('breaker', undefined, observed!, 60 * minute, minute)).toBeUndefined();
  expect(decide('credential', opened, observed!, 7, minute)).toBeUndefined();
  expect(decide('credential', opened, escalatedOthers([{ ...incident, until: 9 }])[0]!, 10, minute)).toMatchObject({ since: 5, until: 9 });
});

function world(channels: EscalationPorts['channels'], config: Partial<EscalationConfig> = { webhook: { url: 'https://x.example', secret: { secret: 'S' } } }) {
  const saved = new Map<string, Escalation>();
  const registry = new Registry();
  let now = 0;
  // Waits between tries end at once; how long they were is kept.
  const waits: number[] = [];
  const clock = { ...systemClock, now: () => now, setTimer: (callback: () => void, ms: number) => { waits.push(ms); return setImmediate(callback); }, clearTimer: (h: unknown) => clearImmediate(h as NodeJS.Immediate) };
  const escalations = createEscalations({ clock, logger, registry, config: () => ({ afterMs: minute, ...config }), told: () => saved, save: async (e) => { saved.set(`${e.destination}/${e.kind}`, e); }, channels });
  return { saved, waits, registry, escalations, look: (ms: number, over: Partial<Observed>) => { now = ms; escalations.look([seen(over)]); return escalations.drained(); } };
}

test('a destination that lacks a topic, and so has no owner, keeps nobody from being told of rules and sources', () => {
  expect(['crm', 'ads', 'mail'].map((runs) => speakerFor(['mail', 'crm', 'ads'], (name) => name >= runs))).toEqual(['crm', 'ads', 'mail']);
  expect(speakerFor(['ads'], () => false)).toBeUndefined();
});

test('a new owner whose last answer is from before the trouble, by a clock that is ahead, does not tell that it is over; its next answer does', async () => {
  const told: Notice[] = [];
  const w = world({ webhook: async (_config, notice) => { told.push(notice); }, email: async () => undefined });
  w.saved.set('crm/breaker', { destination: 'crm', kind: 'breaker', code: 'vendor-unavailable', since: 10 * minute, until: null });
  await w.look(30 * minute, { aliveAt: 11 * minute });
  await w.look(31 * minute, { aliveAt: 11 * minute });
  // Another's for a while.
  w.escalations.look([]);
  await w.look(33 * minute, { aliveAt: 32 * minute });
  expect(told).toEqual([]);
  await w.look(35 * minute, { aliveAt: 34 * minute });
  expect(told).toMatchObject([{ phase: 'closed', since: 10 * minute, until: 35 * minute }]);
});

test('an answer right after the telling is an end', async () => {
  const told: Notice[] = [];
  const w = world({ webhook: async (_config, notice) => { told.push(notice); }, email: async () => undefined });
  await w.look(10 * minute, { openSince: 5 * minute, aliveAt: 4 * minute });
  await w.look(11 * minute, { aliveAt: 10 * minute + 1 });
  expect(told).toMatchObject([{ phase: 'opened' }, { phase: 'closed', until: 11 * minute }]);
});

test('one that is not taken is tried again, with a bound, and nothing waits for it', async () => {
  const tried: Notice[] = [];
  const w = world({ webhook: async (_config, notice) => { tried.push(notice); throw new Error('down'); }, email: async () => undefined });
  await w.look(minute, { openSince: 0 });
  expect(tried).toHaveLength(6);
  expect(new Set(tried.map((n) => n.id)).size).toBe(1);
  expect(w.waits.reduce((a, b) => a + b, 0)).toBeLessThan(3 * minute);
  await w.look(2 * minute, { openSince: 0 });
  expect(tried).toHaveLength(6);
  expect(await w.registry.metrics()).toContain('weir_escalations_total{channel="webhook",phase="opened",result="given-up"} 1');
});

test('what nobody was told before a process ended is not kept as told: the next owner tells it', async () => {
  const w = world({ webhook: async () => {
    w.escalations.close();
    throw new Error('down');
  }, email: async () => undefined });
  await w.look(minute, { openSince: 0 });
  expect(w.saved.size).toBe(0);
});

test('the webhook is signed, the mail arrives over SMTP, one of each at the beginning and at the end', async () => {
  const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
  const hooks: { headers: Record<string, string>; body: Buffer }[] = [];
  const http = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (d: Buffer) => chunks.push(d)).on('end', () => {
      hooks.push({ headers: request.headers as Record<string, string>, body: Buffer.concat(chunks) });
      response.writeHead(hooks.length === 1 ? 503 : 204).end();
    });
  });
  const mails: string[] = [];
  const logins: string[] = [];
  const smtp = new SMTPServer({
    onAuth: (auth, _session, done) => { logins.push(`${auth.username} ${auth.password}`); done(null, { user: auth.username }); },
    onData: (stream, _session, done) => { let text = ''; stream.on('data', (d: Buffer) => { text += d.toString(); }).on('end', () => { mails.push(text); done(); }); },
  });
  await Promise.all([new Promise<void>((done) => http.listen(0, '127.0.0.1', done)), new Promise<void>((done) => smtp.listen(0, '127.0.0.1', () => done()))]);
  const client = createHttpClient({ allowPrivate: true });
  closing.push(() => client.close(), () => http.close(), () => new Promise<void>((done) => smtp.close(done)));
  // Its certificate is nobody's: the clear is what a test can use.
  const config: EscalationConfig = {
    afterMs: minute, webhook: { url: `http://127.0.0.1:${(http.address() as AddressInfo).port}/hook`, secret: { secret: 'HOOK' } },
    email: { from: 'weir@example.com', to: ['a@example.com', 'b@example.com'], smtp: { host: '127.0.0.1', port: (smtp.server.address() as AddressInfo).port, tls: 'none' } },
  };
  smtp.options.authOptional = true;
  const w = world(createChannels({ http: client, vault: { get: () => ({ reveal: () => secret }) } as never, now: Date.now, workspace: () => 'acme' }), config);
  await w.look(minute, { openSince: 0 });
  await w.look(2 * minute, { openSince: 0 });
  await w.look(3 * minute, { aliveAt: 3 * minute });
  await w.look(4 * minute, { aliveAt: 4 * minute });
  // The first was answered 503 and came again.
  expect(hooks.map((h) => (JSON.parse(h.body.toString()) as { type: string }).type)).toEqual(['weir.destination.opened', 'weir.destination.opened', 'weir.destination.closed']);
  const replay = 'weir replay dlq --destination crm --since 1970-01-01T00:00:00.000Z --until 1970-01-01T00:03:00.000Z --stage dispatcher';
  expect(hooks.map((h) => (JSON.parse(h.body.toString()) as { data: { replay?: string } }).data.replay)).toEqual([undefined, undefined, replay]);
  expect(hooks[0]!.headers['webhook-id']).toBe(hooks[1]!.headers['webhook-id']);
  for (const { headers, body } of hooks) expect(verifyWebhook([secret], headers, body, Date.now(), 300_000).ok).toBe(true);
  await vi.waitFor(() => expect(mails).toHaveLength(2));
  expect(mails[0]).toMatch(/Subject: \[weir acme\] crm does not answer/);
  expect(mails[0]).toMatch(/Message-ID: <esc_crm_breaker_0_opened@example.com>/i);
  expect(mails[1]).toMatch(/goes on/);
  expect(mails[1]!.replaceAll(/=\r\n/g, '').replaceAll('=3D', '=')).toContain(replay);
  expect(JSON.stringify([mails, hooks.map((h) => h.body.toString())])).not.toContain(secret);
});

test('a mail server that drips is given up after the whole time for a mail, its connection with it', async () => {
  let connection: Socket | undefined;
  const closed = Promise.withResolvers<void>();
  const server = createTcpServer((socket) => {
    connection = socket;
    socket.write('220 mail.example ESMTP\r\n');
    // A line of an answer that never ends: the connection is never idle.
    socket.on('data', () => undefined).on('error', () => undefined).once('close', () => closed.resolve());
    const drip = setInterval(() => socket.write('250-more\r\n'), 20);
    socket.once('close', () => clearInterval(drip));
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  closing.push(() => new Promise<void>((done) => server.close(() => done())));
  const config: EscalationConfig = { afterMs: minute, email: { from: 'weir@example.com', to: ['a@example.com'], smtp: { host: '127.0.0.1', port: (server.address() as AddressInfo).port, tls: 'none' } } };
  const channels = createChannels({ http: {} as never, vault: {} as never, now: Date.now, workspace: () => 'acme', mailDeadlineMs: 300 });
  await expect(channels.email(config, { id: 'n', destination: 'crm', kind: 'breaker', code: 'vendor-unavailable', since: 0, until: null, phase: 'opened' } as never)).rejects.toThrow('the mail was not taken within 300 ms');
  await closed.promise;
  expect(connection?.destroyed).toBe(true);
});
