import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { defineConfig, readConfig } from '@weir/config';
import type { Target } from './command.ts';

export const options = defineConfig({
  port: { env: 'WEIR_PORT', type: 'integer', min: 1, max: 65_000, default: 8080, doc: 'Base port of the running instance; the control API is one above.' },
  host: { env: 'WEIR_HOST', type: 'string', default: '127.0.0.1', doc: 'Address of the running instance.' },
  dataDir: { env: 'WEIR_DATA', type: 'string', optional: true, doc: 'Data folder of the running instance: admin token and local secrets; default .weir here, else in the repository.' },
});

/** Finds the instance. Throws WeirError config-invalid. */
export function readTarget(env: Readonly<Record<string, string | undefined>>, root: string): Target {
  const { port, host, dataDir } = readConfig(options, env);
  return { host, port, env, dataDir: dataDir ?? (existsSync('.weir') ? '.weir' : join(root, '.weir')) };
}
