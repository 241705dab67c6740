import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect, test } from 'vitest';
import { waitFor } from './wait.ts';

const alive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    return false;
  }
};

test('a process that a test started ends with the test, also when that is killed', async () => {
  const tied = pathToFileURL(join(import.meta.dirname, 'tied.ts')).href;
  const parent = spawn(process.execPath, ['--input-type=module', '-e', `
    const { spawnTied } = await import(${JSON.stringify(tied)});
    const child = spawnTied(['-e', 'console.log(process.pid); setInterval(() => {}, 1000)'], { env: process.env, cwd: process.cwd() });
    child.stdout.pipe(process.stdout);`], { stdio: ['ignore', 'pipe', 'inherit'] });
  const pid = await new Promise<number>((done) => parent.stdout.once('data', (d: Buffer) => done(Number(d.toString()))));
  expect(alive(pid)).toBe(true);
  parent.kill('SIGKILL');
  await waitFor('the child is gone', () => !alive(pid), 30_000);
});
