import { readFileSync, truncateSync } from 'node:fs';
import { createServer } from 'node:http';
import { resolve } from 'node:path';
import { startFleet, type Fleet } from '@weir/testing';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';

let fleet: Fleet;
beforeAll(async () => { fleet = await startFleet({ brokers: inject('brokers'), registryUrl: inject('registryUrl'), workspace: resolve(import.meta.dirname, '../../workspace') }); });
afterAll(() => fleet?.dispose());

// The normalizer listens for /metrics before it starts, the others for their callers while they start.
test.each(['normalizer', 'ingest', 'control'] as const)('the %s whose port is taken says so in one line and ends with 1, not with the stack of an error that nobody caught', async (service) => {
  const { port } = new URL(fleet.url(service));
  const before = fleet.process(service);
  const ended = new Promise((done) => before.once('exit', done));
  before.kill('SIGKILL');
  await ended;
  truncateSync(fleet.logFile(service));
  const holder = createServer((_, response) => { response.writeHead(503).end(); });
  await new Promise<void>((listening, failed) => { holder.once('error', failed).listen(Number(port), '127.0.0.1', listening); });
  try {
    await expect(fleet.start(service)).rejects.toThrow(`${service} ended (1)`);
  } finally {
    holder.close();
  }
  expect(readFileSync(fleet.logFile(service), 'utf8').split('\n').filter((line) => line !== '' && !line.startsWith('{'))).toEqual([expect.stringMatching(`^${service} cannot start: .*EADDRINUSE.*127\\.0\\.0\\.1:${port}`)]);
});
