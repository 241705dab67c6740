import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { Finding, UsageError, type CommandContext } from './command.ts';
import { command, parseTime } from './commands/replay.ts';
import { createTerminal } from './terminal.ts';

let server: Server | undefined;
afterEach(() => {
  server?.closeAllConnections();
  server?.close();
});

const order = { id: 'rpl_00000000-0000-4000-8000-000000000000', from: 'dlq', state: 'previewing', by: 'admin', changedBy: 'admin', at: '', read: 0, total: 10, counts: {}, ended: {}, preview: null, report: null, reason: null, waitingFor: null };

/** Runs `weir replay dlq --all` against a control API whose order stands like this when it is looked at. */
async function replay(state: object, looked: () => void): Promise<{ readonly code: number; readonly out: string }> {
  server = createServer((request, response) => {
    if (request.method === 'GET') looked();
    request.resume().once('end', () => response.setHeader('content-type', 'application/json').end(JSON.stringify(request.method === 'GET' ? { ...order, ...state } : order)));
  });
  await new Promise<void>((done) => { server!.listen(0, '127.0.0.1', done); });
  let out = '';
  const stream = { write: (text: string) => { out += text; } };
  const context: CommandContext = {
    terminal: createTerminal({ out: stream, err: stream, env: {}, monotonic: () => 0 }), json: false, values: { all: true }, positionals: ['dlq'], signal: stop.signal,
    target: { host: '127.0.0.1', port: (server.address() as AddressInfo).port - 1, dataDir: '/nonexistent', env: { WEIR_TOKEN: 'x' } },
  };
  return { code: await command.run(context), out };
}
let stop = new AbortController();

test('Ctrl-C while a preview is made leaves it going on, and says where it is to be seen', async () => {
  stop = new AbortController();
  const { code, out } = await replay({}, () => stop.abort());
  expect([code, out]).toEqual([0, `nothing was started; the preview goes on: weir replay show ${order.id}\n`]);
});

test('an order that somebody cancels while its preview is made is told, and by whom', async () => {
  stop = new AbortController();
  const run = replay({ state: 'cancelled', changedBy: 'token:tok_b' }, () => {});
  await expect(run).rejects.toThrow(Finding);
  await expect(run).rejects.toThrow(/was cancelled by token:tok_b/);
});

const counts = { derived: false, release: 'rel_x', records: 0, repeated: 0, unreadable: 0, held: 0, fails: 0, dropped: 0, goesOn: 0, deliveries: {}, verified: {}, back: 0, calls: [], seconds: null, differs: 0, fields: {} };

test('a selection of which nothing can be sent says what it is, and is not told for one that nothing matches', async () => {
  stop = new AbortController();
  const run = (met: object) => replay({ state: 'empty', preview: { ...counts, goneBefore: null, ...met } }, () => {}).finally(() => server?.close());
  await expect(run({ held: 2 })).rejects.toThrow(UsageError);
  await expect(run({ held: 2 })).rejects.toThrow(/^nothing of what matches can be sent \(order rpl_.*\): 2 held by a rule: .*weir policy approve <id>/);
  await expect(run({ unreadable: 1, goneBefore: Date.UTC(2026, 2, 4, 10) })).rejects.toThrow(/: 1 of the records read unreadable: .* cannot be sent; what was put there before 2026-03-04/);
  await expect(run({})).rejects.toThrow(/^nothing matches: no record in the range is selected/);
});

test('a preview of a range that retention took a part of says since when it is there', async () => {
  stop = new AbortController();
  const { code, out } = await replay({ state: 'previewed', preview: { ...counts, goneBefore: Date.UTC(2026, 2, 4, 10) } }, () => {});
  expect(code).toBe(0);
  expect(out).toContain('before 2026-03-04T10:00:00.000Z is gone (retention)');
  server?.close();
  expect((await replay({ state: 'previewed', preview: { ...counts, goneBefore: null } }, () => {})).out).not.toContain('gone');
});

test('a time of day means one moment, wherever it is typed: it has a zone; a day alone begins in UTC', () => {
  expect(parseTime('since', '2026-03-04', 0)).toBe(Date.UTC(2026, 2, 4));
  expect(parseTime('since', '2026-03-04T12:00Z', 0)).toBe(Date.UTC(2026, 2, 4, 12));
  expect(parseTime('until', '2026-03-04 12:00:30+01:00', 0)).toBe(Date.UTC(2026, 2, 4, 11, 0, 30));
  for (const text of ['2026-03-04T12:00', '2026-03-04 12:00', '2026-03-04T12:00:00.5', 'yesterday']) expect(() => parseTime('since', text, 0)).toThrow(/^--since: .* is no time/);
});
