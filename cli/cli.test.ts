import { spawn } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { incidentLine } from './commands/status.ts';
import { hasEnded, waitsOf, type Stage } from './commands/trace.ts';
import { createTerminal, printable } from './terminal.ts';

const dirs: string[] = [];
afterEach(() => { for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true, force: true }); });
function folder(): string {
  const dir = mkdtempSync(join(tmpdir(), 'weir-cli-'));
  dirs.push(dir);
  return dir;
}

const bin = join(import.meta.dirname, 'bin', 'weir.mjs');
function weir(args: readonly string[], env: Record<string, string> = {}): Promise<{ code: number | null; out: string; err: string }> {
  const { WEIR_PORT: _p, WEIR_DATA: _d, KAFKA_BROKERS: _k, ...rest } = process.env;
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [bin, ...args], { env: { ...rest, ...env } as NodeJS.ProcessEnv });
    let out = '';
    let err = '';
    child.stdout.on('data', (chunk: Buffer) => { out += chunk.toString(); });
    child.stderr.on('data', (chunk: Buffer) => { err += chunk.toString(); });
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, out, err }));
  });
}

/** Base port of an instance that is not there: nobody listens on the control port. */
async function deadPort(): Promise<string> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return String(port - 1);
}

test('help names every command and exits 0; no command and an unknown one exit 2', async () => {
  const help = await weir(['help']);
  expect(help.code).toBe(0);
  for (const name of ['doctor', 'validate', 'apply', 'send', 'tail', 'trace', 'dlq', 'status', 'topics']) expect(help.out).toMatch(new RegExp(`^  ${name} `, 'm'));
  expect((await weir([])).code).toBe(2);
  expect(await weir(['nope'])).toMatchObject({ code: 2, err: expect.stringContaining('weir help') });
  expect(await weir(['trace', '--help'])).toMatchObject({ code: 0, out: expect.stringContaining('usage: weir trace <event-id>') });
});

test.each([
  ['an unknown option', ['status', '--nope']],
  ['a missing argument', ['trace']],
  ['too many arguments', ['status', 'x']],
  ['an id that is none', ['trace', '../../etc/passwd']],
  ['a number that is none', ['send', 'x', '--count', 'many']],
  ['dlq without what', ['dlq', 'drop']],
])('%s is wrong use: exit 2 with the usage on stderr, nothing on stdout', async (_name, args) => {
  const done = await weir(args, { WEIR_DATA: folder(), WEIR_SECRET_ADMIN_TOKEN: 'x' });
  expect(done).toMatchObject({ code: 2, out: '', err: expect.stringContaining(`usage: weir ${args[0]}`) });
});

test('a bad variable is named, exit 2', async () => {
  expect(await weir(['status'], { WEIR_PORT: 'abc' })).toMatchObject({ code: 2, err: expect.stringContaining('WEIR_PORT') });
});

test('without an instance: one line with the remedy, exit 1', async () => {
  const cases: Record<string, string>[] = [{ WEIR_DATA: folder() }, { WEIR_DATA: folder(), WEIR_SECRET_ADMIN_TOKEN: 'secret-token-1', WEIR_PORT: await deadPort() }];
  for (const env of cases) {
    const { code, out, err } = await weir(['status'], env);
    expect({ code, out }).toEqual({ code: 1, out: '' });
    expect(err.trim().split('\n')).toHaveLength(1);
    expect(err).toContain('npm start');
    expect(err).not.toContain('secret-token-1');
  }
});

test('a workspace that does not compile: every problem with file, line and remedy, exit 2, also for apply without an instance', async () => {
  const dir = folder();
  mkdirSync(join(dir, 'sources'));
  writeFileSync(join(dir, 'weir.yaml'), 'name: acme\n');
  writeFileSync(join(dir, 'purposes.yaml'), 'purposes:\n  news:\n    doc: News.\n    legalBasis: because\n');
  writeFileSync(join(dir, 'sources', 'shop.yaml'), 'adapter: nope\n');
  for (const name of ['validate', 'apply']) {
    const done = await weir([name, dir], { WEIR_DATA: folder(), WEIR_PORT: await deadPort() });
    expect(done.code).toBe(2);
    expect(done.err).toMatch(/^purposes\.yaml:4: .+\n {2}remedy: .+/m);
    expect(done.err).toMatch(/^sources\/shop\.yaml:1: .+nope/m);
  }
  const { out } = await weir(['validate', dir, '--json']);
  expect((JSON.parse(out) as { problems: object[] }).problems).toContainEqual(expect.objectContaining({ file: 'sources/shop.yaml', line: 1, remedy: expect.stringContaining('use one of') }));
  expect((await weir(['validate', join(dir, 'missing')])).code).toBe(2);
});

