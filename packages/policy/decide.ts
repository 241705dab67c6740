import type { CompiledPolicy, CompiledRoute } from './compile.ts';
import type { Shared, Values } from './conditions.ts';
import type { ConsentAnswer } from './consent.ts';
import type { Minimiser } from './minimise.ts';
import { planOf, type RecordPlan, type RoutePlan, type Step } from './plan.ts';
import { isZone, quietUntil } from './quiet.ts';
import { holdsPart, inSet, isRegionCode } from './regions.ts';
import type { CompiledRule } from './rules.ts';
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
  /**
   * Where earlier records of the person last said that it is, by any of these identifiers: ISO 3166 codes, each once; '' among
   * them = one that cannot be read. Asked only when a rule or route wants to know. @param own the record says it by itself, so
   * that what was said by the identifiers that it carries counts no more. Absent = nothing is known.
   */
  readonly regions?: (own: boolean) => readonly string[];
  readonly eventId?: string;
  /** ms since the epoch. */
  readonly acceptedAt?: number;
  /** Present when an approver let one delivery of it through: nothing else is decided, and these rules do not hold it. */
  readonly approval?: { readonly destination: string; readonly operation: string; readonly rules: readonly string[] } | undefined;
}

export interface DecisionContext {
  readonly now: number;
  /** Asked once for each purpose, channel and topic that routes of the record have. */
  consent(ids: readonly string[], route: CompiledRoute): ConsentAnswer;
  /** Takes a token of the limit; false = used up. */
  take(rule: CompiledRule, key: string, now: number, route: CompiledRoute): boolean;
  /** Whether `take` would give one. Absent: of several limits the first are taken of though a later one is used up. */
  readonly has?: DecisionContext['take'] | undefined;
  /** Told of every rule that is looked at; for explanations. */
  looked?(route: CompiledRoute, rule: CompiledRule, result: boolean | 'error'): void;
}

/** `detail` says in words what failed, without values of the record. `second`: what was decided for the second vendor of the route. */
export type Decision =
  | { readonly effect: 'allow'; readonly route: CompiledRoute; readonly rule: string; readonly consent: readonly ConsentSeen[]; readonly notBefore: number | null; readonly minimiser: Minimiser; /** Names of the limit rules that counted it; absent = none. */ readonly limits?: readonly string[]; readonly second?: Decision }
  | { readonly effect: 'hold'; readonly route: CompiledRoute; readonly rule: string; readonly reason: string; readonly consent: readonly ConsentSeen[]; readonly expiresMs: number; readonly escalate: boolean }
  | { readonly effect: 'deny'; readonly route: CompiledRoute | undefined; readonly rule: string | null; readonly reason: string; readonly detail?: string; readonly consent: readonly ConsentSeen[] };

const noRoute: readonly Decision[] = [{ effect: 'deny', route: undefined, rule: null, reason: 'no-route', consent: [] }];
const noneSeen: readonly ConsentSeen[] = [];
/** Records about a person: without an identifier there is nobody to ask. */
const aboutPerson = new Set(['Profile', 'Event', 'ConsentChange', 'Order']);
const maxDelayMs = 7 * 86_400_000;

type Variables = Record<string, unknown>;

function metaOf(subject: Subject, now: number): Variables {
  const date = new Date(now);
  return { __proto__: null, eventId: subject.eventId ?? '', acceptedAt: BigInt(subject.acceptedAt ?? 0), now: BigInt(now), hour: BigInt(date.getUTCHours()), weekday: BigInt(date.getUTCDay() || 7) } as Variables;
}

const whereFields = ['country', 'jurisdiction'] as const;

/**
 * ISO 3166 code of where a record itself says that the person is: its country, or the jurisdiction of a consent; undefined = it
 * does not say, '' = what it says is no code: where the person is is not known, whatever else is.
 */
export function saidRegion(record: Readonly<Record<string, unknown>>): string | undefined {
  for (const field of whereFields) {
    const code = record[field];
    if (typeof code !== 'string' || code === '') continue;
    if (!isRegionCode(code)) return '';
    const part = record['region'];
    const whole = typeof part === 'string' ? `${code}-${part}` : code;
    return code.length === 2 && isRegionCode(whole) ? whole : code;
  }
  return undefined;
}

const unknownRegion: readonly string[] = [''];

/**
 * ISO 3166 codes of where the person is, at least one; '' = not known. What the record says, with what is known by identifiers
 * that are linked and that it does not carry; where it says nothing, all that earlier records said; else the region of the source.
 */
