import { WorkspaceError } from '@weir/errors';
import { loadSchemas } from '@weir/schemas';
import { parseYaml } from '@weir/yaml';
import avsc from 'avsc';
import { expect, test } from 'vitest';
import { restrictFields } from './classes.ts';
import { compilePurposes, compileRoutes, type CompiledPolicy, type CompiledRoute } from './compile.ts';
import { decide, type DecisionContext, type Subject } from './decide.ts';
import { explain } from './explain.ts';
import { createLimits } from './limits.ts';
import { quietUntil } from './quiet.ts';
import { compileRules } from './rules.ts';

const purposes = compilePurposes({ path: 'purposes.yaml', content: 'purposes:\n  news: { legalBasis: consent, doc: News. }\n  service: { legalBasis: contract, doc: Service. }\n' });
const operations = { send: { kind: 'use', accepts: ['weir.canonical.Profile'] }, stop: { kind: 'restrict', accepts: ['weir.canonical.Profile'] } } as const;

function routesOf(lines: readonly string[], problems: unknown[] = []): readonly CompiledRoute[] {
  const file = { path: 'destinations/crm.yaml', content: `routes:\n${lines.map((l) => `  - ${l}\n`).join('')}` };
  const yaml = parseYaml(file);
  return compileRoutes((yaml.value as { routes: never }).routes, 'crm', operations, purposes, file, yaml, problems as never[]);
}
function policyOf(rules: string, ...routes: string[]): CompiledPolicy {
  const problems: unknown[] = [];
  const list = routesOf(routes.length > 0 ? routes : ['{ on: Profile, operation: send, purpose: news, channel: email }'], problems);
  expect(problems).toEqual([]);
  return { purposes, rules: compileRules({ path: 'policies/a.yaml', content: `rules:\n${rules}` }, purposes), routes: new Map([['Profile', list]]) };
}

/** As the stage gets it: decoded from Avro bytes, not an object of the test. */
const profileType = avsc.Type.forSchema(loadSchemas().get('weir.canonical.Profile') as avsc.Schema);
const profile = (fields: Record<string, unknown>) => profileType.fromBuffer(profileType.toBuffer(profileType.clone({ id: 'o', source: 'shop', occurredAt: 5, ...fields }, { wrapUnions: false }))) as Record<string, unknown>;
const subject = (over: Partial<Subject> = {}): Subject => ({ recordName: 'Profile', record: profile({ email: 'a@b.c', balance: 500, attributes: { tier: 'gold' } }), source: 'shop', key: 'email:x', ids: ['email:x'], eventId: 'evt_1', acceptedAt: 1000, ...over });
const context = (over: Partial<DecisionContext> = {}): DecisionContext => ({ now: 1_000_000, consent: () => ({ ok: true, seen: [] }), take: () => true, ...over });
const one = (policy: CompiledPolicy, s = subject(), c = context()) => {
  const [decision] = decide(policy, s, c);
  return decision!.effect === 'allow' ? 'allow' : decision!.reason;
};
const allow = '  - { name: all, effect: allow }\n';

test.each([
  ['nothing is allowed by default', '  - { name: no, effect: deny, when: "false" }\n', 'no-allow-rule'],
  ['deny wins, also before the allow rule', `  - { name: no, effect: deny }\n${allow}`, 'rule:no'],
  ['deny wins, also after the allow rule', `${allow}  - { name: no, effect: deny }\n`, 'rule:no'],
  ['a field of a decoded record can be asked', '  - { name: a, effect: allow, when: record.email.endsWith("@b.c") && record.attributes.tier == "gold" }\n', 'allow'],
  ['whole numbers are ints', '  - { name: a, effect: allow, when: record.balance + 1 == 501 && record.occurredAt == 5 }\n', 'allow'],
  ['a field of another type is null', '  - { name: a, effect: allow, when: record.orderId == null }\n', 'allow'],
  ['route and event can be asked', '  - { name: a, effect: allow, when: channel == "email" && topic == "" && destination == "crm" && meta.acceptedAt == 1000 && meta.eventId == "evt_1" && meta.hour == 0 }\n', 'allow'],
  ['a deny rule that fails denies', `${allow}  - { name: bad, effect: deny, when: record.phone.startsWith("+") }\n`, 'policy-error'],
  ['an allow rule that fails allows nothing', '  - { name: bad, effect: allow, when: record.phone.startsWith("+") }\n', 'policy-error'],
  ['an allow rule that fails does not stop another', `  - { name: bad, effect: allow, when: record.phone.startsWith("+") }\n${allow}`, 'allow'],
  ['a delay far ahead is an error', `${allow}  - { name: later, effect: delay, until: now + 864000000 }\n`, 'policy-error'],
  ['a purpose on a rule restricts it', '  - { name: a, effect: allow, purpose: service }\n', 'no-allow-rule'],
])('%s', (_name, rules, expected) => {
  expect(one(policyOf(rules))).toBe(expected);
});

