import { createServer } from 'node:net';

/** Below the range that the kernel takes for outgoing connections (32768 on Linux): a port chosen there can be taken by any client before it is listened on. */
const lowest = 10_000;
const highest = 32_000;

function isFree(port: number): Promise<boolean> {
  return new Promise((done) => {
    const server = createServer();
    server.once('error', () => done(false));
    server.listen(port, '127.0.0.1', () => server.close(() => done(true)));
  });
}

/** A port with `room` free ports from it on (base and +1 … of an instance). */
export async function freePort(room = 1): Promise<number> {
  for (;;) {
    const base = lowest + Math.floor(Math.random() * (highest - lowest - room));
    const free = await Promise.all(Array.from({ length: room }, (_, i) => isFree(base + i)));
    if (free.every(Boolean)) return base;
  }
}
