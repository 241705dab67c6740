import { createServer, type Server } from 'node:http';
import { collectDefaultMetrics, type Registry } from 'prom-client';
import type { Readiness } from './types.ts';

export interface OpsServer {
  readonly port: number;
  close(): Promise<void>;
}

/** /healthz (the process answers), /readyz (it does its work, else 503 with the reason), /metrics (Prometheus text). */
export async function startOps(options: { host: string; port: number; registry: Registry; readiness: () => Readiness; processMetrics?: boolean }): Promise<OpsServer> {
  if (options.processMetrics !== false) collectDefaultMetrics({ register: options.registry });
  const server: Server = createServer((request, response) => {
    const path = request.url?.split('?')[0];
    if (request.method !== 'GET') return response.writeHead(405).end();
    if (path === '/healthz') return response.writeHead(200, { 'content-type': 'application/json' }).end('{"status":"ok"}');
    if (path === '/readyz') {
      const { ready, reason } = options.readiness();
      return response.writeHead(ready ? 200 : 503, { 'content-type': 'application/json' }).end(JSON.stringify(ready ? { ready } : { ready, reason }));
    }
    if (path === '/metrics') {
      options.registry.metrics().then((text) => response.writeHead(200, { 'content-type': options.registry.contentType }).end(text), (error: Error) => response.writeHead(500).end(error.message));
      return response;
    }
    return response.writeHead(404).end();
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port, options.host, resolve);
  });
  return {
    port: (server.address() as { port: number }).port,
    close: () => new Promise((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    }),
  };
}