test('what is said of a condition that fails names rule and line, and has no value of the record', () => {
  const person = subject({ record: profile({ email: 'ada@Zq7Marker.example', attributes: { Zq7Marker: 'Zq7Marker' } }) });
  const failing = ['bool(record.email)', 'duration(record.email) == duration("1s")', 'record.attributes[record.email] == "x"', 'timestamp(record.email) > timestamp(0)', 'timestamp(0).getHours(record.email) == 1', 'bytes(record.email).json().a == 1'];
  for (const when of failing) {
    for (const rules of [`  - { name: bad, effect: allow, when: '${when}' }\n`, `${allow}  - { name: bad, effect: deny, when: '${when}' }\n`, `${allow}  - { name: bad, effect: minimise, fields: [phone], when: '${when}' }\n`]) {
      const decisions = decide(policyOf(rules), person, context());
      expect(decisions).toMatchObject([{ reason: 'policy-error', detail: expect.stringMatching(/^the condition of rule bad failed \(policies\/a.yaml:[23]\)$/) }]);
      expect(JSON.stringify(decisions)).not.toContain('Zq7Marker');
    }
    const onRoute = decide(policyOf(allow, `{ on: Profile, operation: send, purpose: news, channel: email, when: '${when}' }`), person, context());
    expect(onRoute).toMatchObject([{ reason: 'policy-error', detail: expect.stringContaining('the condition of the route failed') }]);
    expect(JSON.stringify(onRoute)).not.toContain('Zq7Marker');
  }
});

test('without an identifier nobody can be asked, too many are too wide, and no route is one outcome', () => {
  const policy = policyOf(allow);
  expect(one(policy, subject({ ids: [] }))).toBe('subject-unidentified');
  expect(one(policy, subject({ ids: undefined }))).toBe('identity-too-wide');
  expect(decide(policy, subject({ recordName: 'Order' }), context())).toEqual([expect.objectContaining({ reason: 'no-route', route: undefined })]);
});

test('restrict passes whatever the rules, consent, limits and a failing condition say', () => {
  const policy = policyOf('  - { name: no, effect: deny }\n', '{ on: Profile, operation: stop, when: record.phone.startsWith("+") }');
  expect(decide(policy, subject({ ids: undefined }), context({ consent: () => ({ ok: false, reason: 'consent-withdrawn', seen: [] }), take: () => false }))).toEqual([expect.objectContaining({ effect: 'allow', rule: 'restrict', notBefore: null })]);
});

test('one delivery per operation: of its routes the first that matches decides', () => {
  const policy = policyOf(allow, '{ on: Profile, operation: send, purpose: news, when: record.email == null }', '{ on: Profile, operation: send, purpose: service }', '{ on: Profile, operation: send, purpose: news }');
  expect(decide(policy, subject(), context()).map((d) => d.route!.purpose)).toEqual(['service']);
});

test('consent is asked once for each use of a record, and no route gets the answer of another purpose, channel, topic or record', () => {
  const uses = ['purpose: news', 'purpose: news, channel: email', 'purpose: news, channel: email, topic: a', 'purpose: news, topic: a', 'purpose: service'];
  const routes = uses.flatMap((use, i) => routesOf([`{ on: Profile, operation: send, ${use} }`]).flatMap((route) => [{ ...route, destination: `first-${i}` }, { ...route, destination: `again-${i}` }]));
  const policy: CompiledPolicy = { ...policyOf(allow), routes: new Map([['Profile', routes]]) };
  const use = ({ purpose, channel, topic }: CompiledRoute): string => `${purpose}/${channel}/${topic}`;
  for (const id of ['email:x', 'email:y']) {
    const asked: string[] = [];
    const decisions = decide(policy, subject({ ids: [id] }), context({ consent: (ids, route) => {
      asked.push(use(route));
      return { ok: false, reason: `${ids.join()} ${use(route)}`, seen: [] };
    } }));
    expect(asked).toEqual([...new Set(routes.map(use))]);
    expect(decisions.map((d) => d.effect === 'deny' && d.reason)).toEqual(routes.map((route) => `${id} ${use(route)}`));
  }
});