export function regionsOf(policy: CompiledPolicy, subject: Pick<Subject, 'record' | 'source' | 'regions'>): readonly string[] {
  const own = saidRegion(subject.record);
  const known = subject.regions?.(own !== undefined) ?? [];
  if (own !== undefined) return known.length === 0 ? [own] : [own, ...known.filter((code) => code !== own)];
  if (known.length > 0) return known;
  const source = policy.governance?.sourceRegions.get(subject.source);
  return source === undefined ? unknownRegion : [source];
}

/** One record on its way through its routes; what holds for all of them is evaluated once, when first asked. */
class Run {
  readonly policy: CompiledPolicy;
  readonly subject: Subject;
  readonly context: DecisionContext;
  readonly variables: Variables;
  private readonly record: Readonly<Record<string, unknown>>;
  /** Of the groups of conditions that were asked. */
  private readonly values: (Values | undefined)[];
  private readonly asked: CompiledRoute[] = [];
  private readonly answers: ConsentAnswer[] = [];
  private codes: readonly string[] | undefined;
  /** Regions of the person that expressions must hold for, where there are more than one. */
  readonly several: readonly string[] | undefined;

  constructor(policy: CompiledPolicy, plan: RecordPlan, subject: Subject, context: DecisionContext) {
    this.policy = policy;
    this.subject = subject;
    this.context = context;
    this.values = new Array<Values | undefined>(plan.groups).fill(undefined);
    const regions = plan.region ? this.regions() : unknownRegion;
    this.several = regions.length > 1 ? regions : undefined;
    this.record = plan.view(subject.record);
    this.variables = {
      record: this.record, source: subject.source, destination: '', operation: '', purpose: '', channel: '', topic: '', now: BigInt(context.now),
      meta: plan.meta ? metaOf(subject, context.now) : null, region: regions[0]!,
    };
  }

  regions(): readonly string[] {
    return this.codes ??= regionsOf(this.policy, this.subject);
  }

  /** Of a person with several regions the stricter counts: what opens must hold in each, what restricts in one; what fails in one fails. */
  holds(when: NonNullable<CompiledRule['when']>, opens: boolean): boolean | 'error' {
    if (this.several === undefined) return holds(when.evaluate(this.variables));
    let result = opens;
    for (const code of this.several) {
      this.variables['region'] = code;
      const here = holds(when.evaluate(this.variables));
      if (here === 'error') return here;
      if (here !== opens) result = here;
    }
    return result;
  }

  /** The same of a condition that other routes have, too. */
  holdsFor(shared: Shared | undefined, when: NonNullable<CompiledRule['when']>, opens: boolean): boolean | 'error' {
    if (shared === undefined) return this.holds(when, opens);
    const values = this.values[shared.at] ??= shared.group.valuesOf(this.record);
    return values[shared.place] ??= this.holds(when, opens);
  }

  at(route: CompiledRoute): void {
    this.variables['destination'] = route.destination;
    this.variables['operation'] = route.operation;
    this.variables['purpose'] = route.purpose ?? '';
    this.variables['channel'] = route.channel ?? '';
    this.variables['topic'] = route.topic ?? '';
  }

  /** Routes that use the record for the same ask the same, of the same moment. */
  consent(ids: readonly string[], route: CompiledRoute): ConsentAnswer {
    const { asked, answers } = this;
    for (let i = 0; i < asked.length; i++) if (asked[i]!.purpose === route.purpose && asked[i]!.channel === route.channel && asked[i]!.topic === route.topic) return answers[i]!;
    const answer = this.context.consent(ids, route);
    asked.push(route);
    answers.push(answer);
    return answer;
  }

  applies({ rule, when, shared }: Step, route: CompiledRoute): boolean | 'error' {
    const result = when === undefined ? true : when === 'error' ? when : this.holdsFor(shared, when, rule.effect === 'allow');
    this.context.looked?.(route, rule, result);
    return result;
  }
}

/**
 * One decision per (destination, operation), by the first of its routes that matches, or a single `no-route`. Default
 * deny; forbid wins; closed when unknown; a rule or route that fails at run time denies. `restrict` operations
 * (unsubscribe, suppress, delete) need no consent and no allow rule, and no rule drops or delays them; a failing
 * condition of their route counts as true.
 */
