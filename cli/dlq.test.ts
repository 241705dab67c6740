import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { assertTaken, Finding, UsageError, type CommandContext } from './command.ts';
import { command } from './commands/dlq.ts';
import { commands } from './commands/index.ts';
import { createTerminal } from './terminal.ts';

let server: Server | undefined;
afterEach(() => {
  server?.closeAllConnections();
  server?.close();
});

const id = 'rpl_00000000-0000-4000-8000-000000000000';
const preview = { derived: false, release: 'rel_x', goneBefore: null, records: 1, repeated: 0, unreadable: 0, held: 0, fails: 0, dropped: 0, goesOn: 0, deliveries: { notApplied: 1 }, verified: {}, back: 1, calls: [{ destination: 'crm', operation: 'put', calls: 1, perSecond: null, seconds: null }], seconds: null, differs: 0, fields: {} };
const order = { id, from: 'dlq', by: 'admin', changedBy: 'admin', at: '', read: 1, total: 1, counts: { requeued: 1 }, ended: {}, preview, report: null, reason: null, waitingFor: null, startedAt: null };
const letter = `dlq_${'a'.repeat(32)}`;

interface Asked { readonly path: string; readonly body: any }

/** Runs `weir dlq …` against a control API that knows the destination crm, has no letter in its lists, and whose orders are previewed, and finished once started. */
async function dlq(positionals: readonly string[], values: CommandContext['values'], refusal?: object, list: object = { deadLetters: [] }, ends = 'finished', found: object = {}, signal = new AbortController().signal): Promise<{ readonly code: number; readonly out: string; readonly asked: readonly Asked[] }> {
  const asked: Asked[] = [];
  let state = 'previewed';
  server = createServer((request, response) => {
    let text = '';
    request.setEncoding('utf8').on('data', (part: string) => { text += part; }).once('end', () => {
      const body = text === '' ? undefined : JSON.parse(text);
      if (request.method === 'POST') asked.push({ path: request.url!, body });
      if (request.url!.endsWith('/start') || body?.start === true) state = ends;
      const answer = refusal !== undefined && (request.method === 'POST' || request.url!.includes('after=')) ? refusal
        : request.url === '/v1/release' ? { sources: ['shop'], destinations: ['crm'] } : request.url!.startsWith('/v1/dlq/stats') ? { total: 0, counts: [] } : request.url!.startsWith('/v1/dlq') ? list : { ...order, ...found, state };
      response.writeHead(answer === refusal ? 400 : 200, { 'content-type': 'application/json' }).end(JSON.stringify(answer));
    });
  });
  await new Promise<void>((done) => { server!.listen(0, '127.0.0.1', done); });
  let out = '';
  const stream = { write: (text: string) => { out += text; } };
  const code = await command.run({
    terminal: createTerminal({ out: stream, err: stream, env: {}, monotonic: () => 0 }), json: false, values, positionals, signal,
    target: { host: '127.0.0.1', port: (server.address() as AddressInfo).port - 1, dataDir: '/nonexistent', env: { WEIR_TOKEN: 'x' } },
  });
  return { code, out, asked };
}

test('a list that is not all says how many there are and how to see the rest', async () => {
  const one = { id: letter, eventId: 'evt_1', stage: 'dispatcher', at: 1, codes: ['delivery-rejected'], message: 'no', source: 'shop', destination: 'crm', operation: 'put', now: 'open' };
  const listed = async (left: number, values: object = {}): Promise<string> => (await dlq(['list'], { limit: '1', ...values }, undefined, { deadLetters: [one], left, next: left === 0 ? null : '0000000000000001/x' })).out;
  expect(await listed(39_999)).toContain('the first 1 of more than 40,000; the rest: the same with --after 0000000000000001/x');
  expect(await listed(9000, { after: '0000000000000002/x' })).toContain('the next 1 of 9,001; the rest');
  expect(await listed(0)).not.toContain('the rest');
});