test('delays give the latest time, and limits refuse by name', () => {
  const policy = policyOf(`${allow}  - { name: a, effect: delay, until: now + 5000 }\n  - { name: b, effect: delay, until: now + 9000 }\n  - { name: c, effect: delay, until: now - 1 }\n`);
  expect(decide(policy, subject(), context())[0]).toMatchObject({ notBefore: 1_009_000 });
  const limited = policyOf(`${allow}  - { name: cap, effect: limit, limit: { count: 2, per: 1m } }\n`);
  const { take } = createLimits();
  expect([1, 2, 3].map(() => one(limited, subject(), context({ take })))).toEqual(['allow', 'allow', 'limit:cap']);
  expect(one(limited, subject({ key: 'email:y' }), context({ take }))).toBe('allow');
  expect(one(limited, subject(), context({ take, now: 1_060_000 }))).toBe('allow');
});

const limitRule = (by: string, count: number) => compileRules({ path: 'p.yaml', content: `rules: [ { name: l, effect: limit, limit: { count: ${count}, per: 1m, by: ${by} } } ]` }, purposes)[0]!;

test('a limit by destination is divided over the partitions and never passed', () => {
  for (const count of [1, 5, 6, 7, 20]) {
    const takes = Array.from({ length: 6 }, (_, partition) => createLimits(1000, { partition, partitions: 6 }).take);
    expect(takes.reduce((sum, take) => sum + Array.from({ length: 50 }, () => take(limitRule('destination', count), 'crm', 0)).filter(Boolean).length, 0)).toBe(count);
  }
});

test('when memory for counters is used up, unknown keys are refused and known ones go on', () => {
  const { take } = createLimits(2);
  const rule = limitRule('subject', 2);
  expect(['a', 'b', 'c', 'a', 'a'].map((key) => take(rule, key, 0))).toEqual([true, true, false, true, false]);
  expect(take(rule, 'c', 60_000)).toBe(true);
});

test('windows that have ended make room for keys of other rules, also those of a rule that nothing asks any more', () => {
  const rule = (name: string, per: string) => compileRules({ path: 'p.yaml', content: `rules: [ { name: ${name}, effect: limit, limit: { count: 1, per: ${per} } } ]` }, purposes)[0]!;
  const [a, b] = [rule('a', '1h'), rule('b', '1s')];
  const { take, restore } = createLimits(2);
  expect([take(b, 'x', 0), take(b, 'y', 0), take(a, 'z', 500), take(a, 'z', 10_000)]).toEqual([true, true, false, true]);
  // What is restored finds the same room.
  expect([take(b, 'x', 10_000), take(b, 'y', 10_000)]).toEqual([true, false]);
  restore(a, 'w', 11_000, 12_000);
  expect(take(a, 'w', 12_000)).toBe(false);
});

test('to ask takes no slot, and one that was given back is free', () => {
  const rule = limitRule('subject', 1);
  const { take, has, giveBack } = createLimits(1);
  expect([has(rule, 'a', 0), has(rule, 'a', 0), take(rule, 'a', 0), has(rule, 'a', 0), has(rule, 'b', 0)]).toEqual([true, true, true, false, false]);
  giveBack(rule, 'a', 0);
  giveBack(rule, 'a', 0);
  expect([has(rule, 'b', 0), take(rule, 'b', 0), take(rule, 'a', 0)]).toEqual([true, true, false]);
});

test('what one limit refuses takes nothing of another', () => {
  const policy = policyOf(`${allow}  - { name: a, effect: limit, limit: { count: 2, per: 1m } }\n  - { name: b, effect: limit, limit: { count: 1, per: 1m } }\n`);
  const { take, has } = createLimits();
  expect([1, 2, 3].map(() => one(policy, subject(), context({ take, has })))).toEqual(['allow', 'limit:b', 'limit:b']);
  const a = policy.rules.find(({ name }) => name === 'a')!;
  expect([take(a, 'email:x', 1_000_000), take(a, 'email:x', 1_000_000)]).toEqual([true, false]);
});

