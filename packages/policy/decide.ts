import type { ConsentAnswer } from './consent.ts';
import type { CompiledPolicy, CompiledRoute, CompiledRule, QuietHours } from './compile.ts';
import type { ConsentSeen } from './types.ts';

/** What is decided on: a canonical record and what is known of its person now. */
export interface Subject {
  readonly recordName: string;
  readonly record: Readonly<Record<string, unknown>>;
  readonly source: string;
  /** Subject key; limits count by it. */
  readonly key: string;
  /** All linked identifiers; undefined = too many to decide on. */
  readonly ids: readonly string[] | undefined;
}

export interface DecisionContext {
  readonly now: number;
  consent(ids: readonly string[], route: CompiledRoute): ConsentAnswer;
  /** Takes a token of the limit; false = used up. */
  take(rule: CompiledRule, key: string, now: number): boolean;
}

export type Decision =
  | { readonly effect: 'allow'; readonly route: CompiledRoute; readonly rule: string; readonly consent: readonly ConsentSeen[]; readonly notBefore: number | null }
  | { readonly effect: 'deny'; readonly route: CompiledRoute | undefined; readonly rule: string | null; readonly reason: string; readonly consent: readonly ConsentSeen[] };

const noRoute: readonly Decision[] = [{ effect: 'deny', route: undefined, rule: null, reason: 'no-route', consent: [] }];

/**
 * One decision per route that matches, or a single `no-route`. Default deny; forbid wins; closed when unknown;
 * a rule or route that fails at run time denies. `restrict` operations (unsubscribe, suppress, delete) need
 * no consent and no allow rule, and no rule drops or delays them.
 */
export function decide(policy: CompiledPolicy, subject: Subject, context: DecisionContext): readonly Decision[] {
  const routes = policy.routes.get(subject.recordName);
  if (routes === undefined) return noRoute;
  const decisions: Decision[] = [];
  // One delivery per destination and operation: of the routes that match, the first counts.
  const decided = new Set<string>();
  for (const route of routes) {
    if (decided.has(`${route.destination}/${route.operation}`)) continue;
    const variables = { record: subject.record, source: subject.source, destination: route.destination, operation: route.operation, purpose: route.purpose ?? '', channel: route.channel ?? '', now: BigInt(context.now) };
    const matches = route.when === undefined ? true : holds(route.when.evaluate(variables));
    if (matches === false) continue;
    decided.add(`${route.destination}/${route.operation}`);
    if (matches === 'error') decisions.push({ effect: 'deny', route, rule: null, reason: 'policy-error', consent: [] });
    else decisions.push(decideRoute(policy, subject, route, variables, context));
  }
  return decisions.length === 0 ? noRoute : decisions;
}

function holds(result: { readonly ok: boolean; readonly value?: unknown }): boolean | 'error' {
  return result.ok ? result.value === true : 'error';
}

function decideRoute(policy: CompiledPolicy, subject: Subject, route: CompiledRoute, variables: Record<string, unknown>, context: DecisionContext): Decision {
  const deny = (reason: string, rule: string | null = null, consent: readonly ConsentSeen[] = []): Decision => ({ effect: 'deny', route, rule, reason, consent });
  if (route.kind === 'restrict') return { effect: 'allow', route, rule: 'restrict', consent: [], notBefore: null };
  if (subject.ids === undefined) return deny('identity-too-wide');
  if (subject.ids.length === 0 && subject.recordName !== 'CampaignMetric') return deny('subject-unidentified');
  let allowed: string | undefined;
  let notBefore: number | null = null;
  const limits: CompiledRule[] = [];
  for (const rule of policy.rules) {
    const applies = rule.when === undefined ? true : holds(rule.when.evaluate(variables));
    if (applies === 'error') {
      if (rule.effect !== 'allow') return deny('policy-error', rule.name);
      continue;
    }
    if (!applies) continue;
    if (rule.effect === 'deny') return deny(`rule:${rule.name}`, rule.name);
    if (rule.effect === 'allow') allowed ??= rule.name;
    else if (rule.effect === 'limit') limits.push(rule);
    else if (rule.quietHours !== undefined) {
      const until = quietUntil(rule.quietHours, context.now);
      if (until !== undefined) notBefore = Math.max(notBefore ?? 0, until);
    }
  }
  if (allowed === undefined) return deny('no-allow-rule');
  const answer = context.consent(subject.ids, route);
  if (!answer.ok) return deny(answer.reason, allowed, answer.seen);
  for (const rule of limits) if (!context.take(rule, rule.limit!.by === 'subject' ? subject.key : route.destination, context.now)) return deny(`limit:${rule.name}`, rule.name, answer.seen);
  return { effect: 'allow', route, rule: allowed, consent: answer.seen, notBefore };
}

const clocks = new Map<string, Intl.DateTimeFormat>();

/** Minutes after midnight in a zone. */
function minutesIn(timezone: string, now: number): number {
  let clock = clocks.get(timezone);
  if (clock === undefined) clocks.set(timezone, clock = new Intl.DateTimeFormat('en-GB', { timeZone: timezone, hour: '2-digit', minute: '2-digit', hourCycle: 'h23' }));
  const [hour, minute] = clock.format(now).split(':');
  return Number(hour) * 60 + Number(minute);
}

/** End of the quiet hours that `now` lies in, ms since the epoch; undefined outside. Steps by the zone's own clock, so a change to summer time moves it with the wall clock. */
export function quietUntil(quiet: QuietHours, now: number): number | undefined {
  const at = minutesIn(quiet.timezone, now);
  const inside = quiet.from < quiet.to ? at >= quiet.from && at < quiet.to : at >= quiet.from || at < quiet.to;
  if (!inside) return undefined;
  const start = Math.floor(now / 60_000) * 60_000;
  const guess = start + ((quiet.to - at + 1440) % 1440) * 60_000;
  for (const shift of [0, 60, -60, 30, -30]) if (minutesIn(quiet.timezone, guess + shift * 60_000) === quiet.to) return guess + shift * 60_000;
  return guess;
}

/**
 * Counters of limit rules: fixed windows, bounded memory. They live in this process only: after a crash a
 * window may let through one more bucket. When the table is full the oldest windows are forgotten first.
 */
export function createLimits(maxKeys = 500_000): DecisionContext['take'] {
  const counters = new Map<string, { until: number; used: number }>();
  return (rule, key, now) => {
    const id = `${rule.name}\u0000${key}`;
    const found = counters.get(id);
    if (found !== undefined && found.until > now) {
      if (found.used >= rule.limit!.count) return false;
      found.used++;
      return true;
    }
    counters.delete(id);
    if (counters.size >= maxKeys) for (const old of counters.keys()) {
      counters.delete(old);
      if (counters.size < maxKeys * 0.9) break;
    }
    counters.set(id, { until: now + rule.limit!.perMs, used: 1 });
    return true;
  };
}
