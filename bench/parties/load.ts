/**
 * `load.ts <url> <secret>`: sends signed contact webhooks at a steady rate, each at its time whatever became of the ones
 * before (open loop). Latency counts from the time at which it was due. Bodies are made and signed beforehand.
 */
import { connect, type Socket } from 'node:net';
import { signWebhook } from '@weir/adapter';
import { contact } from '../contacts.ts';
import { answer, clock, percentiles } from './helper.ts';

const [url, secret] = process.argv.slice(2) as [string, string];
const { host, hostname, port, pathname } = new URL(url);

interface Order { readonly rate: number; readonly count: number; readonly first: number; readonly stamped: boolean; readonly connections: number }

/** `stamped`: the title of the contact is when it is due, ms behind the begin of the run, of one in twenty the person is new, the others are of 5,000 who return. */
function requestOf(number: number, order: Order, dueAt: number): Buffer {
  let body = contact(number);
  if (order.stamped) {
    const item = JSON.parse(body.toString()) as { data: Record<string, unknown> };
    item.data['title'] = String(dueAt);
    const person = number % 20 === 0 ? `n${number}` : `r${number % 5000}`;
    item.data['user_id'] = `usr_${person}`;
    item.data['email'] = `${person}@larkspur.example`;
    item.data['phone'] = `+4930${person.slice(1).padStart(8, person.startsWith('n') ? '9' : '1')}`;
    body = Buffer.from(JSON.stringify(item));
  }
  const headers = Object.entries({ host, 'content-type': 'application/json', 'content-length': String(body.length), ...signWebhook(secret, `msg-${number}`, Date.now(), body) });
  return Buffer.concat([Buffer.from(`POST ${pathname} HTTP/1.1\r\n${headers.map(([k, v]) => `${k}: ${v}\r\n`).join('')}\r\n`), body]);
}

async function run(order: Order): Promise<unknown> {
  const { count, rate, first } = order;
  const sockets = await Promise.all(Array.from({ length: order.connections }, () => new Promise<Socket>((done, reject) => {
    const socket: Socket = connect(Number(port), hostname, () => done(socket.setNoDelay(true)));
    socket.once('error', reject);
  })));
  const requests = Array.from({ length: count }, (_, i) => requestOf(first + i, order, Math.round(i * 1_000_000 / rate) / 1000));
  // Only now: making them takes as long as it takes.
  const begin = clock() + 500;
  const due = (i: number): number => begin + i * 1000 / rate;
  const latencies = new Float64Array(count);
  const idle = [...sockets];
  const waiting: number[] = [];
  let accepted = 0;
  let answered = 0;
  const done = Promise.withResolvers<void>();
  const send = (socket: Socket, i: number): void => {
    let text = '';
    const take = (chunk: Buffer): void => {
      text += chunk.toString('latin1');
      const head = text.indexOf('\r\n\r\n');
      if (head < 0 || text.length < head + 4 + Number(/content-length: (\d+)/i.exec(text)?.[1] ?? 0)) return;
      socket.off('data', take);
      latencies[i] = clock() - due(i);
      if (text.startsWith('HTTP/1.1 202')) accepted++;
      const next = waiting.shift();
      if (next === undefined) idle.push(socket);
      else send(socket, next);
      if (++answered === count) done.resolve();
    };
    socket.on('data', take);
    socket.write(requests[i]!);
  };
  await new Promise((next) => setTimeout(next, Math.max(0, begin - clock())));
  const cpu = process.cpuUsage();
  const began = clock();
  let next = 0;
  const tick = (): void => {
    for (; next < count && due(next) <= clock(); next++) {
      const socket = idle.pop();
      if (socket === undefined) waiting.push(next);
      else send(socket, next);
    }
    if (next < count) setTimeout(tick, 1);
  };
  tick();
  await done.promise;
  const used = process.cpuUsage(cpu);
  const share = (used.user + used.system) / 1000 / (clock() - began);
  for (const socket of sockets) socket.destroy();
  return { sent: count, accepted, begin, share: Math.round(share * 100) / 100, ...percentiles(latencies) };
}

answer({ run });