test('slots that were taken before count in their window, and only there', () => {
  const rule = limitRule('subject', 2);
  const { take, restore } = createLimits(2);
  restore(rule, 'a', 59_999, 60_000);
  restore(rule, 'a', 60_000, 70_000);
  restore(rule, 'b', 119_999, 70_000);
  restore(rule, 'b', 61_000, 70_000);
  restore(rule, 'c', 61_000, 70_000);
  expect(['a', 'a', 'b', 'c'].map((key) => take(rule, key, 70_000))).toEqual([true, false, false, false]);
  expect(take(rule, 'c', 120_000)).toBe(true);
});

test('an allowed decision names the limits that counted it', () => {
  const policy = policyOf(`${allow}  - { name: a, effect: limit, limit: { count: 2, per: 1m } }\n  - { name: b, effect: limit, when: destination == "elsewhere", limit: { count: 2, per: 1m } }\n`);
  expect(decide(policy, subject(), context())[0]).toMatchObject({ effect: 'allow', limits: ['a'] });
  expect(decide(policyOf(allow), subject(), context())[0]).not.toHaveProperty('limits');
});

const berlin = { from: 21 * 60, to: 8 * 60, timezone: 'Europe/Berlin' };
test.each([
  ['2026-01-15T22:00:00Z', '2026-01-16T07:00:00.000Z'],
  ['2026-07-15T19:30:00Z', '2026-07-16T06:00:00.000Z'],
  ['2026-03-28T22:00:00Z', '2026-03-29T06:00:00.000Z'],
  ['2026-10-24T20:00:00Z', '2026-10-25T07:00:00.000Z'],
  ['2026-01-15T12:00:00Z', undefined],
])('quiet hours end at the local time, also over a change of the clocks: %s', (now, end) => {
  const until = quietUntil(berlin, Date.parse(now));
  expect(until === undefined ? undefined : new Date(until).toISOString()).toBe(end);
});

test('the zone of the record is taken, and one that does not exist falls back', () => {
  const policy = policyOf(`${allow}  - { name: quiet, effect: delay, quietHours: { from: "21:00", to: "08:00", timezone: Europe/Berlin, timezoneField: timezone } }\n`);
  const at = (timezone: string | null) => (decide(policy, subject({ record: profile({ timezone }) }), context({ now: Date.parse('2026-01-15T22:00:00Z') }))[0] as { notBefore: number | null }).notBefore;
  expect(at('America/New_York')).toBeNull();
  expect(at('Mars/Base')).toBe(Date.parse('2026-01-16T07:00:00Z'));
  expect(at(null)).toBe(Date.parse('2026-01-16T07:00:00Z'));
});

test.each([
  ['an unknown purpose', '  - { name: a, effect: allow, purpose: nope }\n', /unknown purpose nope/],
  ['a type error', '  - { name: a, effect: allow, when: now + "x" == 1 }\n', /CEL/],
  ['an unknown field', '  - { name: a, effect: allow, when: record.emial != null }\n', /emial/],
  ['a regular expression that backtracks', '  - { name: a, effect: allow, when: "record.email.matches(\\"(a+)+$\\")" }\n', /use re/],
  ['an endless expression', `  - { name: a, effect: allow, when: '${Array(300).fill('now > 1').join(' && ')}' }\n`, /longer|nodes/i],
  ['a rule without a name', '  - { effect: allow }\n', /needs a name/],
  ['the same name twice', `${allow}${allow}`, /already/],
  ['the taken name', '  - { name: restrict, effect: allow }\n', /taken/],
  ['a delay of neither kind', '  - { name: a, effect: delay }\n', /either/],
  ['an unknown key', '  - { name: a, effect: allow, wehn: "true" }\n', /wehn/],
])('%s is named with its line', (_name, rules, message) => {
  const lines = `rules:\n${rules}`;
  try {
    compileRules({ path: 'policies/a.yaml', content: lines }, purposes);
  } catch (error) {
    expect(error).toBeInstanceOf(WorkspaceError);
    expect((error as WorkspaceError).problems[0]).toMatchObject({ file: 'policies/a.yaml', line: expect.any(Number), message: expect.stringMatching(message) });
    expect((error as WorkspaceError).problems[0]!.line).toBeGreaterThan(1);
    return;
  }
  throw new Error('it compiled');
});

