/**
 * npm run chaos -- --kills N --seed S [--events N] [--faults kill,stop,broker,vendor,release]
 *
 * Three brokers, every service a process of its own, two instances of every stage, under kills at named points, random
 * kills and stops, broker faults and vendor faults; then the invariants over what the topics and the vendor hold.
 * Runs of one commit add up in docs/results/chaos.json. Exit 1 on any violation, 2 on a bad argument.
 */
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { registry, readAdapterFile } from '@weir/adapters';
import { createLog, createSerde } from '@weir/log';
import { groupNames, keyedId, topicNames } from '@weir/pipeline';
import { applyAudited, compileRelease, readWorkspace, withDefaults } from '@weir/release';
import { freeze, startFleet, waitFor, type FleetService } from '@weir/testing';
import { readWorkspaceKey } from '@weir/vault';
import { startPlatform } from '../../infra/local/platform.ts';
import { consentHeld, effectsOnce, invariants, nothingLost, ordered, releasesNamed, sameBytes, zombiesHarmless, type Invariant } from './checkers.ts';
import { readHistory } from './history.ts';
import { runKiller, untried } from './killers.ts';
import { createRandom } from './random.ts';
import { startFeed, startTraffic } from './traffic.ts';

const root = resolve(import.meta.dirname, '../..');
const allFaults = ['stop', 'broker', 'vendor', 'release'] as const;
const stages = ['ingest', 'normalizer', 'policy', 'dispatcher'] as const satisfies readonly FleetService[];
const sessionMs = 3000;
const callTimeoutMs = 1500;
const maxRssMb = 400;
const settleMs = 180_000;
const perRound = 150;

function usage(message: string): never {
  console.error(`${message}\nusage: npm run chaos -- --kills <n> [--seed <n>] [--events <n>] [--faults ${allFaults.join(',')}] [--rate <events a second>]`);
  process.exit(2);
}

const { values } = parseArgs({ options: { kills: { type: 'string' }, seed: { type: 'string', default: '1' }, events: { type: 'string', default: '0' }, faults: { type: 'string', default: allFaults.join(',') }, rate: { type: 'string', default: '100' }, keep: { type: 'boolean', default: false } } });
const number = (name: 'kills' | 'seed' | 'events' | 'rate', least: number): number => {
  const n = Number(values[name]);
  return Number.isSafeInteger(n) && n >= least ? n : usage(`--${name}: expected a whole number >= ${least}`);
};
const wanted = { kills: number('kills', 1), seed: number('seed', 0), events: number('events', 0), rate: number('rate', 1) };
const faults = new Set(values.faults.split(',').filter((f) => f !== ''));
for (const fault of faults) if (!(allFaults as readonly string[]).includes(fault)) usage(`--faults: unknown ${fault}`);
if (untried().length > 0) usage(`no killer tries ${untried().join(', ')}`);

interface Round {
  readonly commit: string;
  readonly at: string;
  readonly machine: string;
  readonly seed: number;
  readonly round: number;
  readonly seconds: number;
  readonly kills: number;
  readonly uncounted: number;
  readonly stops: number;
  readonly endedByThemselves: number;
  readonly brokerFaults: number;
  readonly events: number;
  readonly effects: number;
  readonly points: Readonly<Record<string, number>>;
  readonly violations: Readonly<Record<Invariant, number>>;
  readonly firstViolations: readonly string[];
}

const pause = (ms: number): Promise<void> => new Promise((done) => { setTimeout(done, ms); });