test('validate warns of a destination that cannot be told of a withdrawal, and the workspace is valid', async () => {
  const dir = folder();
  cpSync(join(import.meta.dirname, '../workspace'), dir, { recursive: true });
  const path = join(dir, 'destinations/newsletter.yaml');
  writeFileSync(path, readFileSync(path, 'utf8').replace(/ {2}- on: ConsentChange\n(?: {4}.*\n)+/, ''));
  const { code, err } = await weir(['validate', dir]);
  expect([code, err]).toEqual([0, expect.stringMatching(/^warning {2}destinations\/newsletter\.yaml:\d+: newsletter gets people for email-marketing, .+\n {2}remedy: add a route/)]);
  expect((JSON.parse((await weir(['validate', dir, '--json'])).out) as { advice: object[] }).advice).toHaveLength(1);
  expect((await weir(['validate', join(import.meta.dirname, '../workspace')])).err).toBe('');
});

test('each kind of bad policy is refused by validate with file, line and reason, at once and fast', async () => {
  const dir = folder();
  cpSync(join(import.meta.dirname, '../workspace'), dir, { recursive: true });
  const bad: [string, RegExp][] = [
    ['  - { name: b1, effect: deny, purpose: spying }', /unknown purpose spying/],
    ['  - { name: b2, effect: deny, when: now + "x" == 1 }', /no such overload/],
    ['  - { name: b3, effect: deny, when: \'record.email.matches("(a+)+$")\' }', /use re/],
    ['  - { name: b4, effect: deny, when: \'re(record.email, "((a{100}){100}){100}")\' }', /bad pattern/],
    [`  - { name: b5, effect: deny, when: '${Array(300).fill('now > 1').join(' && ')}' }`, /longer|nodes/i],
    ['  - { name: b6, effect: deny, when: record.emial == null }', /emial/],
    ['  - { name: b7, effect: deny, when: \'inRegion(region, "Atlantis")\' }', /unknown region Atlantis/],
    [`  - { name: b8, effect: deny, when: '${'('.repeat(300)}true${')'.repeat(300)}' }`, /depth|nest/i],
    ['  - { name: b9, effect: deny, when: \'record.externalIds.all(x, record.externalIds.all(y, x == y))\' }', /a loop in a loop/],
    ['  - { name: b10, effect: residency, residency: { subject: [EUROPE], destinations: [EU] } }', /unknown region "EUROPE"/],
  ];
  writeFileSync(join(dir, 'policies/bad.yaml'), `rules:\n${bad.map(([line]) => line).join('\n')}\n`);
  const { code, err } = await weir(['validate', dir]);
  expect(code).toBe(2);
  const lines = err.split('\n');
  for (const [i, [, reason]] of bad.entries()) expect(lines.find((line) => line.startsWith(`policies/bad.yaml:${i + 2}: `))).toMatch(reason);
});

function capture(isTTY: boolean, env: Record<string, string> = {}) {
  let out = '';
  let err = '';
  const terminal = createTerminal({ out: { write: (t) => { out += t; }, isTTY }, err: { write: (t) => { err += t; }, isTTY }, env, monotonic: () => 0 });
  return { terminal, out: () => out, err: () => err };
}

test('no colour and no progress bar off a terminal, or with NO_COLOR', () => {
  for (const { terminal, out, err } of [capture(false)]) {
    terminal.line(terminal.paint.red('x'));
    terminal.table(['a'], [['b']]);
    const bar = terminal.progress(10, 'p');
    bar.step(5);
    bar.end();
    expect(out() + err()).toBe('x\na\nb\n');
  }
  expect(capture(true).terminal.paint.red('x')).toBe('\u001b[31mx\u001b[0m');
  expect(capture(true, { NO_COLOR: '1' }).terminal.paint.red('x')).toBe('x');
  const seen = capture(true);
  seen.terminal.progress(10, 'p').step(5);
  expect(seen.err()).toContain('5/10');
});

