import type { AvroRecord } from '@weir/schemas';
import { fieldUses, restrictFields, type FieldUse } from './classes.ts';
import type { CompiledPolicy, CompiledRoute } from './compile.ts';
import { createConditions, type Conditions, type Shared } from './conditions.ts';
import { compileMinimiser, type FieldAction, type KeyFilter, type Minimiser } from './minimise.ts';
import { canonicalSchemas, namesRead, readsOf, recordView, type Reads } from './record-view.ts';
import { inSet } from './regions.ts';
import type { CompiledRule } from './rules.ts';
import type { Transform } from './transforms.ts';

/** A rule at a route, with what the names of the route settle already taken out. */
export interface Step {
  readonly rule: CompiledRule;
  /** Undefined = it applies; 'error' = its condition fails whatever the record. */
  readonly when: CompiledRule['when'] | 'error';
  /** Its value is the same for every route of a record. */
  readonly shared: Shared | undefined;
}

export interface RoutePlan {
  readonly route: CompiledRoute;
  /** The value of its condition is the same for every route of a record that has the same one. */
  readonly shared: Shared | undefined;
  readonly steps: readonly Step[];
  /** minimise, hash, mask. */
  readonly transforms: readonly Step[];
  /** What goes when these of the transforms apply, one bit each. */
  minimiser(applied: number): Minimiser;
  /** Of its second vendor. */
  readonly second?: RoutePlan;
}

/** What is prepared once per policy and record name. */
export interface RecordPlan {
  /** Fields of the record that `decide` looks at, `view` among them. */
  readonly reads: readonly string[];
  readonly view: (record: Readonly<Record<string, unknown>>) => Readonly<Record<string, unknown>>;
  readonly meta: boolean;
  readonly region: boolean;
  /** Groups of conditions that routes share. */
  readonly groups: number;
  readonly routes: readonly RoutePlan[];
}

const plans = new WeakMap<CompiledPolicy, Map<string, RecordPlan>>();
/** Combinations of rules that a route keeps compiled. */
const maxKept = 64;
export const maxTransforms = 24;

const isTransform = (rule: CompiledRule): boolean => rule.effect === 'minimise' || rule.effect === 'hash' || rule.effect === 'mask';

/** Undefined: there is no route for such a record. */
export function planOf(policy: CompiledPolicy, recordName: string): RecordPlan | undefined {
  if (last?.policy !== policy || last.recordName !== recordName) last = { policy, recordName, plan: findPlan(policy, recordName) };
  return last.plan;
}

/** The plan that was asked for last: of a batch, nearly always the next one too. */
let last: { readonly policy: CompiledPolicy; readonly recordName: string; readonly plan: RecordPlan | undefined } | undefined;

function findPlan(policy: CompiledPolicy, recordName: string): RecordPlan | undefined {
  const routes = policy.routes.get(recordName);
  if (routes === undefined) return undefined;
  let byName = plans.get(policy);
  if (byName === undefined) plans.set(policy, byName = new Map());
  let plan = byName.get(recordName);
  if (plan === undefined) byName.set(recordName, plan = makePlan(policy, recordName, routes));
  return plan;
}

function makePlan(policy: CompiledPolicy, recordName: string, routes: readonly CompiledRoute[]): RecordPlan {
  const conditions = createConditions();
  const minimisers = createMinimisers(canonicalSchemas().get(recordName)!);
  const made = routes.map((route) => makeRoute(policy, recordName, route, conditions, minimisers));
  const dynamic = [...made, ...made.flatMap((plan) => plan.second ?? [])].flatMap(({ route, steps, transforms }) => [route.when, ...[...steps, ...transforms].flatMap(({ rule, when }) => [when === 'error' ? undefined : when, rule.until])]);
  const reads = dynamic.flatMap((cel) => (cel === undefined ? [] : [readsOf(cel.source)]));
  return { reads: fieldsRead(policy, recordName, reads), view: recordView(recordName, reads), meta: reads.some((r) => r.meta), region: reads.some((r) => r.region), groups: conditions.count(), routes: made };
}

/** By where a person is (`saidRegion`), whatever the rules say. */
const regionFields = ['country', 'jurisdiction', 'region'];

