import type { ConsentAnswer } from './consent.ts';
import type { CompiledPolicy, CompiledRoute, CompiledRule, QuietHours } from './compile.ts';
import { readsOf, recordView } from './record-view.ts';
import type { ConsentSeen } from './types.ts';

/** What is decided on: a canonical record and what is known of its person now. */
export interface Subject {
  /** Without namespace: Profile, Event, … */
  readonly recordName: string;
  /** As decoded from Avro. */
  readonly record: Readonly<Record<string, unknown>>;
  readonly source: string;
  /** Subject key; limits count by it. */
  readonly key: string;
  /** All linked identifiers; undefined = too many to decide on. */
  readonly ids: readonly string[] | undefined;
  readonly eventId?: string;
  /** ms since the epoch. */
  readonly acceptedAt?: number;
}

export interface DecisionContext {
  readonly now: number;
  consent(ids: readonly string[], route: CompiledRoute): ConsentAnswer;
  /** Takes a token of the limit; false = used up. */
  take(rule: CompiledRule, key: string, now: number, route: CompiledRoute): boolean;
}

/** `detail` says in words what failed, without values of the record. */
export type Decision =
  | { readonly effect: 'allow'; readonly route: CompiledRoute; readonly rule: string; readonly consent: readonly ConsentSeen[]; readonly notBefore: number | null }
  | { readonly effect: 'deny'; readonly route: CompiledRoute | undefined; readonly rule: string | null; readonly reason: string; readonly detail?: string; readonly consent: readonly ConsentSeen[] };

const noRoute: readonly Decision[] = [{ effect: 'deny', route: undefined, rule: null, reason: 'no-route', consent: [] }];
/** Records about a person: without an identifier there is nobody to ask. */
const aboutPerson = new Set(['Profile', 'Event', 'ConsentChange', 'Order']);
const maxDelayMs = 7 * 86_400_000;

/** What is prepared once per policy and record name. */
interface Plan {
  readonly view: (record: Readonly<Record<string, unknown>>) => Readonly<Record<string, unknown>>;
  readonly meta: boolean;
  /** Rules whose condition is the same for every route of a record, by their place among the rules. */
  readonly shared: readonly boolean[];
}
const plans = new WeakMap<CompiledPolicy, Map<string, Plan>>();

function planOf(policy: CompiledPolicy, recordName: string, routes: readonly CompiledRoute[]): Plan {
  let byName = plans.get(policy);
  if (byName === undefined) plans.set(policy, byName = new Map());
  let plan = byName.get(recordName);
  if (plan === undefined) {
    const sources = [...routes, ...policy.rules].flatMap((r) => [r.when, 'until' in r ? r.until : undefined]).flatMap((cel) => (cel === undefined ? [] : [cel.source]));
    const reads = sources.map(readsOf);
    plan = { view: recordView(recordName, reads), meta: reads.some((r) => r.meta), shared: policy.rules.map((r) => r.when !== undefined && !readsOf(r.when.source).perRoute) };
    byName.set(recordName, plan);
  }
  return plan;
}

type Variables = Record<string, unknown>;

function metaOf(subject: Subject, now: number): Variables {
  const date = new Date(now);
  return { __proto__: null, eventId: subject.eventId ?? '', acceptedAt: BigInt(subject.acceptedAt ?? 0), now: BigInt(now), hour: BigInt(date.getUTCHours()), weekday: BigInt(date.getUTCDay() || 7) } as Variables;
}

/** One record on its way through its routes; what holds for all of them is evaluated once, when first asked. */
class Run {
  readonly policy: CompiledPolicy;
  readonly plan: Plan;
  readonly subject: Subject;
  readonly context: DecisionContext;
  readonly variables: Variables;
  readonly values: (boolean | 'error' | undefined)[] = [];

  constructor(policy: CompiledPolicy, plan: Plan, subject: Subject, context: DecisionContext) {
    this.policy = policy;
    this.plan = plan;
    this.subject = subject;
    this.context = context;
    this.variables = { record: plan.view(subject.record), source: subject.source, destination: '', operation: '', purpose: '', channel: '', topic: '', now: BigInt(context.now), meta: plan.meta ? metaOf(subject, context.now) : null };
  }

  at(route: CompiledRoute): void {
    this.variables['destination'] = route.destination;
    this.variables['operation'] = route.operation;
    this.variables['purpose'] = route.purpose ?? '';
    this.variables['channel'] = route.channel ?? '';
    this.variables['topic'] = route.topic ?? '';
  }

  applies(index: number): boolean | 'error' {
    const { when } = this.policy.rules[index]!;
    if (when === undefined) return true;
    if (!this.plan.shared[index]) return holds(when.evaluate(this.variables));
    return this.values[index] ??= holds(when.evaluate(this.variables));
  }
}

/**
 * One decision per (destination, operation), by the first of its routes that matches, or a single `no-route`. Default
 * deny; forbid wins; closed when unknown; a rule or route that fails at run time denies. `restrict` operations
 * (unsubscribe, suppress, delete) need no consent and no allow rule, and no rule drops or delays them; a failing
 * condition of their route counts as true.
 */
export function decide(policy: CompiledPolicy, subject: Subject, context: DecisionContext): readonly Decision[] {
  const routes = policy.routes.get(subject.recordName);
  if (routes === undefined) return noRoute;
  const run = new Run(policy, planOf(policy, subject.recordName, routes), subject, context);
  const decisions: Decision[] = [];
  for (const route of routes) {
    if (decisions.some((d) => d.route!.destination === route.destination && d.route!.operation === route.operation)) continue;
    run.at(route);
    const matches = route.when === undefined ? true : holds(route.when.evaluate(run.variables));
    if (matches === false) continue;
    if (route.kind === 'restrict') decisions.push({ effect: 'allow', route, rule: 'restrict', consent: [], notBefore: null });
    else if (matches === 'error') decisions.push({ effect: 'deny', route, rule: null, reason: 'policy-error', detail: 'the condition of the route failed', consent: [] });
    else decisions.push(decideUse(run, route));
  }
  return decisions.length === 0 ? noRoute : decisions;
}

