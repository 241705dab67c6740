import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { changeSecrets, loadSecrets } from './sealed-file.ts';

const dataDir = mkdtempSync(join(tmpdir(), 'weir-lock-'));
const options = { dataDir, env: { WEIR_KEY: Buffer.alloc(32, 9).toString('base64url') } };
const children: ChildProcess[] = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  rmSync(dataDir, { recursive: true, force: true });
});

/** A process of its own that changes the secrets; `work` sees `all` inside the change. */
function run(times: number, work: string): ChildProcess {
  const child = spawn(process.execPath, ['--input-type=module', '-e', `
    const { changeSecrets } = await import(${JSON.stringify(join(import.meta.dirname, 'sealed-file.ts'))});
    for (let i = 0; i < ${times}; i++) changeSecrets(${JSON.stringify(options)}, (all) => { ${work} });
  `], { stdio: ['ignore', 'pipe', 'inherit'] });
  children.push(child);
  return child;
}

test('of two processes that change the secrets at once none undoes what the other did, and one that was killed with the lock holds nobody up', async () => {
  const count = "all.N = { value: String(Number(all.N?.value ?? 0) + 1) };";
  const ended = [run(25, count), run(25, count)].map((child) => once(child, 'exit'));
  expect((await Promise.all(ended)).map(([code]) => code)).toEqual([0, 0]);
  expect(loadSecrets(options)['N']!.value).toBe('50');
  const holder = run(1, "process.stdout.write('held'); Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);");
  await once(holder.stdout!, 'data');
  const exited = once(holder, 'exit');
  holder.kill('SIGKILL');
  await exited;
  changeSecrets(options, (all) => { all['N'] = { value: 'free' }; });
  expect(loadSecrets(options)['N']!.value).toBe('free');
});
