import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { verifyWebhook } from '@weir/adapter';
import { waitFor } from '@weir/testing';
import { SMTPServer } from 'smtp-server';
import { afterAll, afterEach, beforeAll, expect, inject, test } from 'vitest';
import { startDeliveryWorld, type DeliveryWorld } from './delivery-world.ts';

/** A vendor without keys that remembers the sender's reference and can be asked for it. */
const operation = (pastWindow: string, verify: string): string => `    put:
      accepts: [Profile]
      path: /things
      headers: { x-reference: "{{key}}" }
      body: { email: "{{record.email}}", plan: "{{record.plan}}" }
      idempotency: { scheme: none, pastWindow: ${pastWindow} }
${verify}`;
const destination = (name: string, text: string): string => `adapter: http\nconfig:\n  baseUrl: sandbox://${name}\n  operations:\n${text}routes:\n  - { on: Profile, operation: put, purpose: service }\n`;
const verify = (answers: string): string => `      verify:\n        path: /things?reference={{key}}\n        settle: 1s\n        answers:\n${answers}`;

/** A vendor that takes lists and answers for each item; one call at a time, so that there is something to group. */
const bulkOperation = `    put:
      accepts: [Profile]
      path: /dedupe-by/key/rows
      body: { email: "{{record.email}}", plan: "{{record.plan}}" }
      idempotency: { scheme: body-field, name: /key }
      batch:
        maxItems: 20
        path: /batch-by/key/rows
        body: { items: "{{items}}" }
        results: { path: results, key: key, status: status }
`;

const pathOperation = (name: string, path: string): string => `    ${name}:
      accepts: [Profile]
      path: /dedupe-by/key/${path}
      body: { email: "{{record.email}}", plan: "{{record.plan}}" }
      idempotency: { scheme: body-field, name: /key }
`;

/** Who is told: a webhook and a mail server of this process. */
const hookSecret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
const hooks: { headers: Record<string, string>; body: Buffer }[] = [];
const mails: string[] = [];
const hookServer = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on('data', (d: Buffer) => chunks.push(d)).on('end', () => {
    hooks.push({ headers: request.headers as Record<string, string>, body: Buffer.concat(chunks) });
    response.writeHead(204).end();
  });
});
const mailServer = new SMTPServer({ authOptional: true, onData: (stream, _session, done) => { let text = ''; stream.on('data', (d: Buffer) => { text += d.toString(); }).on('end', () => { mails.push(text); done(); }); } });
const portOf = (server: { address(): unknown }): number => (server.address() as AddressInfo).port;

/** Two vendors that know keys; the first says of itself that a 503 had no effect. */
const mailOperation = (verdicts: string): string => `    send:
      accepts: [Profile]
      path: /mails
      body: { email: "{{record.email}}", plan: "{{record.plan}}" }
      idempotency: { scheme: header, name: Idempotency-Key, window: 24h, pastWindow: hold }
${verdicts}`;

/** Of a vendor that forgets keys soon. */
const keyWindowMs = 15_000;

let weir: DeliveryWorld;
beforeAll(async () => {
  await Promise.all([new Promise<void>((done) => hookServer.listen(0, '127.0.0.1', done)), new Promise<void>((done) => mailServer.listen(0, '127.0.0.1', () => done()))]);
  weir = await startDeliveryWorld({
    brokers: inject('brokers'), registryUrl: inject('registryUrl'),
    files: { 'weir.yaml': `name: delivery\nescalation:\n  after: 1s\n  webhook: { url: "http://127.0.0.1:${portOf(hookServer)}/hook", secret: { secret: ONCALL } }\n  email: { from: weir@larkspur.example, to: [oncall@larkspur.example], smtp: { host: 127.0.0.1, port: ${portOf(mailServer.server)}, tls: none } }\n` },
    // It ends at the first delivery that is given over to mail-two.
    env: { WEIR_SECRET_ONCALL: hookSecret, WEIR_FAILPOINTS: 'log.produce-sent@dispatch.mail-two:1' },
    destinations: {
      asks: destination('asks', operation('verify', verify('          - { status: 200, code: { found: "true" }, answer: applied }\n          - { status: 404, answer: not-applied }\n'))),
      mute: destination('mute', operation('verify', verify('          - { status: 200, code: { found: "yes" }, answer: applied }\n'))),
      holds: destination('holds', operation('hold', '')),
      knows: destination('knows', operation('hold', '').replace('scheme: none', `scheme: header, name: Idempotency-Key, window: ${keyWindowMs / 1000}s`)).replace('purpose: service', 'purpose: service, when: record.plan == "window"'),
      bulk: `${destination('bulk', bulkOperation)}concurrency: 1\n`,
      paths: destination('paths', `${pathOperation('put', 'slow-rows')}${pathOperation('put-other', 'other-rows')}`).replace('operation: put,', 'operation: put, via: [put, put-other],'),
      'mail-one': destination('mail-one', mailOperation('      verdicts:\n        - { status: 503, verdict: retry, effect: none }\n        - { status: 410, verdict: permanent, effect: none, vendorSide: true }\n')).replace('operation: put, purpose: service', 'operation: send, purpose: service, when: record.plan == "mail", via: [{ destination: mail-two, after: 1s }]'),
      'mail-two': destination('mail-two', mailOperation('')).replace('- { on: Profile, operation: put, purpose: service }', '- { on: Event, operation: note, purpose: service }').replace('    send:', '    note:\n      accepts: [Event]\n      path: /notes\n      idempotency: { scheme: none, pastWindow: hold }\n    send:'),
    },
  });
});
afterAll(async () => {
  await weir?.dispose();
  await Promise.all([new Promise((done) => { hookServer.close(done); }), new Promise<void>((done) => { mailServer.close(done); })]);
});
afterEach(() => fetch(`${weir.sandbox}/faults`, { method: 'DELETE' }));

