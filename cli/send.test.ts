import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import type { CommandContext } from './command.ts';
import { command } from './commands/send.ts';
import { createTerminal } from './terminal.ts';
import { readFolder } from './workspace.ts';

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});
type Answer = (url: string) => object;

async function listen(answer: Answer, port: number): Promise<number> {
  const server = createServer((request, response) => {
    request.resume().once('end', () => response.setHeader('content-type', 'application/json').end(JSON.stringify(answer(request.url!))));
  });
  servers.push(server);
  await new Promise<void>((done, failed) => { server.once('error', failed).listen(port, '127.0.0.1', done); });
  return (server.address() as AddressInfo).port;
}

/** Ingest on a port, and control on the one above it. */
async function instance(ingest: Answer, control: Answer): Promise<number> {
  for (;;) {
    const port = await listen(ingest, 0);
    try {
      await listen(control, port + 1);
      return port;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
    }
  }
}

test('what Ctrl-C cuts off is no success, and says how much of it was sent', async () => {
  const files = readFolder(join(import.meta.dirname, '..', 'workspace'));
  const run = async (stopAt: number) => {
    const stop = new AbortController();
    let sent = 0;
    const port = await instance(() => {
      if (++sent === stopAt) stop.abort();
      return { eventId: 'evt_1', traceId: 'a' };
    }, () => ({ files }));
    let err = '';
    const context: CommandContext = {
      terminal: createTerminal({ out: { write: () => undefined }, err: { write: (text) => { err += text; } }, env: {}, monotonic: () => 0 }), json: false, values: { count: '40' }, positionals: ['segment'], signal: stop.signal,
      target: { host: '127.0.0.1', port, dataDir: '/nonexistent', env: { WEIR_TOKEN: 'x', WEIR_SECRET_SEGMENT_WRITE_KEY: 'k' } },
    };
    return { code: await command.run(context), err };
  };
  expect(await run(1)).toMatchObject({ code: 1, err: expect.stringMatching(/^stopped: \d+ of 40 requests were sent\n$/) });
  expect(await run(-1)).toMatchObject({ code: 0, err: '' });
}, 60_000);