export function decide(policy: CompiledPolicy, subject: Subject, context: DecisionContext): readonly Decision[] {
  const plan = planOf(policy, subject.recordName);
  if (plan === undefined) return noRoute;
  const run = new Run(policy, plan, subject, context);
  const decisions: Decision[] = [];
  const { approval } = subject;
  for (const routePlan of plan.routes) {
    const { route } = routePlan;
    if (approval !== undefined && (approval.destination !== route.destination || approval.operation !== route.operation)) continue;
    if (decided(decisions, route)) continue;
    run.at(route);
    const matches = route.when === undefined ? true : run.holdsFor(routePlan.shared, route.when, route.kind !== 'restrict');
    if (matches === false) continue;
    if (route.kind === 'restrict') decisions.push({ effect: 'allow', route, rule: 'restrict', consent: noneSeen, notBefore: null, minimiser: routePlan.minimiser(0) });
    else if (matches === 'error') decisions.push({ effect: 'deny', route, rule: null, reason: 'policy-error', detail: `the condition of the route failed${place(route)}`, consent: noneSeen });
    else decisions.push(routePlan.second === undefined || approval !== undefined ? decideUse(run, routePlan, context) : decidePair(run, routePlan, routePlan.second));
  }
  return decisions.length === 0 ? noRoute : decisions;
}

function decided(decisions: readonly Decision[], route: CompiledRoute): boolean {
  for (const { route: other } of decisions) if (other!.destination === route.destination && other!.operation === route.operation) return true;
  return false;
}

function holds(result: { readonly ok: boolean; readonly value?: unknown }): boolean | 'error' {
  return result.ok ? result.value === true : 'error';
}

const place = (of: { readonly file?: string; readonly line?: number }): string => (of.file === undefined ? '' : ` (${of.file}:${of.line})`);

function deny(route: CompiledRoute, reason: string, rule: string | null = null, consent: readonly ConsentSeen[] = noneSeen, detail?: string): Decision {
  return detail === undefined ? { effect: 'deny', route, rule, reason, consent } : { effect: 'deny', route, rule, reason, consent, detail };
}
const failedRule = (route: CompiledRoute, rule: CompiledRule, what = 'the condition'): Decision => deny(route, 'policy-error', rule.name, noneSeen, `${what} of rule ${rule.name} failed${place(rule)}`);

/** What the rules of one route add up to. */
interface Verdict {
  allowed: string | undefined;
  failed: CompiledRule | undefined;
  forbidden: Decision | undefined;
  notBefore: number | null;
  limits: CompiledRule[] | undefined;
  held: CompiledRule | undefined;
}

/**
 * A route with a second vendor: both are decided now, and one of them will get it. So the second takes no token of a
 * limit: one that the first took covers both where it counts people; where it counts destinations, or does not hold at
 * the first, the second stays closed. What an approver let through, he let through to the one vendor that he was shown.
 */
function decidePair(run: Run, plan: RoutePlan, second: RoutePlan): Decision {
  const taken = new Set<CompiledRule>();
  const first = decideUse(run, plan, { has: run.context.has, take: (rule, key, now, route) => {
    const ok = run.context.take(rule, key, now, route);
    if (ok) taken.add(rule);
    return ok;
  } });
  if (first.effect !== 'allow') return first;
  run.at(second.route);
  return { ...first, second: decideUse(run, second, { take: (rule) => taken.has(rule) && rule.limit!.by === 'subject' }) };
}

function decideUse(run: Run, plan: RoutePlan, tokens: Tokens): Decision {
  const { subject } = run;
  const { route } = plan;
  if (subject.ids === undefined) return deny(route, 'identity-too-wide');
  if (subject.ids.length === 0 && aboutPerson.has(subject.recordName)) return deny(route, 'subject-unidentified');
  const verdict: Verdict = { allowed: undefined, failed: undefined, forbidden: undefined, notBefore: null, limits: undefined, held: undefined };
  for (const step of plan.steps) {
    if (step.rule.effect === 'allow' && verdict.allowed !== undefined) continue;
    const applies = run.applies(step, route);
    if (applies === false) continue;
    const final = applies === 'error' ? failure(verdict, route, step.rule) : effect(verdict, run, route, step.rule);
    if (final !== undefined) return final;
  }
  const applied = transformsOf(run, plan);
  if (typeof applied !== 'number') verdict.forbidden ??= applied;
  if (verdict.forbidden !== undefined) return verdict.forbidden;
  if (verdict.allowed === undefined) return verdict.failed === undefined ? deny(route, 'no-allow-rule') : failedRule(route, verdict.failed);
  const answer = run.consent(subject.ids, route);
  if (!answer.ok) return deny(route, answer.reason, verdict.allowed, answer.seen);
  const { held } = verdict;
  if (held !== undefined) return { effect: 'hold', route, rule: held.name, reason: `${held.effect === 'escalate' ? 'escalate' : 'approval'}:${held.name}`, consent: answer.seen, expiresMs: held.approval!.expiresMs, escalate: held.effect === 'escalate' };
  const full = verdict.limits === undefined ? undefined : usedUp(run, route, verdict.limits, tokens);
  if (full !== undefined) return deny(route, `limit:${full.name}`, full.name, answer.seen);
  const allowed: Decision = { effect: 'allow', route, rule: verdict.allowed, consent: answer.seen, notBefore: verdict.notBefore, minimiser: plan.minimiser(applied as number) };
  return verdict.limits === undefined ? allowed : { ...allowed, limits: verdict.limits.map((rule) => rule.name) };
}