// The first of all, so that nothing is known of either path.
test('of two paths the one that answers is taken, also by what was applied on the other unanswered; which one stands in the trace, and the effect is one', async () => {
  await weir.fault({ destination: 'paths', operation: 'slow-rows', subject: 'path0@larkspur.example', mode: 'late-after-commit', count: 1 });
  await weir.fault({ destination: 'paths', operation: 'slow-rows', mode: '5xx' });
  const callsOf = async (name: string) => (await weir.arrivals('paths')).filter((a) => a.subject === `${name}@larkspur.example`).map((a) => [a.operation, a.applied]);
  await weir.send('path0');
  await waitFor('the call of path0 has arrived', async () => (await callsOf('path0')).length > 0);
  // At once, so that all try the path that is named first, and their failures open the breaker.
  await Promise.all(Array.from({ length: 11 }, (_, i) => weir.send(`path${i + 1}`)));
  await weir.settled();
  for (let i = 0; i < 12; i++) expect(await weir.effectsOf('paths', `path${i}`)).toHaveLength(1);
  const calls = await callsOf('path0');
  expect(calls[0]).toEqual(['slow-rows', true]);
  expect(calls.at(-1)).toEqual(['other-rows', false]);
  const last = await weir.send('path-last');
  await weir.settled();
  expect(await (await weir.api(`/v1/events/${last}/trace`)).text()).toContain('"path":"put-other"');
});

test('what a vendor without keys applied and did not answer is read back and not sent again; what it did not apply is sent', async () => {
  await weir.fault({ destination: 'asks', operation: 'things', subject: 'late@larkspur.example', mode: 'late-after-commit', count: 1 });
  await weir.fault({ destination: 'asks', operation: 'things', subject: 'cut@larkspur.example', mode: 'cut', count: 1 });
  const late = await weir.send('late');
  await weir.send('cut');
  await weir.settled();
  expect(await weir.effectsOf('asks', 'late')).toHaveLength(1);
  expect(await weir.effectsOf('asks', 'cut')).toHaveLength(1);
  const arrivals = await weir.arrivals('asks');
  expect(arrivals.filter((a) => a.operation === 'things' && a.subject === 'late@larkspur.example')).toHaveLength(1);
  expect(arrivals.filter((a) => a.operation === 'read things')).toHaveLength(2);
  const trace = JSON.stringify(await (await weir.api(`/v1/events/${late}/trace`)).json());
  expect(trace).toContain('read-back: applied');
});

test('what the vendor cannot tell, and what may not be asked, waits for a person, who redrives it', async () => {
  await weir.fault({ destination: 'mute', operation: 'things', mode: 'cut', count: 1 });
  await weir.fault({ destination: 'holds', mode: 'cut', count: 1 });
  await weir.send('person');
  const status = await weir.settled();
  expect(status.deliveries.quarantined).toBe(2);
  const held = await weir.deadLetters('code=delivery-held');
  expect(held.map((l) => l.destination).sort()).toEqual(['holds', 'mute']);
  expect((await weir.cli('dlq', 'list', '--code', 'delivery-held')).out).toContain('holds');
  expect((await weir.cli('dlq', 'redrive', held.find((l) => l.destination === 'holds').id)).code).toBe(0);
  await weir.settled();
  expect(await weir.effectsOf('holds', 'person')).toHaveLength(1);
  expect(await weir.effectsOf('mute', 'person')).toHaveLength(0);
});

