import { createServer } from 'node:net';

/**
 * Below the range that the kernel takes for outgoing connections (32768 on Linux): a port chosen there can be taken by any
 * client before it is listened on. Those from 10,000 on are for brokers (infra/local/platform.ts).
 */
const lowest = 21_000;
const highest = 32_000;

/** What this process gave out: whoever got one may not listen on it yet. */
const givenOut = new Set<number>();

function isFree(port: number): Promise<boolean> {
  if (givenOut.has(port)) return Promise.resolve(false);
  return new Promise((done) => {
    const server = createServer();
    server.once('error', () => done(false));
    server.listen(port, '127.0.0.1', () => server.close(() => done(true)));
  });
}

/** A port with `room` free ports from it on (base and +1 … of an instance); none of them is given out twice by one process. */
export async function freePort(room = 1): Promise<number> {
  for (;;) {
    const base = lowest + Math.floor(Math.random() * (highest - lowest - room));
    const range = Array.from({ length: room }, (_, i) => base + i);
    const free = await Promise.all(range.map(isFree));
    // Another call may have got one of them meanwhile.
    if (!free.every(Boolean) || range.some((port) => givenOut.has(port))) continue;
    for (const port of range) givenOut.add(port);
    return base;
  }
}
