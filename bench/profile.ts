/** `node bench/profile.ts <file.cpuprofile>…`: the functions that took the most time of their own. */
import { readFileSync } from 'node:fs';

interface Profile { readonly nodes: readonly { readonly id: number; readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number } }[]; readonly samples: readonly number[]; readonly timeDeltas: readonly number[] }

for (const file of process.argv.slice(2)) {
  const { nodes, samples, timeDeltas } = JSON.parse(readFileSync(file, 'utf8')) as Profile;
  const names = new Map(nodes.map(({ id, callFrame: f }) => [id, `${f.functionName || '(anonymous)'} ${f.url.replace(/^.*\/(packages|services|node_modules|bench)\//, '$1/')}:${f.lineNumber + 1}`]));
  const own = new Map<string, number>();
  let total = 0;
  for (const [i, id] of samples.entries()) {
    const name = names.get(id)!;
    if (/^\((idle|program)\)/.test(name)) continue;
    own.set(name, (own.get(name) ?? 0) + timeDeltas[i]!);
    total += timeDeltas[i]!;
  }
  console.log(file);
  for (const [name, us] of [...own].sort((a, b) => b[1] - a[1]).slice(0, 40)) console.log(`${(us / total * 100).toFixed(1).padStart(6)} %  ${name}`);
}
