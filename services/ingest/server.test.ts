import { once } from 'node:events';
import { connect, type AddressInfo } from 'node:net';
import { expect, test } from 'vitest';
import { createServer } from './server.ts';

test('a request that is on its way when the server closes is answered by its route, and not with a 503 that does not say when to come again', async () => {
  const app = createServer({ requestTimeoutMs: 5000, refused: () => undefined });
  app.get('/', { config: { undocumented: true } as never }, async () => 'answered');
  await app.listen({ port: 0, host: '127.0.0.1' });
  const open = async () => {
    const socket = connect((app.server.address() as AddressInfo).port, '127.0.0.1');
    const answers: Buffer[] = [];
    socket.on('data', (bytes) => { answers.push(bytes); });
    await once(socket, 'connect');
    return { socket, told: () => Buffer.concat(answers).toString() };
  };
  const late = await open();
  const ended = once(late.socket, 'close');
  late.socket.write('GET / HTTP/1.1\r\nhost: x\r\n');
  // What was sent before on another connection has been read when this is answered.
  const other = await open();
  other.socket.write('GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n');
  await once(other.socket, 'close');
  const closed = app.close();
  late.socket.write('\r\n');
  await Promise.all([ended, closed]);
  expect([late.told().split('\r\n')[0], late.told().endsWith('answered'), other.told().endsWith('answered')]).toEqual(['HTTP/1.1 200 OK', true, true]);
});
