/** docs/results/chaos.json: one entry per round; rounds of one state of the product add up. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { invariants, type Invariant } from './checkers.ts';
import { pointsOf } from './killers.ts';
import { manyKills, type Options } from './options.ts';
import type { NetworkProxy } from './proxy.ts';
import { victims } from './world.ts';

const root = resolve(import.meta.dirname, '../..');
const file = join(root, 'docs/results/chaos.json');
const product = ['services', 'packages', ':(exclude)packages/testing', 'adapters', 'schemas', ':(exclude)*.md', ':(exclude)*.test.ts'];

export interface Round {
  /** Last commit that changed the product: services, packages, adapters, schemas, without their documents, tests and what tests share. */
  readonly commit: string;
  readonly at: string;
  readonly machine: string;
  readonly seed: number;
  readonly round: number;
  readonly seconds: number;
  readonly kills: number;
  /** Victims that held nothing. */
  readonly uncounted: number;
  readonly endedByThemselves: number;
  readonly events: number;
  readonly effects: number;
  readonly faults: Readonly<Record<string, number>>;
  readonly points: Readonly<Record<string, number>>;
  readonly violations: Readonly<Record<Invariant, number>>;
  readonly firstViolations: readonly string[];
  /** By which the network failed. Not told before 2026-11-28. */
  readonly proxy?: NetworkProxy['kind'];
  /** How often senders were answered which status; a connection that failed is no answer. Not told before 2026-11-28. */
  readonly answers?: Readonly<Record<string, number>>;
}

const git = (...args: string[]): string => execFileSync('git', args, { cwd: root, encoding: 'utf8' }).trim();

/** Whether a round was of the product as it is now. */
export function isOfNow(round: Round): boolean {
  if (round.commit === commit()) return true;
  try {
    return git('status', '--porcelain', '--', ...product) === '' && git('diff', '--name-only', round.commit, 'HEAD', '--', ...product) === '';
  } catch {
    // Not a commit of this repository, or a state that was not committed: of another product.
    return false;
  }
}

export function commit(): string {
  return git('log', '-1', '--format=%h', '--abbrev=7', '--', ...product) + (git('status', '--porcelain', '--', ...product) === '' ? '' : '-dirty');
}

export const readResults = (): Round[] => existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Round[]) : [];
export function addResult(round: Round): void {
  writeFileSync(file, `${JSON.stringify([...readResults(), round], null, 1)}\n`);
}

export interface Sum {
  readonly rounds: number;
  readonly kills: number;
  readonly events: number;
  readonly effects: number;
  readonly violations: Record<Invariant, number>;
  readonly points: Map<string, number>;
}

/** The rounds of one commit and seed together. */
export function sumOf(rounds: readonly Round[]): Sum {
  const points = new Map<string, number>();
  for (const round of rounds) for (const [name, n] of Object.entries(round.points)) points.set(name, (points.get(name) ?? 0) + n);
  const total = (of: (round: Round) => number): number => rounds.reduce((n, r) => n + of(r), 0);
  return { rounds: rounds.length, kills: total((r) => r.kills), events: total((r) => r.events), effects: total((r) => r.effects), points, violations: Object.fromEntries(invariants.map((i) => [i, total((r) => r.violations[i] ?? 0)])) as Record<Invariant, number> };
}

/** Points of a stage that were struck less than `least` times, with what is missing. */
export function lacking(points: ReadonlyMap<string, number>, least: number): Map<string, number> {
  return new Map(victims.flatMap((stage) => pointsOf(stage).map((point) => `${stage} ${point}`)).flatMap((name) => {
    const missing = least - (points.get(name) ?? 0);
    return missing > 0 ? [[name, missing] as const] : [];
  }));
}

/** What a run does not have of what was wanted, a line each; none = it is complete. Of hundreds of kills every point has one, or it is dead. */
export function lacks(sum: Sum, { kills, events, perPoint }: Pick<Options, 'kills' | 'events' | 'perPoint'>): string[] {
  const least = Math.max(perPoint, kills >= manyKills ? 1 : 0);
  return [
    ...(sum.kills < kills ? [`${sum.kills} of ${kills} kills`] : []), ...(sum.events < events ? [`${sum.events} of ${events} events`] : []),
    ...[...lacking(sum.points, least)].map(([name, n]) => `${name}: ${least - n} of ${least} kills`),
  ];
}