test('columns are aligned and a payload cannot write escapes to the terminal', () => {
  const { terminal, out } = capture(false);
  terminal.table(['name', 'n', 'text'], [['a', '1', 'x\u001b[31m\u202ey'], ['longer', '22', 'z\nw']]);
  expect(out()).toBe('name    n   text\na       1   x\u00b7[31m\u00b7y\nlonger  22  z w\n');
  expect(printable('\u009b2J\u0007')).toBe('\u00b72J\u00b7');
});

test('an event that has not ended says what it waits for', () => {
  const at = '2026-01-01T00:00:00Z';
  const status = { lag: { 'normalizer': 3, 'policy': 2, 'consent': 1, 'dispatcher.crm': 4 }, incidents: [], paused: [], callers: 1 };
  const stages: Stage[] = [{ stage: 'accepted', at }];
  expect(waitsOf(stages, status)).toEqual(['not normalized: 3 raw records wait']);
  stages.push({ stage: 'normalized', at });
  expect(waitsOf(stages, status)).toEqual(['not decided, so closed: 2 records wait for the policy service, 1 changes of consent are not in its tables']);
  stages.push({ stage: 'decided', at, effect: 'allow', destination: 'crm', operation: 'put' });
  expect(waitsOf(stages, status)).toEqual(['crm: 4 deliveries wait for its dispatcher']);
  expect(waitsOf(stages, { ...status, callers: 0 })[0]).toMatch(/^crm is closed: no dispatcher has read the tables/);
  expect(waitsOf(stages, { ...status, paused: [{ destination: 'crm', reason: null, by: 'x', since: at }] })[0]).toMatch(/kill switch/);
  expect(waitsOf(stages, { ...status, incidents: [{ destination: 'crm', code: 'credential-rejected', since: at }] })[0]).toMatch(/credential-rejected/);
  stages.push({ stage: 'outcome', at, destination: 'crm', operation: 'put', state: 'delivered' });
  expect(waitsOf(stages, status)).toEqual([]);
});

test('a polled source that stands still is no destination that is paused', () => {
  expect(incidentLine({ destination: 'source/members', code: 'body-malformed', since: '2026-01-01T00:00:00Z', replay: null })).toMatch(/^polled source members stands still since 2026-01-01T00:00:00Z: .*body-malformed.*nothing of it is skipped/);
});

test('a trace has ended when something ended and everything let through did', () => {
  const at = '2026-01-01T00:00:00Z';
  const decided = (destination: string, effect = 'allow'): Stage => ({ stage: 'decided', at, destination, operation: 'sync', effect });
  const outcome = (destination: string): Stage => ({ stage: 'outcome', at, destination, operation: 'sync' });
  expect(hasEnded([])).toBe(false);
  expect(hasEnded([decided('a'), decided('b'), outcome('a')])).toBe(false);
  expect(hasEnded([decided('a'), decided('b', 'deny'), outcome('a')])).toBe(true);
  expect(hasEnded([{ stage: 'accepted', at }, { stage: 'outcome', at }])).toBe(true);
  // Two outputs go to one operation: each ends by itself, and what was decided twice ends once.
  const [one, two] = ['out_1', 'out_2'].map((outputId) => ({ outputId }));
  const both = [{ ...decided('a'), ...one }, { ...decided('a'), ...one }, { ...decided('a'), ...two }, { ...outcome('a'), ...one }];
  expect(hasEnded(both)).toBe(false);
  expect(waitsOf([{ stage: 'normalized', at }, ...both], { lag: { 'dispatcher.a': 1 }, incidents: [], paused: [], callers: 1 })).toEqual(['a: 1 deliveries wait for its dispatcher']);
  expect(hasEnded([...both, { ...outcome('a'), ...two }])).toBe(true);
  // Of an index of before, whose ends name no output.
  expect(hasEnded([...both.slice(0, 3), outcome('a')])).toBe(true);
});
