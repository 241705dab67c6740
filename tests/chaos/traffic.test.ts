import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { waitFor } from '@weir/testing';
import { expect, test } from 'vitest';
import { createRandom } from './random.ts';
import { startTraffic, type Feed } from './traffic.ts';

const feed: Feed = { url: '', grow: () => undefined, size: () => 0, close: async () => undefined };

test('what falls due while nobody answers is sent after it, the same calls again first; what was cut off and what is held is told', async () => {
  const requests: string[][] = [];
  let away = true;
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const ids = (JSON.parse(Buffer.concat(chunks).toString()) as { batch: { messageId: string }[] }).batch.map((c) => c.messageId);
    requests.push(ids);
    if (away) return request.socket.destroy();
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ eventIds: ids }));
  });
  await new Promise<void>((done) => { server.listen(0, '127.0.0.1', done); });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const traffic = startTraffic({ ingest: [url, url], authorization: () => 'x', random: createRandom(1), people: 8, workers: 1, batch: 4, rate: 200 }, feed);
  try {
    await waitFor('three are cut off', () => requests.length >= 3);
    expect(requests[1]).toEqual(requests[0]);
    expect(Math.max(...traffic.log.cutAt)).toBeGreaterThan(0);
    expect(traffic.log.events).toBe(0);
    away = false;
    await waitFor('a request of several at once', () => requests.some((ids) => ids.length === 20));
    traffic.hold(true);
    await waitFor('nothing is on its way', () => traffic.log.inFlight.every((n) => n === 0));
    traffic.hold(false);
    traffic.setRate(1);
    await traffic.stop();
    const answered = [...traffic.log.answered.values()].flat();
    expect(new Set(answered).size).toBe(traffic.log.events);
    expect(new Set(requests.flat())).toEqual(new Set(answered));
  } finally {
    server.closeAllConnections();
    server.close();
  }
});

test('what a sender is told besides 2xx is written down with its Retry-After; told never to try again it does not', async () => {
  const statuses = [503, 400];
  let asked = 0;
  const server = createServer(async (request, response) => {
    for await (const _ of request);
    asked++;
    const status = statuses.shift();
    if (status === undefined) return response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ eventIds: ['e1'] }));
    response.writeHead(status, status === 503 ? { 'retry-after': '2' } : {}).end('{}');
  });
  await new Promise<void>((done) => { server.listen(0, '127.0.0.1', done); });
  const traffic = startTraffic({ ingest: [`http://127.0.0.1:${(server.address() as AddressInfo).port}`], authorization: () => 'x', random: createRandom(1), people: 8, workers: 1, batch: 4, rate: 1 }, feed);
  traffic.hold(true);
  try {
    const one = { userId: 'u-1', email: 'p1@larkspur.example', body: {} };
    expect(await traffic.send([one])).toEqual([]);
    expect(asked).toBe(2);
    expect(traffic.log.refusals).toMatchObject([{ instance: 1, status: 503, retryAfter: '2' }, { instance: 1, status: 400, retryAfter: null }]);
    expect(await traffic.send([one])).toEqual(['e1']);
    expect([traffic.log.requests, traffic.log.events, traffic.log.refusals.length]).toEqual([1, 1, 2]);
    await traffic.stop();
  } finally {
    server.closeAllConnections();
    server.close();
  }
});
