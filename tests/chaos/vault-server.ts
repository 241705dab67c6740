/** KV version 2 of HashiCorp Vault as its API documentation says, with the ways in which it is not there. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface VaultServer {
  readonly port: number;
  readonly token: string;
  readonly values: Record<string, string>;
  mode: 'ok' | 'sealed' | 'slow' | 'denied';
  close(): Promise<void>;
}

export async function startVaultServer(): Promise<VaultServer> {
  const token = 'hvs.token-of-the-vault-under-chaos';
  const server = createServer((request, response) => {
    if (vault.mode === 'slow') return;
    const answer = (status: number, body: unknown): void => { response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body)); };
    if (vault.mode === 'sealed') return answer(503, { errors: ['Vault is sealed'] });
    if (vault.mode === 'denied' || request.headers['x-vault-token'] !== token) return answer(403, { errors: ['permission denied'] });
    answer(200, { data: { data: vault.values, metadata: { version: 1, created_time: new Date().toISOString() } } });
  });
  await new Promise<void>((done) => { server.listen(0, '127.0.0.1', done); });
  const vault: VaultServer = {
    port: (server.address() as AddressInfo).port, token, values: {}, mode: 'ok',
    close: () => new Promise((done) => {
      server.close(() => done());
      server.closeAllConnections();
    }),
  };
  return vault;
}