test('a redrive of a selection passes all of it on, shows what it is, and starts nothing that was not said yes to', async () => {
  const before = Date.now();
  const looked = await dlq(['redrive'], { destination: 'crm', since: '1h', until: '10m' });
  expect(looked.asked.map((a) => a.path)).toEqual(['/v1/replays']);
  const { since, until, ...rest } = looked.asked[0]!.body;
  expect(rest).toEqual({ from: 'dlq', destination: 'crm' });
  expect([since, until].map((at, i) => Math.abs(at - (before - [3_600_000, 600_000][i]!)) < 5000)).toEqual([true, true]);
  expect(looked.out).toMatch(/1 records would be put back: 1 crm\/put/);
  expect(looked.out).toContain(`nothing was started. Run it with: weir replay start ${id}`);
  const run = await dlq(['redrive'], { code: 'delivery-rejected', yes: true });
  expect(run.asked).toEqual([{ path: '/v1/replays', body: { from: 'dlq', code: 'delivery-rejected' } }, { path: `/v1/replays/${id}/start`, body: {} }]);
});

test('letters that are named are sent at once, also what nothing can tell of, and the help says what that may do', async () => {
  const { asked, out } = await dlq(['redrive', letter], {});
  expect(asked).toEqual([{ path: '/v1/replays', body: { from: 'dlq', start: true, ids: [letter], unknown: 'resend' } }]);
  expect(out).toContain(`1 redriven (order ${id})`);
  expect(command.notes).toContain('may take effect twice');
});

test('a redrive of nothing, or of two selections at once, is wrong use', async () => {
  for (const [ids, values] of [[[], {}], [[letter], { all: true }], [[letter], { destination: 'crm' }], [[letter], { since: '1h' }], [[], { all: true, source: 'shop' }], [[letter], { yes: true }]] as const) await expect(dlq(['redrive', ...ids], values), JSON.stringify(values)).rejects.toThrow(UsageError);
});

test('what the control API does not know of a redrive is wrong use: exit 2', async () => {
  for (const ids of [[], [letter]]) await expect(dlq(['redrive', ...ids], ids.length === 0 ? { destination: 'crmm' } : {}, { error: 'bad-request', message: 'destination: no destination crmm' })).rejects.toThrow(UsageError);
});

test('a redrive of named letters that put nothing back is no success: none of them is there, somebody cancelled or stopped it', async () => {
  const run = (ends: string) => dlq(['redrive', letter], {}, undefined, undefined, ends);
  await expect(run('empty')).rejects.toThrow(UsageError);
  await expect(run('empty')).rejects.toThrow(/none of these letters is there any more/);
  await expect(run('cancelled')).rejects.toThrow(Finding);
  expect((await run('paused')).code).toBe(1);
  expect((await run('failed')).code).toBe(1);
});

test('a redrive that is left by Ctrl-C says that the order goes on, and is no success', async () => {
  const { code, out } = await dlq(['redrive', letter], {}, undefined, undefined, 'running', { counts: {} }, AbortSignal.abort());
  expect([code, out]).toEqual([1, `0 redriven so far, the order goes on: weir replay watch ${id}\n`]);
});

test('a run that somebody cancels or pauses is no success', async () => {
  const run = async (ends: string) => (await dlq(['redrive'], { code: 'delivery-rejected', yes: true }, undefined, undefined, ends)).code;
  expect([await run('finished'), await run('cancelled'), await run('paused'), await run('failed')]).toEqual([0, 1, 1, 1]);
});

test('a preview says of which time it is, and a report what was not waited for', async () => {
  const { out } = await dlq(['redrive'], { code: 'delivery-rejected', yes: true }, undefined, undefined, 'finished', { since: '2026-03-04T00:00:00.000Z', until: '2026-03-04T11:00:00.000Z', report: { seconds: 1, ended: {}, left: ['crm'] } });
  expect(out).toContain('of what was put there at or after 2026-03-04T00:00:00.000Z and before 2026-03-04T11:00:00.000Z');
  expect(out).toContain('not waited for, as they have left the release: crm');
});

test('letters that wait for an approver, or cannot be read, are not told for lost: a redrive says what they are, and what else has gone', async () => {
  const run = (ids: readonly string[], met: object) => dlq(['redrive', ...ids], {}, undefined, undefined, 'empty', { preview: { ...preview, records: 0, back: 0, ...met } });
  const three = ['a', 'b', 'c'].map((digit) => `dlq_${digit.repeat(32)}`);
  await expect(run(three, { held: 3 })).rejects.toThrow(UsageError);
  await expect(run(three, { held: 3 })).rejects.toThrow(/^none of these letters can be sent \(order rpl_.*\): 3 held by a rule: .*weir policy approve <id>; weir policy held lists them\)$/);
  await expect(run(three, { held: 1, unreadable: 1, keyDestroyed: 1 })).rejects.toThrow(/: 1 held by a rule: .*; 1 of the records read unreadable: .*; 1 whose key is destroyed: nobody can read them any more$/);
  await expect(run(three, { held: 1, unreadable: 1 })).rejects.toThrow(/cannot be sent; the rest weir\.dlq has lost by its retention$/);
  // Named twice.
  await expect(run([letter, letter], { held: 1 })).rejects.toThrow(/lists them\)$/);
});

