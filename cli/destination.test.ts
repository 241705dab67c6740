import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import type { CommandContext } from './command.ts';
import { command } from './commands/destination.ts';
import { createTerminal } from './terminal.ts';

let server: Server | undefined;
afterEach(() => {
  server?.closeAllConnections();
  server?.close();
});

/** Runs `weir destination <action> crm` against a control API that answers this. */
async function run(action: 'pause' | 'resume', answer: object): Promise<{ readonly code: number; readonly out: string }> {
  server = createServer((request, response) => {
    request.resume().once('end', () => response.setHeader('content-type', 'application/json').end(JSON.stringify({ destination: 'crm', paused: action === 'pause', reason: null, by: 'admin', since: '', ...answer })));
  });
  await new Promise<void>((done) => { server!.listen(0, '127.0.0.1', done); });
  let out = '';
  const stream = { write: (text: string) => { out += text; } };
  const context: CommandContext = {
    terminal: createTerminal({ out: stream, err: stream, env: {}, monotonic: () => 0 }), json: false, values: {}, positionals: [action, 'crm'], signal: new AbortController().signal,
    target: { host: '127.0.0.1', port: (server.address() as AddressInfo).port - 1, dataDir: '/nonexistent', env: { WEIR_TOKEN: 'x' } },
  };
  return { code: await command.run(context), out };
}

test('a pause ends with 0 when no call starts any more, else with 1 and who may still call', async () => {
  expect(await run('pause', { applied: true, missing: [] })).toEqual({ code: 0, out: expect.stringContaining('no call starts') });
  expect(await run('pause', { applied: false, missing: ['d2'] })).toEqual({ code: 1, out: expect.stringMatching(/may still call it: d2\..*when its lease .* is over/) });
  expect(await run('pause', { applied: false, missing: [] })).toEqual({ code: 1, out: expect.stringContaining('the brokers do not tell') });
});

test('a control service of a version before, which does not say who knows, has paused and resumed all the same', async () => {
  expect(await run('pause', {})).toEqual({ code: 1, out: expect.stringMatching(/crm is paused.*of a version before.*may still call/) });
  expect(await run('resume', {})).toEqual({ code: 0, out: expect.stringContaining('crm goes on') });
  expect(await run('resume', { applied: true, missing: [] })).toEqual({ code: 0, out: expect.stringContaining('crm goes on') });
});
