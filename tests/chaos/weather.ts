/** What goes wrong around the services while they are killed: each kind on its own, so that they overlap. */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { createLog } from '@weir/log';
import { freeze } from '@weir/testing';
import { moveLeaders } from './leaders.ts';
import type { FaultName } from './options.ts';
import type { Toxic } from './proxy.ts';
import { instances, instancesOf, sessionMs, stages, victims, type Stage, type Victim, type World } from './world.ts';

const pause = (ms: number): Promise<void> => new Promise((done) => { setTimeout(done, ms); });

interface Fault {
  /** Mean time between two of its kind, ms. */
  readonly every: number;
  act(world: World, count: (name: string) => void): Promise<void>;
}

const streams = ['upstream', 'downstream'] as const;
const toxics: ReadonlyArray<readonly [name: string, type: Toxic['type'], attributes: Record<string, number>]> = [
  ['latency', 'latency', { latency: 200, jitter: 150 }], ['high latency', 'latency', { latency: 1200, jitter: 600 }], ['bandwidth', 'bandwidth', { rate: 20 }], ['slicer', 'slicer', { average_size: 1, size_variation: 0, delay: 50 }], ['slow close', 'slow_close', { delay: 2000 }],
  ['one-way loss', 'timeout', { timeout: 0 }], ['timeout', 'timeout', { timeout: 1500 }], ['reset', 'reset_peer', { timeout: 100 }], ['cut after bytes', 'limit_data', { bytes: 3000 }],
];

function anyInstance({ random }: World): readonly [Stage, number] {
  return [random.pick(stages), random.pick(instances)];
}

/** The control service among them, as often as another. */
function anyVictim({ random }: Pick<World, 'random'>): readonly [Victim, number] {
  const victim = random.pick(victims);
  return [victim, random.pick(instancesOf(victim))];
}

/** How long a broker stands still: shorter than its session at the controller or longer, and one in twenty so long that clients give up what they sent. */
export const brokerStopMs = (random: World['random']): number => (random.next() < 0.05 ? 45_000 : 3000 + random.below(12_000));

/**
 * How far the wall clock of a process is off. A parked subject waits by it: of a dispatcher a step of minutes is a wait of minutes,
 * and no loss. By that of control an erasure says until when what was accepted is erased: one that is behind erases less, rightly by
 * what it was told, so that it only goes ahead.
 */
export function clockStepMs(random: World['random'], victim: Victim): number {
  const most = victim === 'dispatcher' || victim === 'control' ? 30_000 : 600_000;
  return victim === 'control' ? random.below(most) : random.below(2 * most) - most;
}

/** The file-size limit of a process: what a full disk or an I/O error gives it is an error at every write to its stores. */
function limitFiles(pid: number, bytes: number | 'unlimited'): void {
  execFileSync('prlimit', ['--pid', String(pid), `--fsize=${bytes}:unlimited`], { stdio: 'ignore' });
}

async function breakLink(world: World, name: string, count: (name: string) => void, ms: number): Promise<void> {
  const { random, proxy } = world;
  if (random.next() < 0.15) {
    count('network: down');
    await proxy.down(name);
  } else {
    const [label, type, attributes] = random.pick(toxics);
    count(`network: ${label}`);
    await proxy.toxic(name, { type, stream: random.pick(streams), attributes });
  }
  await pause(ms);
  await proxy.heal(name);
}

/** Two kinds of faults act on brokers: one at a time, or both start the same broker again and one of the two finds its folder taken. */
let brokersAlone: Promise<void> = Promise.resolve();
function alone(act: () => Promise<void>): Promise<void> {
  const turn = brokersAlone.then(act);
  brokersAlone = turn.catch(() => undefined);
  return turn;
}

async function breakBroker(world: World, count: (name: string) => void): Promise<void> {
  const { random, platform } = world;
  const roll = random.next();
  const broker = random.pick(platform.brokers);
  if (roll < 0.5) {
    count('broker: killed');
    broker.process().kill('SIGKILL');
    await broker.process().exited;
    await pause(random.below(3000));
    await broker.restart();
  } else if (roll < 0.85) {
    const ms = brokerStopMs(random);
    count(ms === 45_000 ? 'broker: stopped for 45 s' : 'broker: stopped');
    const thaw = await freeze(broker.process().pid);
    await pause(ms);
    thaw();
  } else {
    count('broker: two away');
    const two = platform.brokers.filter((b) => b !== broker);
    for (const b of two) b.process().kill('SIGKILL');
    await Promise.all(two.map((b) => b.process().exited));
    await pause(2000 + random.below(3000));
    await Promise.all(two.map((b) => b.restart()));
  }
}