test('a redrive of some letters says how many others were held or unreadable, once all were read', async () => {
  const run = async (ends: string, counts: object = { requeued: 1, denied: 1 }) => (await dlq(['redrive', letter], {}, undefined, undefined, ends, { counts, preview: { ...preview, held: 2, unreadable: 1, keyDestroyed: 4 } })).out;
  expect(await run('finished')).toContain('1 redriven, passed over 1 denied, 2 held for an approval (weir policy held), 1 unreadable, 4 key-destroyed (order');
  expect(await run('delivering', { requeued: 1, 'key-destroyed': 3 })).toContain('1 redriven, passed over 4 key-destroyed, 2 held');
  expect(await run('paused')).toContain('1 redriven, passed over 1 denied (order');
});

test('what cannot be asked of a list is wrong use, and is not taken for an empty list', async () => {
  for (const [values, message] of [[{ since: '1h', until: '2h' }, /ends .* before it begins/], [{ release: 'nonsense' }, /--release: rel_/], [{ since: '2026-03-04T12:00' }, /needs Z or an offset/], [{ until: '2026-03-04 12:00:00' }, /needs Z or an offset/], [{ limit: '' }, /whole number/], [{ limit: ' ' }, /whole number/]] as const) {
    await expect(dlq(['list'], values), JSON.stringify(values)).rejects.toThrow(UsageError);
    await expect(dlq(['list'], values)).rejects.toThrow(message);
  }
  await expect(dlq(['stats'], { release: 'nonsense' })).rejects.toThrow(/--release: rel_/);
  await expect(dlq(['list'], { after: 'x' }, { error: 'bad-request', message: 'querystring/after must match pattern' })).rejects.toThrow(UsageError);
});

test('an empty list is one only where the names that it was asked for are known', async () => {
  for (const action of ['list', 'stats']) {
    for (const [values, message] of [[{ destination: 'crmm' }, /no destination of that name; it has crm/], [{ source: 'shpo' }, /no source of that name; it has shop/], [{ code: 'oops' }, /no error code/], [{ stage: 'posting' }, /one of ingest/]] as const) {
      const done = dlq([action], values);
      await expect(done, JSON.stringify(values)).rejects.toThrow(UsageError);
      await expect(done).rejects.toThrow(message);
    }
    expect(await dlq([action], { destination: 'crm', source: 'consent-api', code: 'delivery-held', stage: 'dispatcher' })).toMatchObject({ code: 0, out: 'no dead letters\n' });
  }
});

test('every option of every command is taken by one of its actions, and an action refuses every other one', async () => {
  for (const load of commands.values()) {
    const one = (await load()).command;
    // What follows the name begins with an action wherever it may be one of several.
    const actions = one.usage.split(' | ').flatMap((form) => /^[a-z][a-z-]*(\|[a-z-]+)*/.exec(form)?.[0].split('|') ?? []);
    if (one.takes === undefined) {
      expect([one.name, actions.length > 1 && Object.keys(one.options).length > 0]).toEqual([one.name, false]);
      continue;
    }
    expect([one.name, Object.keys(one.takes).sort()]).toEqual([one.name, [...new Set(actions)].sort()]);
    expect([one.name, Object.keys(one.options).sort()]).toEqual([one.name, [...new Set(Object.values(one.takes).flat())].sort()]);
    for (const [action, taken] of Object.entries(one.takes)) {
      for (const name of Object.keys(one.options)) {
        const given = (): void => assertTaken(one, { [name]: 'x', json: true }, action);
        if (taken.includes(name)) given();
        else expect(given, `${one.name} ${action} --${name}`).toThrow(`${action} takes no --${name}`);
      }
    }
  }
}, 60_000);