test('a redrive under hold whose turn comes after the key window sends nothing that may have been applied; one by id is the decision to send it', async () => {
  const callsTo = async () => (await weir.arrivals('knows')).map((a) => a.applied);
  const letters = async () => (await weir.deadLetters('destination=knows')).map((l) => l.codes.join());
  await weir.fault({ destination: 'knows', mode: 'late-after-commit', count: 1 });
  await weir.fault({ destination: 'knows', mode: 'permanent', count: 1 });
  await weir.send('forgotten', 'window');
  await waitFor('the vendor has refused what it had applied', async () => (await letters()).join() === 'delivery-rejected');
  const refusedAt = Date.now();
  expect((await weir.cli('destination', 'pause', 'knows')).code).toBe(0);
  // The vendor knows the key still: it is put back. The command ends with the delivery.
  const redrive = weir.cli('dlq', 'redrive', '--destination', 'knows', '--yes');
  await waitFor('it is put back', async () => {
    const { replays } = (await (await weir.api('/v1/replays')).json()) as { replays: { destination: string | null; counts: { requeued?: number } }[] };
    return replays.some((r) => r.destination === 'knows' && r.counts.requeued === 1);
  });
  expect(Date.now() - refusedAt).toBeLessThan(keyWindowMs);
  await waitFor('the key window is over', () => Date.now() > refusedAt + keyWindowMs, 2 * keyWindowMs);
  expect((await weir.cli('destination', 'resume', 'knows')).code).toBe(0);
  expect((await redrive).code).toBe(0);
  await weir.settled();
  expect(await callsTo()).toEqual([true, false]);
  expect((await letters()).sort()).toEqual(['delivery-held', 'delivery-rejected']);
  const [held] = await weir.deadLetters('destination=knows&code=delivery-held');
  expect((await weir.cli('dlq', 'redrive', held.id)).out).toContain('1 redriven');
  await weir.settled();
  expect(await callsTo()).toHaveLength(3);
});

test('a stop in order while deliveries stand in line for a vendor without keys makes none of them look as if it had been called', async () => {
  expect((await weir.cli('destination', 'pause', 'holds', '--reason', 'a deployment')).code).toBe(0);
  await weir.send('in-line');
  await waitFor('another destination has it', async () => (await weir.effectsOf('asks', 'in-line')).length === 1);
  expect(await weir.stop()).toBe(0);
  await weir.start();
  expect((await weir.cli('destination', 'resume', 'holds')).code).toBe(0);
  await weir.settled();
  expect(await weir.effectsOf('holds', 'in-line')).toHaveLength(1);
});

test('of what is held a person says whether it was applied: then it ends, without a call; else it is sent, without a question; each once, and counted until then', async () => {
  const heldNow = async (): Promise<number> => ((await (await weir.api('/v1/status')).json()) as { held: number }).held;
  await weir.fault({ destination: 'mute', operation: 'things', subject: 'said@larkspur.example', mode: 'cut', count: 1 });
  const began = await heldNow();
  const said = await weir.send('said');
  await weir.settled();
  expect(await heldNow()).toBe(began + 1);
  expect((await weir.cli('status')).out).toMatch(/held: nobody knows/);
  const id = (await weir.deadLetters('code=delivery-held&destination=mute')).find((l) => l.eventId === said).id as string;
  expect((await weir.cli('deliveries', 'held')).out).toContain(id);
  const reads = async (): Promise<number> => (await weir.arrivals('mute')).filter((a) => a.operation === 'read things').length;
  const before = await reads();
  expect((await weir.cli('deliveries', 'resolve', id, '--not-applied', '--reason', 'asked their support')).code).toBe(0);
  await weir.settled();
  expect(await weir.effectsOf('mute', 'said')).toHaveLength(1);
  expect([await reads(), await heldNow()]).toEqual([before, began]);
  const { leaves } = (await (await weir.api('/v1/audit/leaves?limit=1000')).json()) as { leaves: { bytes: string }[] };
  expect(leaves.map((l) => Buffer.from(l.bytes, 'base64').toString())).toContainEqual(expect.stringContaining(`"target":"${id}: not-applied, asked their support"`));
  // The one of the test before was applied, says the vendor's own list.
  const other = (await weir.deadLetters('code=delivery-held&destination=mute&open=true'))[0];
  const resolve = (finding: string) => weir.cli('deliveries', 'resolve', other.id, finding);
  for (let i = 0; i < 2; i++) {
    expect((await resolve('--applied')).code).toBe(0);
    await weir.settled();
  }
  expect(await heldNow()).toBe(began - 1);
  expect((await resolve('--not-applied')).code).toBe(1);
  expect(await weir.effectsOf('mute', 'person')).toHaveLength(0);
  expect(JSON.stringify(await (await weir.api(`/v1/events/${other.eventId}/trace`)).json())).toContain('known by res_');
  expect((await weir.cli('deliveries', 'resolve', id)).code).toBe(2);
});

