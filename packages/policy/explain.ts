import type { CompiledPolicy, CompiledRoute } from './compile.ts';
import { decide, regionsOf, type Decision, type DecisionContext, type Subject } from './decide.ts';
import { planOf, type RoutePlan } from './plan.ts';
import { readsOf } from './record-view.ts';
import type { CompiledRule } from './rules.ts';

export interface LookedAt {
  readonly rule: string;
  readonly effect: string;
  readonly file: string;
  readonly line: number;
  /** `elsewhere`: it does not speak of this route. `passed over`: the decision was made without it. */
  readonly result: 'applies' | 'does not apply' | 'failed' | 'elsewhere' | 'passed over';
  /** What its condition read, as it was. */
  readonly values: Readonly<Record<string, unknown>>;
}

export interface Explanation {
  readonly destination: string;
  readonly operation: string;
  /** The destination whose second vendor it is; null = a route by itself. */
  readonly standsInFor: string | null;
  readonly purpose: string | null;
  readonly file: string | null;
  readonly line: number | null;
  readonly effect: Decision['effect'] | 'no match';
  readonly reason: string | null;
  /** The rule that decided. */
  readonly rule: string | null;
  readonly detail: string | null;
  /** ISO 8601; present when it is delayed. */
  readonly notBefore: string | null;
  readonly consent: Decision['consent'];
  /** What the condition of the route read. */
  readonly values: Readonly<Record<string, unknown>>;
  readonly looked: readonly LookedAt[];
  /** Fields of the record that go, stay, and go hashed or masked; empty unless it is allowed. */
  readonly sends: readonly string[];
  readonly withheld: readonly string[];
  readonly changed: readonly string[];
}

const maxText = 200;

/**
 * Why a record goes where it goes, under one policy: every route of it with every rule. Decides as `decide` does.
 *
 * @param revise what follows the rules: who knows a change of consent already, and who is not told of it
 */
export function explain(policy: CompiledPolicy, subject: Subject, context: DecisionContext, revise: (decisions: readonly Decision[]) => readonly Decision[] = (decisions) => decisions): { readonly region: string; readonly routes: readonly Explanation[] } {
  const looked = new Map<CompiledRoute, Map<CompiledRule, boolean | 'error'>>();
  const decisions = revise(decide(policy, subject, {
    ...context,
    looked(route, rule, result) {
      const found = looked.get(route) ?? new Map<CompiledRule, boolean | 'error'>();
      looked.set(route, found.set(rule, result));
    },
  }));
  const region = regionsOf(policy, subject).join(', ');
  const one = (plan: RoutePlan, decision: Decision | undefined, standsInFor: string | null): Explanation => explainRoute(policy, plan, decision, looked.get(plan.route), subject, context, region, standsInFor);
  const routes = (planOf(policy, subject.recordName)?.routes ?? []).flatMap((plan) => {
    const decision = decisions.find((d) => d.route === plan.route);
    const beside = decisions.filter(({ route }) => route?.destination === plan.route.destination && route.operation.startsWith(`${plan.route.operation} (`));
    return [one(plan, decision, null), ...beside.map((d) => one({ ...plan, route: d.route! }, d, null)), ...(plan.second === undefined ? [] : [one(plan.second, decision?.effect === 'allow' ? decision.second : undefined, plan.route.destination)])];
  });
  return { region, routes };
}

function explainRoute(policy: CompiledPolicy, plan: RoutePlan, decision: Decision | undefined, looked: ReadonlyMap<CompiledRule, boolean | 'error'> | undefined, subject: Subject, context: DecisionContext, region: string, standsInFor: string | null): Explanation {
  const { route } = plan;
  const values = (source: string | undefined) => valuesOf(source, route, subject, context, region);
  const here = new Set([...plan.steps, ...plan.transforms].map((step) => step.rule));
  const allowed = decision?.effect === 'allow' ? decision : undefined;
  const kept = allowed === undefined ? [] : Object.entries(allowed.minimiser.record(subject.record)).filter(([, value]) => isPresent(value)).map(([name]) => name);
  return {
    destination: route.destination, operation: route.operation, standsInFor, purpose: route.purpose ?? null, file: route.file ?? null, line: route.line ?? null,
    effect: decision?.effect ?? 'no match', reason: decision === undefined || decision.effect === 'allow' ? null : decision.reason, rule: decision?.rule ?? null,
    detail: decision?.effect === 'deny' ? decision.detail ?? null : null, notBefore: timeOf(allowed?.notBefore ?? null), consent: decision?.consent ?? [],
    values: values(route.when?.source),
    looked: route.kind === 'restrict' || decision === undefined ? [] : policy.rules.map((rule) => ({
      rule: rule.name, effect: rule.effect, file: rule.file, line: rule.line,
      result: !here.has(rule) ? 'elsewhere' : resultOf(looked?.get(rule)), values: here.has(rule) ? { ...values(rule.when?.source), ...values(rule.until?.source) } : {},
    })),
    sends: kept, withheld: allowed === undefined ? [] : allowed.minimiser.withheld.filter((name) => isPresent(valueAt(subject.record, name))), changed: allowed === undefined ? [] : allowed.minimiser.changed.filter((name) => kept.includes(name)),
  };
}

function resultOf(result: boolean | 'error' | undefined): LookedAt['result'] {
  if (result === undefined) return 'passed over';
  return result === 'error' ? 'failed' : result ? 'applies' : 'does not apply';
}

/** Of a field, or of `<field>.<key>` of a map. */
function valueAt(record: Readonly<Record<string, unknown>>, name: string): unknown {
  const dot = name.indexOf('.');
  return dot === -1 ? record[name] : (record[name.slice(0, dot)] as Readonly<Record<string, unknown>> | null)?.[name.slice(dot + 1)];
}

const isPresent = (value: unknown): boolean => value !== null && value !== undefined && (typeof value !== 'object' || Object.keys(value).length > 0);

function valuesOf(source: string | undefined, route: CompiledRoute, subject: Subject, context: DecisionContext, region: string): Record<string, unknown> {
  const found: Record<string, unknown> = {};
  if (source === undefined) return found;
  const reads = readsOf(source);
  for (const field of reads.fields === 'all' ? Object.keys(subject.record) : reads.fields) found[`record.${field}`] = printable(subject.record[field] ?? null);
  const names: Readonly<Record<string, unknown>> = { source: subject.source, destination: route.destination, operation: route.operation, purpose: route.purpose ?? '', channel: route.channel ?? '', topic: route.topic ?? '', region, now: new Date(context.now).toISOString() };
  for (const [name, value] of Object.entries(names)) if (reads.names.has(name)) found[name] = value;
  return found;
}

function printable(value: unknown): unknown {
  if (typeof value === 'string') return value.length > maxText ? `${value.slice(0, maxText)}…` : value;
  if (value === null || typeof value !== 'object') return value;
  const text = JSON.stringify(value);
  return text.length > maxText ? `${text.slice(0, maxText)}…` : value;
}

const timeOf = (ms: number | null): string | null => (ms === null ? null : new Date(ms).toISOString());
