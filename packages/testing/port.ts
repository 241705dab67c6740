import { createServer } from 'node:net';

function take(port: number): Promise<number | undefined> {
  return new Promise((done) => {
    const server = createServer();
    server.once('error', () => done(undefined));
    server.listen(port, '127.0.0.1', () => {
      const found = (server.address() as { port: number }).port;
      server.close(() => done(found));
    });
  });
}

/** A port with `room` free ports from it on (base and +1 … of an instance). */
export async function freePort(room = 1): Promise<number> {
  for (;;) {
    const base = await take(0);
    if (base === undefined || base + room > 65_000) continue;
    const rest = await Promise.all(Array.from({ length: room - 1 }, (_, i) => take(base + i + 1)));
    if (rest.every((p) => p !== undefined)) return base;
  }
}