test('what was not applied is decided by the policy of today before it is sent: what it does not let go stays held, and is sent once when it does', async () => {
  await weir.fault({ destination: 'mute', operation: 'things', subject: 'rule@larkspur.example', mode: 'cut', count: 1 });
  const event = await weir.send('rule');
  await weir.settled();
  const { id } = (await weir.deadLetters('code=delivery-held&destination=mute&open=true')).find((l) => l.eventId === event);
  const { files } = (await (await weir.api('/v1/releases/current')).json()) as { files: { path: string; content: string }[] };
  async function apply(rule: string): Promise<void> {
    const next = files.map((f) => (f.path === 'policies/all.yaml' ? { ...f, content: `${f.content}${rule}` } : f));
    const { hash } = (await (await weir.api('/v1/releases', { method: 'POST', body: JSON.stringify({ files: next }) })).json()) as { hash: string };
    await waitFor('the release runs', async () => (await weir.status()).release === hash);
  }
  const resolve = () => weir.cli('deliveries', 'resolve', id, '--not-applied');
  await apply('  - { name: not-now, effect: deny, when: record.plan == "a" }\n');
  expect(await resolve()).toMatchObject({ code: 1, err: expect.stringMatching(/policy of the running release does not let it go now/) });
  await weir.settled();
  expect(await weir.effectsOf('mute', 'rule')).toHaveLength(0);
  expect((await weir.deadLetters('code=delivery-held&destination=mute&open=true')).map((l) => l.id)).toContain(id);
  await apply('');
  expect(await resolve()).toMatchObject({ code: 0 });
  await weir.settled();
  expect(await weir.effectsOf('mute', 'rule')).toHaveLength(1);
});

test('heads of different people go in one call, each with its own key, verdict and end, and the order of each stays', async () => {
  await weir.fault({ destination: 'bulk', mode: 'slow', delayMs: 400, count: 1 });
  const people = Array.from({ length: 30 }, (_, i) => `many${i}`);
  for (const plan of ['a', 'b']) await Promise.all(people.map((name) => weir.send(name, plan)));
  const refused = await weir.send('');
  const status = await weir.settled();
  for (const name of people) expect((await weir.effectsOf('bulk', name)).map((e) => e.body.plan)).toEqual(['a', 'b']);
  expect(status.deliveries.pending).toBe(0);
  const letters = (await weir.deadLetters('destination=bulk')).filter((l) => l.eventId === refused);
  expect(letters.map((l) => l.codes)).toEqual([['delivery-rejected']]);
  const metrics = await (await fetch(`http://127.0.0.1:${weir.base + 4}/metrics`)).text();
  const value = (name: string): number => Number(new RegExp(`^${name}\\{destination="bulk"\\} (\\S+)`, 'm').exec(metrics)?.[1]);
  expect(value('weir_delivery_batch_items_sum')).toBeGreaterThanOrEqual(61);
  expect(value('weir_delivery_batch_items_count')).toBeLessThan(value('weir_delivery_batch_items_sum') / 2);
});

test('people are told by a signed webhook and by mail when a breaker stays open and when a credential is refused, and once more when it is over', async () => {
  await weir.fault({ destination: 'bulk', mode: '5xx' });
  await weir.fault({ destination: 'asks', operation: 'things', mode: 'auth' });
  await Promise.all(Array.from({ length: 6 }, (_, i) => weir.send(`told${i}`)));
  const told = (): string[] => hooks.map(({ body }) => JSON.parse(body.toString()) as { type: string; data: { destination: string; kind: string } }).filter(({ data }) => ['bulk', 'asks'].includes(data.destination)).map(({ type, data }) => `${data.destination} ${data.kind} ${type.split('.').at(-1)!}`).toSorted();
  await waitFor('both are told by webhook', () => told().length >= 2);
  expect(told()).toEqual(['asks credential opened', 'bulk breaker opened']);
  await waitFor('and by mail', () => mails.some((m) => /Subject: \[weir delivery\] bulk does not answer/.test(m)) && mails.some((m) => /Subject: \[weir delivery\] asks is paused/.test(m)));
  await fetch(`${weir.sandbox}/faults`, { method: 'DELETE' });
  await waitFor('both are told to be over', () => told().length >= 4, 60_000);
  await weir.settled();
  expect(told()).toEqual(['asks credential closed', 'asks credential opened', 'bulk breaker closed', 'bulk breaker opened']);
  for (const { headers, body } of hooks) expect(verifyWebhook([hookSecret], headers, body, Date.now(), 300_000).ok).toBe(true);
  expect(JSON.stringify([mails, hooks.map((h) => h.body.toString())])).not.toContain(hookSecret);
  for (let i = 0; i < 6; i++) expect(await weir.effectsOf('bulk', `told${i}`)).toHaveLength(1);
});

