/** A TCP proxy with Toxiproxy's faults, for machines without Go. */
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import type { NetworkProxy, Toxic } from './proxy.ts';

const pause = (ms: number): Promise<void> => new Promise((done) => { setTimeout(done, ms); });

interface Connection {
  readonly client: Socket;
  readonly server: Socket;
  readonly passed: Record<Toxic['stream'], number>;
}
interface Line {
  readonly server: Server;
  readonly connections: Set<Connection>;
  toxics: Toxic[];
  up: boolean;
}

function end({ client, server }: Connection, reset = false): void {
  for (const socket of [client, server]) {
    if (reset) socket.resetAndDestroy();
    else socket.destroy();
  }
}

/** Toxics that act on a connection by time, not by data. */
function strike(line: Line, connection: Connection, toxic: Toxic): void {
  const { timeout = 0 } = toxic.attributes;
  if (toxic.type !== 'reset_peer' && (toxic.type !== 'timeout' || timeout === 0)) return;
  setTimeout(() => { if (line.toxics.includes(toxic)) end(connection, toxic.type === 'reset_peer'); }, timeout).unref();
}

/** One chunk under the toxics of its stream, as they are now. False = nothing more passes. */
async function deliver(line: Line, connection: Connection, stream: Toxic['stream'], chunk: Buffer, to: Socket): Promise<void> {
  let piece = chunk.length;
  let gapMs = 0;
  for (const { type, attributes: a } of line.toxics.filter((t) => t.stream === stream)) {
    if (type === 'timeout' || type === 'reset_peer') return;
    if (type === 'latency') await pause(Math.max(0, a['latency']! + ((a['jitter'] ?? 0) * (2 * Math.random() - 1))));
    if (type === 'bandwidth') await pause(chunk.length / Math.max(0.001, a['rate']!) * 1000 / 1024);
    if (type === 'slicer') {
      piece = Math.max(1, a['average_size']!);
      gapMs = (a['delay'] ?? 0) / 1000;
    }
    if (type === 'limit_data') {
      const left = Math.max(0, a['bytes']! - connection.passed[stream]);
      if (chunk.length >= left) {
        to.write(chunk.subarray(0, left));
        connection.passed[stream] += left;
        return end(connection);
      }
    }
  }
  connection.passed[stream] += chunk.length;
  for (let at = 0; at < chunk.length && !to.destroyed; at += piece) {
    to.write(chunk.subarray(at, at + piece));
    if (gapMs > 0) await pause(gapMs);
  }
}

function pump(line: Line, connection: Connection, stream: Toxic['stream']): void {
  const [from, to] = stream === 'upstream' ? [connection.client, connection.server] : [connection.server, connection.client];
  let last: Promise<void> = Promise.resolve();
  from.on('data', (chunk: Buffer) => {
    from.pause();
    last = last.then(() => deliver(line, connection, stream, chunk, to)).then(() => { from.resume(); });
  });
  from.on('end', () => {
    void last.then(() => pause(line.toxics.find((t) => t.type === 'slow_close' && t.stream === stream)?.attributes['delay'] ?? 0)).then(() => { to.end(); });
  });
  from.on('error', () => { to.destroy(); });
  from.on('close', () => { void last.then(() => { to.destroy(); }); });
}

export async function startOwnProxy(): Promise<NetworkProxy> {
  const lines = new Map<string, Line>();
  const find = (name: string): Line => {
    const line = lines.get(name);
    if (line === undefined) throw new Error(`no proxy ${name}`);
    return line;
  };
  return {
    kind: 'own',
    async add(name, upstream) {
      const line: Line = { connections: new Set(), toxics: [], up: true, server: createServer((client) => {
        if (!line.up) return void client.resetAndDestroy();
        const connection: Connection = { client, server: connect(upstream, '127.0.0.1'), passed: { upstream: 0, downstream: 0 } };
        line.connections.add(connection);
        client.on('close', () => line.connections.delete(connection));
        pump(line, connection, 'upstream');
        pump(line, connection, 'downstream');
        for (const toxic of line.toxics) strike(line, connection, toxic);
      }) };
      lines.set(name, line);
      await new Promise<void>((done) => { line.server.listen(0, '127.0.0.1', done); });
      return (line.server.address() as AddressInfo).port;
    },
    async toxic(name, toxic) {
      const line = find(name);
      line.toxics.push(toxic);
      for (const connection of line.connections) strike(line, connection, toxic);
    },
    async down(name) {
      find(name).up = false;
      for (const connection of find(name).connections) end(connection, true);
    },
    async heal(name) {
      find(name).toxics = [];
      find(name).up = true;
    },
    async close() {
      for (const { server, connections } of lines.values()) {
        for (const connection of connections) end(connection);
        server.close();
      }
    },
  };
}
