import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { startGuarded } from './guarded.ts';
import { majorVersion } from './java.ts';

const dirs: string[] = [];
const dir = (): string => {
  const path = mkdtempSync(join(tmpdir(), 'weir-guard-'));
  dirs.push(path);
  return path;
};
afterEach(() => { for (const path of dirs.splice(0)) rmSync(path, { recursive: true, force: true }); });

const alive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    return false;
  }
};

async function gone(pid: number, deadlineMs: number): Promise<boolean> {
  const end = performance.now() + deadlineMs;
  while (alive(pid)) {
    if (performance.now() > end) return false;
    await new Promise((done) => setTimeout(done, 25));
  }
  return true;
}

test('a child does not outlive a parent that was killed', async () => {
  const cwd = dir();
  const parent = join(cwd, 'parent.ts');
  writeFileSync(parent, `import { startGuarded } from ${JSON.stringify(join(import.meta.dirname, 'guarded.ts'))};
const child = await startGuarded('sleep', ['600'], { cwd: ${JSON.stringify(cwd)}, logFile: ${JSON.stringify(join(cwd, 'log'))} });
console.log(child.pid);
setInterval(() => {}, 1000);`);
  const running = spawn(process.execPath, [parent], { stdio: ['ignore', 'pipe', 'inherit'] });
  const pid = await new Promise<number>((done) => running.stdout.once('data', (d: Buffer) => done(Number(d.toString()))));
  expect(alive(pid)).toBe(true);
  running.kill('SIGKILL');
  expect(await gone(pid, 60_000)).toBe(true);
}, 90_000);

test('a child that does not listen to TERM is killed by stop', async () => {
  const cwd = dir();
  const child = await startGuarded('sh', ['-c', 'trap "" TERM; while :; do sleep 0.1; done'], { cwd, logFile: join(cwd, 'log') });
  await child.stop();
  expect(await gone(child.pid, 60_000)).toBe(true);
  expect(child.running()).toBe(false);
}, 90_000);

test('a program that is missing is an error, not a hang', async () => {
  const cwd = dir();
  const child = await startGuarded('/no/such/program', [], { cwd, logFile: join(cwd, 'log') });
  expect(await child.exited).not.toBe(0);
});

test.each([['openjdk version "17.0.15" 2025-04-15', 17], ['openjdk version "25" 2025-09-16 LTS', 25], ['java version "1.8.0_392"', 8], ['command not found', undefined]])('%s is Java %s', (text, version) => {
  expect(majorVersion(text)).toBe(version);
});
