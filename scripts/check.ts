/** `npm run check`: types, lint, import boundaries, generated files, OpenAPI documents, schemas. One line per part; exit 1 when one fails. */
import { spawn } from 'node:child_process';
import { join, resolve } from 'node:path';
import { checkBoundaries } from './check-boundaries.ts';
import { stale } from './generate.ts';
import { lintOpenApi, openApiDocuments } from './openapi.ts';

const root = resolve(import.meta.dirname, '..');
const bin = (name: string): string => join(root, 'node_modules/.bin', name);

function run(command: string, ...args: string[]): Promise<string[]> {
  return new Promise((done) => {
    const child = spawn(command, args, { cwd: root });
    let output = '';
    child.stdout.on('data', (d: Buffer) => { output += d.toString(); });
    child.stderr.on('data', (d: Buffer) => { output += d.toString(); });
    child.on('error', (error) => done([error.message]));
    child.on('close', (code) => done(code === 0 ? [] : output.split('\n').filter((line) => line.trim() !== '')));
  });
}

const parts: [string, () => Promise<string[]>][] = [
  ['types', () => run(bin('tsc'), '--noEmit', '-p', '.')],
  ['lint', () => run(bin('oxlint'), '--quiet')],
  ['boundaries', async () => checkBoundaries().map((v) => `${v.file}: ${v.message}`)],
  ['generated files', async () => (await stale()).map((path) => `${path} is out of date: npm run generate`)],
  ['OpenAPI', async () => (await Promise.all([...openApiDocuments()].map(([path, text]) => lintOpenApi(path, text)))).flat()],
  ['schemas', () => run(process.execPath, 'schemas/check.ts')],
];

let failed = 0;
for (const [name, check] of parts) {
  const began = performance.now();
  const problems = await check();
  console.log(`${problems.length === 0 ? 'ok    ' : 'FAILED'} ${name} (${((performance.now() - began) / 1000).toFixed(1)} s)`);
  for (const line of problems) console.log(`  ${line}`);
  if (problems.length > 0) failed++;
}
console.log(`check: ${parts.length - failed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