function fieldsRead({ rules }: CompiledPolicy, recordName: string, reads: readonly Reads[]): readonly string[] {
  const wanted = new Set([...namesRead(recordName, reads), ...regionFields, ...rules.flatMap(({ quietHours }) => quietHours?.timezoneField ?? [])]);
  return canonicalSchemas().get(recordName)!.fields.map(({ name }) => name).filter((name) => wanted.has(name));
}

function makeRoute(policy: CompiledPolicy, recordName: string, route: CompiledRoute, conditions: Conditions, minimisers: Minimisers): RoutePlan {
  const steps: Step[] = [];
  const transforms: Step[] = [];
  for (const rule of route.kind === 'restrict' ? [] : policy.rules) {
    const step = stepOf(policy, route, rule, conditions);
    if (step !== undefined) (isTransform(rule) ? transforms : steps).push(step);
  }
  const kept = new Map<number, Minimiser>();
  const base = baseActions(policy, recordName, route);
  return {
    route, shared: sharedOf(route, conditions), steps, transforms, ...(route.second === undefined ? {} : { second: makeRoute(policy, recordName, route.second, conditions, minimisers) }),
    minimiser(applied) {
      let found = kept.get(applied);
      if (found === undefined) {
        if (kept.size >= maxKept) kept.clear();
        kept.set(applied, found = minimisers(actionsOf(base, transforms.flatMap(({ rule }, i) => ((applied & (1 << i)) === 0 ? [] : [rule])))));
      }
      return found;
    },
  };
}

function stepOf(policy: CompiledPolicy, route: CompiledRoute, rule: CompiledRule, conditions: Conditions): Step | undefined {
  if (rule.purpose !== undefined && rule.purpose !== route.purpose) return undefined;
  if (rule.route !== undefined && (!rule.route.among.has(route.destination) || rule.route.to.has(route.destination))) return undefined;
  if (rule.residency !== undefined && staysInside(policy, route.destination, rule)) return undefined;
  if (rule.when === undefined) return { rule, when: undefined, shared: undefined };
  const reads = readsOf(rule.when.source);
  if (!reads.perRecord) {
    const result = rule.when.evaluate({ record: null, source: '', now: 0n, meta: null, region: '', ...routeVariables(route) });
    if (result.ok && result.value !== true) return undefined;
    return { rule, when: result.ok ? undefined : 'error', shared: undefined };
  }
  return { rule, when: rule.when, shared: reads.perRoute ? undefined : conditions.add('rule', rule.when, reads, rule.effect === 'allow') };
}

function sharedOf({ when, kind }: CompiledRoute, conditions: Conditions): Shared | undefined {
  const reads = when === undefined ? undefined : readsOf(when.source);
  return when === undefined || reads!.perRoute ? undefined : conditions.add('route', when, reads!, kind !== 'restrict');
}

/** A destination without a region is inside of nothing. */
function staysInside(policy: CompiledPolicy, destination: string, rule: CompiledRule): boolean {
  const regions = policy.governance?.destinationRegions.get(destination) ?? [];
  return regions.length > 0 && regions.every((code) => inSet(rule.residency!.destinations, code));
}

export function routeVariables(route: CompiledRoute): Record<string, string> {
  return { destination: route.destination, operation: route.operation, purpose: route.purpose ?? '', channel: route.channel ?? '', topic: route.topic ?? '' };
}

/**
 * Whether time alone can change what is decided for a route, also where it is the second vendor of one: a rule that is looked at
 * there delays, or a condition reads the time (`now`, `meta`). True where the policy has no such route.
 */
export function dependsOnTime(policy: CompiledPolicy, recordName: string, destination: string, operation: string): boolean {
  const routes = (planOf(policy, recordName)?.routes ?? []).flatMap((plan) => (plan.second === undefined ? [plan] : [plan, { ...plan.second, steps: [...plan.steps, ...plan.second.steps], transforms: [...plan.transforms, ...plan.second.transforms], route: { ...plan.second.route, when: plan.route.when } }])).filter(({ route }) => route.destination === destination && route.operation === operation);
  const timed = (cel: CompiledRoute['when'] | 'error'): boolean => cel !== undefined && cel !== 'error' && ['now', 'meta'].some((name) => readsOf(cel.source).names.has(name));
  return routes.length === 0 || routes.some(({ route, steps, transforms }) => timed(route.when) || [...steps, ...transforms].some(({ rule, when }) => rule.quietHours !== undefined || rule.until !== undefined || timed(when)));
}

