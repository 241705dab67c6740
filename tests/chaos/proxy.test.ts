import { createServer, connect, type AddressInfo, type Server, type Socket } from 'node:net';
import { mkdtempSync, rmSync, existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startProxy, type NetworkProxy } from './proxy.ts';

/** What comes back of `text` within 400 ms, and how the connection ended. */
function ask(port: number, text: string, waitMs = 400): Promise<{ back: string; ended: string; ms: number }> {
  return new Promise((done) => {
    const began = performance.now();
    let back = '';
    let ended = '';
    const socket: Socket = connect(port, '127.0.0.1', () => { socket.write(text); });
    const finish = (): void => {
      clearTimeout(timer);
      socket.destroy();
      done({ back, ended, ms: performance.now() - began });
    };
    const timer = setTimeout(finish, waitMs);
    socket.on('data', (d) => {
      back += d.toString();
      if (back.length >= text.length) finish();
    });
    socket.on('error', (e) => { ended = (e as NodeJS.ErrnoException).code ?? 'error'; finish(); });
    socket.on('close', () => { ended ||= 'closed'; finish(); });
  });
}

const built = existsSync(resolve(import.meta.dirname, '../../.cache/bin/toxiproxy-v2.5.0'));
describe.each(['own', 'toxiproxy'] as const)('%s', (kind) => {
  let echo: Server;
  let proxy: NetworkProxy;
  let port: number;
  const dir = mkdtempSync(join(tmpdir(), 'weir-proxy-'));
  beforeAll(async () => {
    if (kind === 'toxiproxy' && !built) return;
    echo = createServer((s) => { s.on('error', () => undefined).pipe(s); });
    await new Promise<void>((done) => { echo.listen(0, '127.0.0.1', done); });
    proxy = await startProxy(dir, kind);
    port = await proxy.add('echo', (echo.address() as AddressInfo).port);
  });
  afterAll(async () => {
    await proxy?.close();
    echo?.close();
    rmSync(dir, { recursive: true, force: true });
  });

  test.skipIf(kind === 'toxiproxy' && !built)('each fault does what its name says, and heals', async () => {
    expect((await ask(port, 'hello', 10_000)).back).toBe('hello');
    await proxy.toxic('echo', { type: 'latency', stream: 'downstream', attributes: { latency: 300, jitter: 0 } });
    expect((await ask(port, 'hello', 10_000)).ms).toBeGreaterThan(290);
    await proxy.heal('echo');
    for (const stream of ['upstream', 'downstream'] as const) {
      await proxy.toxic('echo', { type: 'timeout', stream, attributes: { timeout: 0 } });
      expect(await ask(port, 'lost')).toMatchObject({ back: '' });
      await proxy.heal('echo');
    }
    await proxy.toxic('echo', { type: 'limit_data', stream: 'downstream', attributes: { bytes: 3 } });
    expect(await ask(port, 'hello', 10_000)).toMatchObject({ back: 'hel' });
    await proxy.heal('echo');
    await proxy.toxic('echo', { type: 'reset_peer', stream: 'downstream', attributes: { timeout: 0 } });
    expect((await ask(port, 'hello', 10_000)).ended).toMatch(/ECONNRESET|closed/);
    await proxy.heal('echo');
    await proxy.toxic('echo', { type: 'slicer', stream: 'downstream', attributes: { average_size: 1, size_variation: 0, delay: 20_000 } });
    expect(await ask(port, 'slowly', 10_000)).toMatchObject({ back: 'slowly' });
    await proxy.heal('echo');
    await proxy.down('echo');
    expect((await ask(port, 'hello', 10_000)).ended).toMatch(/ECONN|closed/);
    await proxy.heal('echo');
    expect((await ask(port, 'hello', 10_000)).back).toBe('hello');
  }, 60_000);

  test.skipIf(kind !== 'toxiproxy' || !built)('a server that does not answer any more is replaced, with what it had', async () => {
    await proxy.down('echo');
    proxy.kill!();
    await proxy.heal('echo');
    expect((await ask(port, 'hello', 10_000)).back).toBe('hello');
    proxy.kill!();
    await Promise.all([proxy.toxic('echo', { type: 'limit_data', stream: 'downstream', attributes: { bytes: 3 } }), proxy.heal('other').catch(() => undefined)]);
    expect(await ask(port, 'hello', 10_000)).toMatchObject({ back: 'hel' });
    await proxy.heal('echo');
  }, 60_000);
});