/** It gives up its only log folder and ends; if it did not write, it goes on. */
async function fillBrokerDisk({ random, platform }: World, count: (name: string) => void): Promise<void> {
  count('disk: broker');
  const broker = random.pick(platform.brokers);
  limitFiles(broker.process().pid, 4096);
  await Promise.race([broker.process().exited, pause(6000)]);
  await broker.restart();
}

async function fillDisk(world: World, count: (name: string) => void): Promise<void> {
  if (world.random.next() < 0.2) return alone(() => fillBrokerDisk(world, count));
  const { random } = world;
  const [stage, instance] = anyInstance(world);
  const { pid, exitCode, signalCode } = world.fleet.process(stage, instance);
  if (pid === undefined || exitCode !== null || signalCode !== null) return;
  count(`disk: ${stage}`);
  try {
    limitFiles(pid, 4096);
    await pause(3000 + random.below(3000));
    limitFiles(pid, 'unlimited');
  } catch (error) {
    // It ended meanwhile, as it should when it cannot write.
    if ((error as { status?: number }).status !== 1) throw error;
  }
}

/** A member of our own that joins a group and leaves: it holds partitions, does nothing with them and commits nothing. */
async function joinAndLeave(world: World): Promise<void> {
  const { random, reads } = world;
  const [group, topic] = random.pick([...reads.policy, ...reads.dispatcher]);
  const log = createLog({ brokers: world.platform.bootstrap, clientId: `storm-${random.below(1e9)}` });
  try {
    const consumer = log.consumer({ groupId: group, topics: [topic], sessionTimeoutMs: sessionMs, rebalanceTimeoutMs: 12_000, handlers: { assigned: async () => undefined, revoked: async () => undefined, batch: () => undefined, failed: () => undefined } });
    await Promise.race([consumer.start(), pause(8000)]);
    await pause(random.below(1500));
    await consumer.close();
  } finally {
    await log.close();
  }
}

async function breakRegistry(world: World, count: (name: string) => void): Promise<void> {
  const { random, platform, proxy } = world;
  const roll = random.next();
  if (roll < 0.4) {
    count('registry: down');
    await proxy.down('registry');
  } else if (roll < 0.8) {
    count('registry: slow');
    await proxy.toxic('registry', { type: 'latency', stream: 'downstream', attributes: { latency: 3000, jitter: 500 } });
  } else {
    count('registry: stopped');
    platform.registry().kill('SIGSTOP');
  }
  await pause(3000 + random.below(8000));
  platform.registry().kill('SIGCONT');
  await proxy.heal('registry');
}

