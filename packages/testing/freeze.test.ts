import { spawn, type ChildProcess } from 'node:child_process';
import { afterEach, expect, test } from 'vitest';
import { freeze, threadStates } from './freeze.ts';
import { waitFor } from './wait.ts';

const children: ChildProcess[] = [];
afterEach(() => { for (const child of children.splice(0)) child.kill('SIGKILL'); });

/** A process with more busy threads than this machine has processors, so that some of them wait for one when the signal comes; it answers each line with one. */
async function busy(): Promise<{ pid: number; ask(): void; answers(): number }> {
  const child = spawn(process.execPath, ['-e', `
    const { Worker } = require('node:worker_threads');
    for (let i = 0; i < 6; i++) new Worker('for (;;) for (let i = 0; i < 1e6; i++);', { eval: true });
    process.stdin.on('data', () => process.stdout.write('.'));
  `], { stdio: ['pipe', 'pipe', 'inherit'] });
  children.push(child);
  let answers = 0;
  child.stdout!.on('data', (d: Buffer) => { answers += d.length; });
  const ask = (): void => { child.stdin!.write('?'); };
  ask();
  await waitFor('it answers', () => answers > 0);
  return { pid: child.pid!, ask, answers: () => answers };
}

test('a process that is called frozen has no thread that runs, and it goes on afterwards', async () => {
  const { pid, ask, answers } = await busy();
  for (let round = 0; round < 10; round++) {
    const thaw = await freeze(pid);
    expect(new Set(threadStates(pid))).toEqual(new Set(['T']));
    const before = answers();
    ask();
    thaw();
    await waitFor('it goes on', () => answers() > before);
  }
});

test('a process that is gone cannot be frozen, and to let it go on does no harm', async () => {
  const { pid } = await busy();
  const thaw = await freeze(pid);
  process.kill(pid, 'SIGKILL');
  await waitFor('it is gone', () => children[0]!.signalCode !== null);
  thaw();
  await expect(freeze(pid)).rejects.toThrow(/ESRCH/);
});