test('killed when the end at the first vendor is written and the second may not have the delivery: each takes effect once', async () => {
  await weir.fault({ destination: 'mail-one', mode: '5xx' });
  const people = Array.from({ length: 12 }, (_, i) => `killed${i}`);
  await Promise.all(people.map((name) => weir.send(name, 'mail')));
  await weir.ended();
  await weir.start({ WEIR_FAILPOINTS: undefined });
  await weir.settled();
  const counts = await Promise.all(people.map(async (name) => [(await weir.effectsOf('mail-one', name)).length, (await weir.effectsOf('mail-two', name)).length] as const));
  for (const [one, two] of counts) expect(one + two).toBe(1);
  expect(counts.some(([, two]) => two === 1)).toBe(true);
});

test('a vendor that is away, or refuses for a reason of its own, is stood in for, each delivery once and with its history; what it may have applied waits for it', async () => {
  const everywhere = async (name: string): Promise<string[]> => [...(await weir.effectsOf('mail-one', name)).map(() => 'mail-one'), ...(await weir.effectsOf('mail-two', name)).map(() => 'mail-two')];
  // Taken and not answered: nobody but the first vendor knows.
  await weir.fault({ destination: 'mail-one', subject: 'doubt@larkspur.example', mode: 'late-after-commit', count: 1 });
  await weir.send('doubt', 'mail');
  await waitFor('the call in doubt has arrived', async () => (await weir.arrivals('mail-one')).length > 0);
  // The credential is refused: one call opens the breaker, so that of the others only probes are called, and they are refused too.
  await weir.fault({ destination: 'mail-one', mode: 'auth' });
  const people = Array.from({ length: 15 }, (_, i) => `stood${i}`);
  await Promise.all(people.map((name) => weir.send(name, 'mail')));
  await waitFor('the second vendor has them', async () => (await Promise.all(people.map((name) => weir.effectsOf('mail-two', name)))).filter((e) => e.length === 1).length >= 13);
  expect(await everywhere('doubt')).toEqual(['mail-one']);
  await fetch(`${weir.sandbox}/faults`, { method: 'DELETE' });
  await weir.settled();
  for (const name of people) expect(await everywhere(name)).toHaveLength(1);
  expect(await everywhere('doubt')).toEqual(['mail-one']);
  await weir.fault({ destination: 'mail-one', mode: 'permanent', status: 410 });
  await weir.fault({ destination: 'mail-two', mode: 'permanent', subject: 'nobody-takes@larkspur.example' });
  const gone = await weir.send('gone', 'mail');
  const lost = await weir.send('nobody-takes', 'mail');
  const status = await weir.settled();
  expect(await everywhere('gone')).toEqual(['mail-two']);
  expect(status.deliveries.failedOver).toBeGreaterThanOrEqual(10);
  const stages = ((await (await weir.api(`/v1/events/${gone}/trace`)).json()) as { stages: any[] }).stages.filter((s) => String(s.destination).startsWith('mail-'));
  expect(stages.find((s) => s.stage === 'outcome' && s.destination === 'mail-one')).toMatchObject({ state: 'failed-over', to: 'mail-two', reason: 'delivery-rejected' });
  expect(stages.find((s) => s.stage === 'decided' && s.destination === 'mail-two')).toMatchObject({ from: 'mail-one' });
  expect((await weir.cli('trace', gone)).out).toMatch(/failed-over to=mail-two/);
  const letter = (await weir.deadLetters('destination=mail-two')).find((l) => l.eventId === lost);
  const shown = (await (await weir.api(`/v1/dlq/${letter.id}`)).json()) as { reasons: { message: string }[] };
  expect(shown.reasons[1]!.message).toMatch(/before, at mail-one \(dlv_\w+, 1 calls, HTTP 410\)/);
  // An order for the first does not undo it.
  expect((await weir.cli('replay', 'dispatch', '--destination', 'mail-one', '--yes')).out).toMatch(/failed over\s+\d+/);
  await weir.settled();
  for (const name of [...people, 'gone', 'doubt']) expect(await everywhere(name)).toHaveLength(1);
});