type Tokens = Pick<DecisionContext, 'take' | 'has'>;

/** The first limit that is used up; undefined = a token of each was taken. All are asked before: what one refuses takes none of another. */
function usedUp({ subject, context }: Run, route: CompiledRoute, limits: readonly CompiledRule[], { take, has }: Tokens): CompiledRule | undefined {
  const refusing = (ask: DecisionContext['take']): CompiledRule | undefined => limits.find((rule) => !ask(rule, rule.limit!.by === 'subject' ? subject.key : route.destination, context.now, route));
  return (has === undefined || limits.length === 1 ? undefined : refusing(has)) ?? refusing(take);
}

/** A condition that fails allows nothing, and forbids where the rule would have restricted. */
function failure(verdict: Verdict, route: CompiledRoute, rule: CompiledRule): undefined {
  if (rule.effect === 'allow') verdict.failed ??= rule;
  else verdict.forbidden ??= failedRule(route, rule);
}

/** Adds the effect of a rule that applies; a decision when nothing can change it any more. */
function effect(verdict: Verdict, run: Run, route: CompiledRoute, rule: CompiledRule): Decision | undefined {
  switch (rule.effect) {
    case 'deny': return deny(route, `rule:${rule.name}`, rule.name);
    case 'route': return deny(route, `route:${rule.name}`, rule.name);
    case 'residency': return residencyRefusal(run, route, rule);
    case 'allow': verdict.allowed = rule.name; return undefined;
    case 'limit': (verdict.limits ??= []).push(rule); return undefined;
    case 'require-approval': case 'escalate':
      if (run.subject.approval?.rules.includes(rule.name) === true) return undefined;
      if (verdict.held === undefined || (rule.effect === 'escalate' && verdict.held.effect !== 'escalate')) verdict.held = rule;
      return undefined;
    default: {
      const until = delayUntil(rule, run);
      if (until === 'error') verdict.forbidden ??= failedRule(route, rule, 'until');
      else if (until > run.context.now && until > (verdict.notBefore ?? 0)) verdict.notBefore = until;
      return undefined;
    }
  }
}

/** The destination is outside of where the data may go (plan.ts). Whose region is not known, or only its country where the rule names a part of it, is protected like the ones that the rule names. */
function residencyRefusal(run: Run, route: CompiledRoute, rule: CompiledRule): Decision | undefined {
  const { subject } = rule.residency!;
  if (subject === undefined) return deny(route, `residency:${rule.name}`, rule.name);
  for (const region of run.regions()) {
    if (region === '') return deny(route, `residency:${rule.name}`, rule.name, noneSeen, 'the region of the person is not known');
    if (inSet(subject, region)) return deny(route, `residency:${rule.name}`, rule.name);
    if (holdsPart(subject, region)) return deny(route, `residency:${rule.name}`, rule.name, noneSeen, 'only the country of the person is known');
  }
  return undefined;
}

/** Bits of the minimise, hash and mask rules that apply. */
function transformsOf(run: Run, plan: RoutePlan): number | Decision {
  let applied = 0;
  for (let i = 0; i < plan.transforms.length; i++) {
    const applies = run.applies(plan.transforms[i]!, plan.route);
    if (applies === 'error') return failedRule(plan.route, plan.transforms[i]!.rule);
    if (applies) applied |= 1 << i;
  }
  return applied;
}

/** Time until which the rule delays, ms; not after now = no delay. */
function delayUntil(rule: CompiledRule, run: Run): number | 'error' {
  const { now } = run.context;
  if (rule.quietHours !== undefined) {
    const field = rule.quietHours.timezoneField;
    const zone = field === undefined ? undefined : run.subject.record[field];
    return quietUntil(typeof zone === 'string' && isZone(zone) ? { ...rule.quietHours, timezone: zone } : rule.quietHours, now) ?? 0;
  }
  if (run.several === undefined) return untilOf(rule, run);
  let last = 0;
  for (const code of run.several) {
    run.variables['region'] = code;
    const at = untilOf(rule, run);
    if (at === 'error') return at;
    last = Math.max(last, at);
  }
  return last;
}

function untilOf(rule: CompiledRule, { variables, context: { now } }: Run): number | 'error' {
  const result = rule.until!.evaluate(variables);
  if (!result.ok) return 'error';
  const at = result.value instanceof Date ? result.value.getTime() : result.value;
  return typeof at !== 'number' || !Number.isFinite(at) || at > now + maxDelayMs ? 'error' : Math.ceil(at);
}