function holds(result: { readonly ok: boolean; readonly value?: unknown }): boolean | 'error' {
  return result.ok ? result.value === true : 'error';
}

function decideUse(run: Run, route: CompiledRoute): Decision {
  const { subject, context, policy } = run;
  const deny = (reason: string, rule: string | null = null, consent: readonly ConsentSeen[] = [], detail?: string): Decision => ({ effect: 'deny', route, rule, reason, consent, ...(detail === undefined ? {} : { detail }) });
  if (subject.ids === undefined) return deny('identity-too-wide');
  if (subject.ids.length === 0 && aboutPerson.has(subject.recordName)) return deny('subject-unidentified');
  let allowed: string | undefined;
  let failed: string | undefined;
  let forbidden: Decision | undefined;
  let notBefore: number | null = null;
  let limits: CompiledRule[] | undefined;
  for (const [index, rule] of policy.rules.entries()) {
    if (rule.effect === 'allow' && allowed !== undefined) continue;
    const applies = run.applies(index);
    if (applies === false) continue;
    if (applies === 'error') {
      failed ??= rule.name;
      if (rule.effect !== 'allow') forbidden ??= deny('policy-error', rule.name, [], `rule ${rule.name} failed`);
    } else if (rule.effect === 'deny') return deny(`rule:${rule.name}`, rule.name);
    else if (rule.effect === 'allow') allowed = rule.name;
    else if (rule.effect === 'limit') (limits ??= []).push(rule);
    else {
      const until = delayUntil(rule, run);
      if (until === 'error') forbidden ??= deny('policy-error', rule.name, [], `until of rule ${rule.name} failed`);
      else if (until > context.now && until > (notBefore ?? 0)) notBefore = until;
    }
  }
  if (forbidden !== undefined) return forbidden;
  if (allowed === undefined) return failed === undefined ? deny('no-allow-rule') : deny('policy-error', failed, [], `rule ${failed} failed`);
  const answer = context.consent(subject.ids, route);
  if (!answer.ok) return deny(answer.reason, allowed, answer.seen);
  for (const rule of limits ?? []) if (!context.take(rule, rule.limit!.by === 'subject' ? subject.key : route.destination, context.now, route)) return deny(`limit:${rule.name}`, rule.name, answer.seen);
  return { effect: 'allow', route, rule: allowed, consent: answer.seen, notBefore };
}

/** Time until which the rule delays, ms; not after now = no delay. */
function delayUntil(rule: CompiledRule, run: Run): number | 'error' {
  const { now } = run.context;
  if (rule.quietHours !== undefined) {
    const field = rule.quietHours.timezoneField;
    const zone = field === undefined ? undefined : run.subject.record[field];
    return quietUntil(typeof zone === 'string' && isZone(zone) ? { ...rule.quietHours, timezone: zone } : rule.quietHours, now) ?? 0;
  }
  const result = rule.until!.evaluate(run.variables);
  if (!result.ok) return 'error';
  const at = result.value instanceof Date ? result.value.getTime() : result.value;
  return typeof at !== 'number' || !Number.isFinite(at) || at > now + maxDelayMs ? 'error' : Math.ceil(at);
}

const clocks = new Map<string, Intl.DateTimeFormat | undefined>();
const maxClocks = 1000;

/** Zones may come from a record, so what is kept of them is bounded; undefined = there is no such zone. */
function clockOf(timezone: string): Intl.DateTimeFormat | undefined {
  if (clocks.has(timezone)) return clocks.get(timezone);
  let clock: Intl.DateTimeFormat | undefined;
  try {
    if (timezone.length <= 64) clock = new Intl.DateTimeFormat('en-GB', { timeZone: timezone, hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  if (clocks.size >= maxClocks) clocks.clear();
  clocks.set(timezone, clock);
  return clock;
}
const isZone = (timezone: string) => clockOf(timezone) !== undefined;

/** Minutes after midnight in a zone. */
function minutesIn(timezone: string, now: number): number {
  const [hour, minute] = clockOf(timezone)!.format(now).split(':');
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
 * Counters of limit rules: fixed windows aligned to the epoch, in this process only: after a crash a window may let
 * through one more bucket. Memory is bounded: past `maxKeys` counters a key without one is refused until windows end,
 * so a limit is never passed for lack of memory. With a `share`, what is counted by destination is this partition's
 * part of the count, and the parts add up to it.
 */
export function createLimits(maxKeys = 500_000, share?: { readonly partition: number; readonly partitions: number }): (rule: CompiledRule, key: string, now: number) => boolean {
  const windows = new Map<string, { until: number; readonly used: Map<string, number> }>();
  let keys = 0;
  return (rule, key, now) => {
    const { count, perMs, by } = rule.limit!;
    let window = windows.get(rule.name);
    if (window === undefined || window.until <= now) {
      keys -= window?.used.size ?? 0;
      window = { until: (Math.floor(now / perMs) + 1) * perMs, used: new Map() };
      windows.set(rule.name, window);
    }
    const part = by === 'subject' || share === undefined ? count : Math.floor(count / share.partitions) + (share.partition < count % share.partitions ? 1 : 0);
    const used = window.used.get(key);
    if (used === undefined ? part === 0 || keys >= maxKeys : used >= part) return false;
    if (used === undefined) keys++;
    window.used.set(key, (used ?? 0) + 1);
    return true;
  };
}