test('a route names an operation that exists, also when it is called constructor, and a purpose for a use', () => {
  const problems: { message: string; line: number }[] = [];
  routesOf(['{ on: Profile, operation: constructor, purpose: news }', '{ on: Profile, operation: send }', '{ on: Profile, operation: send, purpose: nope }', '{ on: Profile, operation: send, purpose: news, when: record.orderId == "1" }'], problems);
  expect(problems.map((p) => p.line)).toEqual([2, 3, 4, 5]);
});

/** The policy with a second vendor on its route. */
function pairOf(rules: string): CompiledPolicy {
  const policy = policyOf(rules);
  const [route] = policy.routes.get('Profile')!;
  return { ...policy, routes: new Map([['Profile', [{ ...route!, second: { ...route!, destination: 'crm-two' } }]]]) };
}
const second = (policy: CompiledPolicy, s = subject(), c = context()): string => {
  const [decision] = decide(policy, s, c);
  const { second: other } = decision as Extract<typeof decision, { effect: 'allow' }>;
  return other === undefined ? 'none' : other.effect === 'allow' ? 'allow' : other.reason;
};

test.each([
  ['as the first', allow, 'allow'],
  ['denied where a rule speaks of it alone', `${allow}  - { name: not-there, effect: deny, when: destination == "crm-two" }\n`, 'rule:not-there'],
  ['held where a rule speaks of it alone', `${allow}  - { name: ask, effect: require-approval, when: destination == "crm-two" }\n`, 'approval:ask'],
  ['closed where only the first is allowed', '  - { name: one, effect: allow, when: destination == "crm" }\n', 'no-allow-rule'],
  ['counted with the first where a limit counts people', `${allow}  - { name: few, effect: limit, limit: { count: 1, per: 1d, by: subject } }\n`, 'allow'],
  ['closed where a limit counts destinations', `${allow}  - { name: few, effect: limit, limit: { count: 9, per: 1d, by: destination } }\n`, 'limit:few'],
  ['closed where a limit counts at the second alone', `${allow}  - { name: few, effect: limit, when: destination == "crm-two", limit: { count: 9, per: 1d, by: subject } }\n`, 'limit:few'],
])('the second vendor is decided by the rules: %s', (_name, rules, expected) => {
  expect(second(pairOf(rules))).toBe(expected);
});

test('the second vendor takes no token of a limit, is not decided where the first is closed, and not by an approval for the first', () => {
  const policy = pairOf(`${allow}  - { name: few, effect: limit, limit: { count: 9, per: 1d, by: subject } }\n`);
  let taken = 0;
  expect(second(policy, subject(), context({ take: () => ++taken > 0 }))).toBe('allow');
  expect(taken).toBe(1);
  expect(decide(policy, subject(), context({ consent: () => ({ ok: false, reason: 'consent-missing', seen: [] }) }))).toEqual([expect.objectContaining({ effect: 'deny', reason: 'consent-missing' })]);
  expect(second(policy, subject({ approval: { destination: 'crm', operation: 'send', rules: [] } }))).toBe('none');
});

test('an explanation has the second vendor beside its first', () => {
  const { routes } = explain(pairOf(`${allow}  - { name: not-there, effect: deny, when: destination == "crm-two" }\n`), subject(), context());
  expect(routes.map((r) => [r.destination, r.standsInFor, r.effect, r.reason])).toEqual([['crm', null, 'allow', null], ['crm-two', 'crm', 'deny', 'rule:not-there']]);
  expect(routes[1]!.looked.find((l) => l.rule === 'not-there')?.result).toBe('applies');
});

test.each(['channel:', 'channel: [email, sms]', 'channel: { is: email }', 'channel: "  "', 'channel: true', 'topic:', 'topic: [a]'])('a route whose %s is no text is refused: nobody could say no to what it would be made into', (part) => {
  const problems: { readonly message: string }[] = [];
  routesOf([`{ on: Profile, operation: send, purpose: news, ${part} }`], problems);
  expect(problems).toEqual([expect.objectContaining({ message: expect.stringContaining('expected a text'), remedy: expect.stringContaining('leave') })]);
});

test('a topic may be a number', () => {
  expect(routesOf(['{ on: Profile, operation: send, purpose: news, topic: 42 }'])[0]!.topic).toBe('42');
});

test.each(['ConsentChange', 'ConsentApplied'])('%s is told whole: a yes to one channel or topic without it is a yes to all', (name) => {
  expect([...restrictFields(name)]).toEqual(expect.arrayContaining(['purpose', 'channel', 'topic', 'state', 'email']));
  expect(restrictFields(name).has('extras')).toBe(false);
});