/** Limit rules that can count a use of the destination. */
export function limitsAt(policy: CompiledPolicy, destination: string): CompiledRule[] {
  const found = new Set<CompiledRule>();
  for (const recordName of policy.routes.keys()) for (const { route, steps } of planOf(policy, recordName)?.routes ?? []) if (route.destination === destination) for (const { rule } of steps) if (rule.effect === 'limit') found.add(rule);
  return [...found];
}

/** Uses of the fields of a record under the policy. */
export function usesOf(policy: CompiledPolicy, recordName: string): ReadonlyMap<string, FieldUse> {
  return policy.governance?.fields.get(recordName) ?? fieldUses(recordName, new Map(), undefined, policy.purposes.keys());
}

/** What the purposes say: a field goes when it may be used for the purpose of the route. A restriction has none; its route says what it tells hashed. */
export function baseActions(policy: CompiledPolicy, recordName: string, route: CompiledRoute): (field: string) => FieldAction {
  if (route.kind === 'restrict') {
    const fields = restrictFields(recordName);
    return (field) => (fields.has(field) ? route.hash?.get(field) ?? 'keep' : 'drop');
  }
  const uses = usesOf(policy, recordName);
  const purpose = route.purpose ?? '';
  return (field) => {
    const use = uses.get(field);
    const whole = use?.purposes.has(purpose) === true;
    return use?.keys === undefined ? (whole ? 'keep' : 'drop') : keysFor(use.keys, purpose, whole);
  };
}

/** A key that is classified apart goes by its own purposes, the others with the field. */
function keysFor(keys: ReadonlyMap<string, ReadonlySet<string>>, purpose: string, others: boolean): KeyFilter {
  return { keeps: (key) => keys.get(key)?.has(purpose) ?? others, withheld: [...keys].filter(([, purposes]) => !purposes.has(purpose)).map(([key]) => key) };
}

/** The minimiser of what becomes of each field: one for all routes of a record where the same does. */
type Minimisers = (action: (field: string) => FieldAction) => Minimiser;

function createMinimisers(schema: AvroRecord): Minimisers {
  const made = new Map<string, Minimiser>();
  const numbers = new Map<FieldAction, number>();
  const numberOf = (action: FieldAction): number => {
    let number = numbers.get(action);
    if (number === undefined) numbers.set(action, number = numbers.size);
    return number;
  };
  return (action) => {
    const actions = new Map(schema.fields.map(({ name }) => [name, action(name)]));
    const key = Array.from(actions.values(), numberOf).join();
    let minimiser = made.get(key);
    if (minimiser === undefined) {
      if (made.size >= maxKept) {
        made.clear();
        numbers.clear();
        return compileMinimiser(schema, (field) => actions.get(field)!);
      }
      made.set(key, minimiser = compileMinimiser(schema, (field) => actions.get(field)!));
    }
    return minimiser;
  };
}

/**
 * Whatever the order of the rules: a field that one of them leaves out stays here, hashing wins over masking, and a
 * field that two of them would change to different texts stays here.
 */
function actionsOf(base: (field: string) => FieldAction, rules: readonly CompiledRule[]): (field: string) => FieldAction {
  const technical = new Set(['id', 'source', 'occurredAt']);
  return (field) => {
    const action = base(field);
    if (action === 'drop') return 'drop';
    if (technical.has(field)) return 'keep';
    if (rules.some(({ drop }) => drop !== undefined && drop.fields.has(field) !== drop.keep)) return 'drop';
    for (const effect of ['hash', 'mask'] as const) {
      const found = new Set<Transform>();
      for (const rule of rules) if (rule.effect === effect && rule.change?.has(field) === true) found.add(rule.change.get(field)!);
      if (found.size > 1) return 'drop';
      for (const transform of found) return transform;
    }
    return action;
  };
}
