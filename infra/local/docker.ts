import { execFile } from 'node:child_process';
import { resolve } from 'node:path';
import { promisify } from 'node:util';
import type { Platform } from './platform.ts';

const run = promisify(execFile);
const root = resolve(import.meta.dirname, '../..');
const services = ['kafka', 'registry'];

/** True when a Docker engine answers within two seconds; a client alone is not enough. */
export async function dockerAnswers(): Promise<boolean> {
  return run('docker', ['info', '--format', '{{.ServerVersion}}'], { timeout: 2000 }).then(({ stdout }) => /^\d/.test(stdout.trim()), () => false);
}

/**
 * Kafka and the registry of docker-compose.yml, when an engine answers; else undefined, and the caller uses the
 * local JVM. A compose that fails is told and counts as no engine. `stop` stops the two containers and keeps their data.
 */
export async function startDocker(say: (line: string) => void): Promise<Pick<Platform, 'bootstrap' | 'registryUrl' | 'stop'> | undefined> {
  if (!(await dockerAnswers())) return undefined;
  try {
    await run('docker', ['compose', 'up', '--detach', '--wait', ...services], { cwd: root, timeout: 300_000 });
  } catch (error) {
    say(`docker compose failed, the local JVM is used instead: ${String((error as { stderr?: string }).stderr ?? error).trim().split('\n').slice(-1)[0]}`);
    return undefined;
  }
  return {
    bootstrap: ['127.0.0.1:9092'],
    registryUrl: 'http://127.0.0.1:8085/apis/ccompat/v7',
    async stop() {
      await run('docker', ['compose', 'stop', '--timeout', '8', ...services], { cwd: root, timeout: 30_000 });
    },
  };
}