const faults: Record<Exclude<FaultName, 'stall' | 'torn'>, Fault> = {
  stop: {
    every: 12_000,
    async act(world, count) {
      const [stage, instance] = anyVictim(world);
      const { pid, exitCode, signalCode } = world.fleet.process(stage, instance);
      if (pid === undefined || exitCode !== null || signalCode !== null) return;
      count(`stop: ${stage}`);
      const thaw = await freeze(pid);
      await pause(sessionMs * (0.7 + world.random.next()));
      thaw();
    },
  },
  clock: {
    every: 10_000,
    async act(world, count) {
      const [victim, instance] = anyVictim(world);
      count(`clock: ${victim}`);
      writeFileSync(world.clockFile(victim, instance), String(clockStepMs(world.random, victim)));
    },
  },
  disk: { every: 25_000, act: fillDisk },
  broker: { every: 25_000, act: (world, count) => alone(() => breakBroker(world, count)) },
  leader: {
    every: 4000,
    async act(world, count) {
      const { random, platform, reads, topics } = world;
      const topic = random.pick([...Object.values(reads).flat().map(([, t]) => t), topics.outcome, topics.consent, topics.ledger('warehouse'), topics.ledger('newsletter'), topics.ledger('crm')]);
      const ends = await world.admin.endOffsets(topic);
      count('leader moved');
      await moveLeaders(random.pick(platform.bootstrap), topic, Array.from({ length: ends.size }, () => {
        const first = random.below(3);
        return [0, 1, 2].map((i) => 1 + (first + i) % 3);
      }));
    },
  },
  storm: {
    every: 10_000,
    async act(world, count) {
      count('rebalance storm: a member joined and left');
      await joinAndLeave(world);
    },
  },
  network: {
    every: 5000,
    act: (world, count) => breakLink(world, world.random.pick(world.links), count, 1000 + world.random.below(4000)),
  },
  registry: { every: 20_000, act: breakRegistry },
  vault: {
    every: 25_000,
    async act(world, count) {
      const { vault, random, proxy } = world;
      const mode = random.pick(['sealed', 'slow', 'denied', 'down'] as const);
      count(`vault: ${mode}`);
      if (mode === 'down') await proxy.down('vault');
      else vault.mode = mode;
      await pause(4000 + random.below(10_000));
      vault.mode = 'ok';
      await proxy.heal('vault');
    },
  },
  vendor: {
    every: 4000,
    async act(world, count) {
      const { random, traffic } = world;
      count('vendor: refuses one person');
      await world.vendorFault({ mode: '5xx', subject: traffic.person(random), forMs: 3000 });
      if (random.next() > 0.2) return;
      const retryAfter = random.pick(['1', new Date(Date.now() + 2000).toUTCString(), '-5', 'soon']);
      count('vendor: 429');
      await world.vendorFault({ mode: '429', count: 2, retryAfter });
    },
  },
  release: {
    every: 15_000,
    async act(world, count) {
      if (await world.operators.switchRelease(() => true)) count('release switched');
    },
  },
};

/** Faults at the vendor that go on all the time, by share of its calls. */
export async function startVendorFaults(world: World): Promise<void> {
  const { options: { faults: wanted, seed }, vendorFault } = world;
  if (!wanted.has('vendor')) return;
  const rates = [
    { mode: 'late-after-commit', rate: 0.015 }, { mode: 'late-after-commit', rate: 0.005, delayMs: 2500 }, { mode: '5xx', rate: 0.015 }, { mode: 'cut', rate: 0.01 },
    { mode: 'slow', rate: 0.1, delayMs: 30 }, { mode: 'slow', rate: 0.002, delayMs: 2500 }, { mode: 'permanent', rate: 0.003 }, { mode: 'permanent', status: 410, rate: 0.001 },
    { mode: 'truncated', rate: 0.004 }, { mode: 'drip', rate: 0.002 }, { mode: 'huge', rate: 0.001 },
  ];
  for (const [i, fault] of rates.entries()) await vendorFault({ ...fault, seed: seed + i });
}

/** Until `done`; a fault that cannot be ordered is told and does not end the run. */
export async function runWeather(world: World, done: () => boolean, count: (name: string) => void): Promise<void> {
  const chosen = Object.entries(faults).filter(([name]) => world.options.faults.has(name as FaultName));
  await Promise.all(chosen.map(async ([name, fault]) => {
    for (;;) {
      const waitMs = fault.every * (0.5 + world.random.next());
      for (let waited = 0; waited < waitMs && !done(); waited += 250) await pause(250);
      if (done()) return;
      await fault.act(world, count).catch((error: unknown) => { console.log(`${name}: ${(error as Error).message.split('\n')[0]}`); });
    }
  }));
}

/** Everything is as it was: what is not well after this does not heal alone (I8). */
export async function calm(world: World): Promise<void> {
  const { proxy, links, vault, platform, fleet } = world;
  vault.mode = 'ok';
  await Promise.all([...links, 'registry', 'vault'].map((name) => proxy.heal(name)));
  platform.registry().kill('SIGCONT');
  for (const victim of victims) {
    for (const instance of instancesOf(victim)) {
      fleet.process(victim, instance).kill('SIGCONT');
      writeFileSync(world.clockFile(victim, instance), '0');
    }
  }
  await Promise.all(platform.brokers.map(async (broker) => {
    broker.process().kill('SIGCONT');
    if (!broker.process().running()) await broker.restart();
  }));
  await fetch(`${fleet.sandbox}/faults`, { method: 'DELETE' });
}