async function runRound(seed: number, round: number, kills: number, events: number): Promise<Round> {
  const began = performance.now();
  const random = createRandom(seed * 1000 + round);
  const dir = mkdtempSync(join(tmpdir(), 'weir-chaos-'));
  const platform = await startPlatform({ dataDir: join(dir, 'platform'), brokers: 3 });
  const feed = await startFeed();
  const workspace = join(dir, 'workspace');
  cpSync(join(import.meta.dirname, 'workspace'), workspace, { recursive: true });
  const membersFile = join(workspace, 'sources/members.yaml');
  writeFileSync(membersFile, readFileSync(membersFile, 'utf8').replace('http://127.0.0.1:1/members', feed.url));
  const target = { brokers: platform.bootstrap, registryUrl: platform.registryUrl };
  const fleet = await startFleet({
    ...target, workspace,
    env: { WEIR_NORMALIZER_SESSION_MS: String(sessionMs), WEIR_POLICY_SESSION_MS: String(sessionMs), WEIR_DISPATCHER_SESSION_MS: String(sessionMs), WEIR_POLLER_SESSION_MS: String(sessionMs), WEIR_CALL_TIMEOUT_MS: String(callTimeoutMs), WEIR_IN_LANE_TRIES: '2' },
  });
  const log = createLog({ brokers: platform.bootstrap, clientId: 'chaos' });
  try {
    const admin = await log.admin();
    const topics = topicNames(fleet.prefix);
    const groups = groupNames(fleet.prefix);
    await Promise.all(stages.map((service) => fleet.start(service, 2)));
    const fault = (body: object): Promise<unknown> => fetch(`${fleet.sandbox}/faults`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
    const vendorFaults = async (): Promise<void> => {
      if (!faults.has('vendor')) return;
      for (const body of [{ mode: 'late-after-commit', rate: 0.02, seed }, { mode: '5xx', rate: 0.02, seed: seed + 1 }, { mode: 'cut', rate: 0.01, seed: seed + 2 }, { mode: 'slow', rate: 0.2, delayMs: 30, seed: seed + 3 }, { mode: 'permanent', rate: 0.003, seed: seed + 4 }]) await fault(body);
    };
    await vendorFaults();
    const traffic = startTraffic({ ingest: () => [fleet.url('ingest', 1), fleet.url('ingest', 2)], authorization: () => `Basic ${Buffer.from(`${fleet.secret('SEGMENT_WRITE_KEY')}:`).toString('base64')}`, random: createRandom(seed, 'traffic'), people: 400, workers: 4, batch: 20, rate: wanted.rate }, feed);

    const counts = new Map<string, number>();
    let counted = 0;
    let uncounted = 0;
    let stops = 0;
    let ended = 0;
    let brokerFaults = 0;
    const broken: Record<Invariant, string[]> = Object.fromEntries(invariants.map((i) => [i, []])) as never;
    const done = (): boolean => counted >= kills && traffic.log.events >= events;
    const groupOf: Record<string, ReadonlyArray<readonly [string, string]>> = {
      normalizer: [[groups.normalizer, topics.raw('segment')], [groups.normalizer, topics.raw('members')]], policy: [[groups.policy, topics.canonical], [groups.consentFold, topics.consentChanges]],
      dispatcher: [[groups.dispatcher('warehouse'), topics.dispatch('warehouse')], [groups.dispatcher('newsletter'), topics.dispatch('newsletter')]],
    };
    async function holdsWork(service: FleetService, instance: number): Promise<boolean> {
      if (service === 'ingest') return traffic.log.inFlight[instance - 1]! > 0;
      for (const [group, topic] of groupOf[service]!) {
        const [ends, committed] = await Promise.all([admin.endOffsets(topic), admin.committed(group, topic)]);
        for (const [partition, end] of ends) if (end > (committed.get(partition) ?? 0)) return true;
      }
      return false;
    }
    let last = performance.now();
    const killers = Promise.all(stages.flatMap((service) => [1, 2].map((instance) => runKiller(service, instance, {
      fleet, counts, done, faults, holdsWork, random: createRandom(seed * 1000 + round, `${service}${instance}`), patienceMs: 12_000, sessionMs,
      killed: (kill) => {
        if (kill.counted) counted++;
        else uncounted++;
        if (performance.now() - last < 10_000) return;
        last = performance.now();
        console.log(`round ${round}: ${counted} of ${kills} kills, ${traffic.log.events} events, ${stops} stops, ${brokerFaults} broker faults, ${ended} ended by themselves`);
      },
      ended: (service_, code) => {
        ended++;
        console.log(`${service_} ${instance} ended by itself (${code}): ${readFileSync(fleet.logFile(service_ as FleetService, instance), 'utf8').trimEnd().split('\n').at(-1)?.slice(0, 400)}`);
      },
      stopped: () => { stops++; },
    }))));

    const weather = async (every: number, name: string, act: () => Promise<void>): Promise<void> => {
      if (!faults.has(name)) return;
      while (!done()) {
        for (let waited = 0; waited < every && !done(); waited += 500) await pause(500);
        if (!done()) await act();
      }
    };
    const serde = createSerde({ registryUrl: platform.registryUrl });
    await serde.start();
    const appender = await log.appender();
    let version = 0;
    const others = Promise.all([
      weather(25_000, 'broker', async () => {
        brokerFaults++;
        const broker = random.pick(platform.brokers);
        if (random.next() < 0.6) {
          broker.process().kill('SIGKILL');
          await broker.process().exited;
          await pause(random.below(3000));
          await broker.restart();
        } else {
          const thaw = await freeze(broker.process().pid);
          await pause(3000 + random.below(12_000));
          thaw();
        }
      }),
      weather(4000, 'vendor', async () => {
        const person = `p${random.below(400)}@larkspur.example`;
        await fault({ mode: '5xx', subject: person, forMs: 3000 });
        if (random.next() < 0.1) await fault({ mode: '429', count: 2, retryAfter: '1' });
      }),
      weather(15_000, 'release', async () => {
        const file = join(workspace, 'weir.yaml');
        writeFileSync(file, `name: chaos\ndoc: Version ${++version % 2}.\nregion: DE\n`);
        const release = compileRelease(withDefaults(readWorkspace(workspace), registry, readAdapterFile), { adapters: registry, workspaceKey: readWorkspaceKey(fleet.dataDir, undefined) });
        await applyAudited({ appender, serde, topic: topics.control, auditTopic: topics.audit, release, by: 'chaos', message: null, now: Date.now() });
      }),
      (async () => {
        while (!done()) {
          await pause(2000);
          for (const service of [...stages, 'control'] as const) {
            for (const instance of service === 'control' ? [1] : [1, 2]) {
              const { pid } = fleet.process(service, instance);
              const rss = /^RssAnon:\s+(\d+) kB/m.exec(existsSync(`/proc/${pid}/status`) ? readFileSync(`/proc/${pid}/status`, 'utf8') : '')?.[1];
              if (rss !== undefined && Number(rss) / 1024 > maxRssMb) broken.I7.push(`${service} ${instance} has ${Math.round(Number(rss) / 1024)} MB of anonymous memory`);
            }
          }
        }
      })(),
    ]);
    await killers;
    await others;
    await traffic.stop();
    await fetch(`${fleet.sandbox}/faults`, { method: 'DELETE' });
    console.log(`round ${round}: ${counted} kills, ${traffic.log.events} events; waiting until all is quiet`);
    const lagging = async (): Promise<string | undefined> => {
      for (const [service, list] of Object.entries(groupOf)) {
        for (const [group, topic] of list) {
          const [ends, committed] = await Promise.all([admin.endOffsets(topic), admin.committed(group, topic)]);
          for (const [partition, end] of ends) if (end > (committed.get(partition) ?? 0)) return `${service}: ${topic}/${partition} stands at ${committed.get(partition) ?? 0} of ${end}`;
        }
      }
      return undefined;
    };
    await waitFor('the poller has read the list', async () => [...(await admin.endOffsets(topics.raw('members'))).values()].reduce((a, b) => a + b, 0) >= feed.size(), settleMs).catch((error: unknown) => broken.I8.push((error as Error).message));
    await waitFor('no lag', async () => (await lagging()) === undefined, settleMs).catch(async () => broken.I8.push((await lagging()) ?? 'lag went late'));
    await fleet.settled(settleMs).catch((error: unknown) => broken.I8.push((error as Error).message));

    const key = readWorkspaceKey(fleet.dataDir, undefined);
    const history = await readHistory({ ...target, prefix: fleet.prefix, sandbox: fleet.sandbox, workspaceKey: key });
    const sent = { answered: traffic.log.answered, members: feed.size() };
    broken.I1.push(...nothingLost(history, sent));
    broken.I2.push(...effectsOnce(history));
    broken.I3.push(...consentHeld(history, callTimeoutMs + sessionMs, (email) => `email:${keyedId(key, 'email', email)}`));
    broken.I4.push(...ordered(history, sent));
    broken.I5.push(...sameBytes(history));
    broken.I6.push(...zombiesHarmless(history, 250));
    broken.I12.push(...releasesNamed(history));
    const secrets = ['SEGMENT_WRITE_KEY', 'WAREHOUSE_TOKEN', 'NEWSLETTER_TOKEN', 'ADMIN_TOKEN'].map((name) => fleet.secret(name));
    for (const service of [...stages, 'control', 'sandbox'] as const) {
      for (const instance of [1, 2]) {
        const file = fleet.logFile(service, instance);
        if (existsSync(file) && secrets.some((s) => readFileSync(file, 'utf8').includes(s))) broken.I10.push(`${service} ${instance} prints a secret`);
      }
    }
    const violations = Object.fromEntries(invariants.map((i) => [i, broken[i].length])) as Record<Invariant, number>;
    const firstViolations = invariants.flatMap((i) => broken[i].slice(0, 5).map((line) => `${i}: ${line}`));
    for (const line of firstViolations) console.log(line);
    const failed = firstViolations.length > 0;
    if (failed && values.keep) {
      cpSync(fleet.dataDir, join(dir, 'fleet'), { recursive: true });
      writeFileSync(join(dir, 'history.json'), JSON.stringify({ ...history, canonical: history.canonical.map(({ value: _value, ...rest }) => rest), letters: history.letters.map(({ value: _value, ...rest }) => rest), releases: [...history.releases], answered: [...sent.answered] }));
      console.log(`kept: ${dir}`);
    }
    return {
      commit: commit(), at: new Date().toISOString(), machine: `${cpus().length} cores`, seed, round, seconds: Math.round((performance.now() - began) / 1000), kills: counted, uncounted, stops, endedByThemselves: ended, brokerFaults,
      events: new Set(history.raw.map((r) => r.event)).size, effects: history.effects.length, points: Object.fromEntries([...counts].sort()), violations, firstViolations,
    };
  } finally {
    await log.close();
    await fleet.dispose();
    await feed.close();
    await platform.stop();
    if (!values.keep) rmSync(dir, { recursive: true, force: true });
  }
}

function commit(): string {
  const git = (...args: string[]): string => execFileSync('git', args, { cwd: root, encoding: 'utf8' }).trim();
  return git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain', '--', 'services', 'packages', 'adapters', 'schemas') === '' ? '' : '-dirty');
}

const file = join(root, 'docs/results/chaos.json');
const results = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Round[]) : [];
const own = (): Round[] => results.filter((r) => r.commit === commit() && r.seed === wanted.seed);
const sum = (of: (round: Round) => number): number => own().reduce((n, r) => n + of(r), 0);
if (own().length > 0) console.log(`going on after ${own().length} rounds of this commit and seed with ${sum((r) => r.kills)} kills`);
while (sum((r) => r.kills) < wanted.kills || sum((r) => r.events) < wanted.events) {
  const kills = Math.min(perRound, Math.max(1, wanted.kills - sum((r) => r.kills)));
  const share = wanted.events === 0 ? 0 : Math.ceil((wanted.events * kills) / wanted.kills);
  results.push(await runRound(wanted.seed, own().length, kills, share));
  writeFileSync(file, `${JSON.stringify(results, null, 1)}\n`);
  const round = results.at(-1)!;
  console.log(`round ${round.round}: ${round.seconds} s, ${round.kills} kills, ${round.events} events, ${round.effects} effects`);
  if (round.firstViolations.length > 0) break;
}
const points = own().reduce<Record<string, number>>((all, r) => {
  for (const [name, n] of Object.entries(r.points)) all[name] = (all[name] ?? 0) + n;
  return all;
}, {});
for (const [name, n] of Object.entries(points).sort()) console.log(`${String(n).padStart(5)}  ${name}`);
const violations = Object.fromEntries(invariants.map((i) => [i, sum((r) => r.violations[i])]));
console.log(JSON.stringify({ kills: sum((r) => r.kills), events: sum((r) => r.events), effects: sum((r) => r.effects), violations }));
process.exit(Object.values(violations).some((n) => n > 0) ? 1 : 0);
