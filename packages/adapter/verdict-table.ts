import type { ErrorCode } from '@weir/errors';
import { parseJson } from './json.ts';
import { compilePattern, dottedPath, valueAt } from './text.ts';
import type { Effect, HttpResponse, Json, JsonObject, Verdict } from './types.ts';
import { classifyStatus, retryAfterMs } from './verdicts.ts';

/** What an answer is told by, as data; every part that is given must hold. Patterns are RE2. */
export interface AnswerSpec {
  /** `404`, `5xx`, `*` (the default). */
  readonly status?: string;
  /** One header and a pattern; an absent header is empty. */
  readonly header?: Readonly<Record<string, string>>;
  /** Pattern over the first 64 KiB of the body. */
  readonly body?: string;
  /** One dotted path into the JSON body, such as `errors.0.code`, and a pattern over the whole of its value; an absent value is empty. */
  readonly code?: Readonly<Record<string, string>>;
}

/** One line of a vendor's verdict table. */
export interface VerdictSpec extends AnswerSpec {
  readonly verdict: Verdict['kind'];
  /** Whether the call may have been applied. Default: ok is done, everything else maybe. */
  readonly effect?: Effect;
  /** With `permanent` and effect none: the reason is the vendor's (a plan that ended, an API that is gone), not this delivery's, so the second vendor of a route may take it. */
  readonly vendorSide?: boolean;
  /** Where the answer says how long to wait, where that is not Retry-After. */
  readonly retryAfter?: { readonly header?: string; readonly path?: string; readonly unit?: 'seconds' | 'milliseconds' };
}

type Fail = (path: string, message: string) => never;
type Test = { test(text: string): boolean };

/** An answer as the rules look at it: the body is decoded at most once, whatever the number of rules. */
export interface Answer {
  readonly response: HttpResponse;
  text(): string;
  /** Undefined when the body is no JSON, or more than 1 MiB. */
  json(): Json | undefined;
}

const patternBytes = 64 * 1024;
const jsonBytes = 1024 * 1024;

export function answerOf(response: HttpResponse): Answer {
  let text: string | undefined;
  let parsed: { readonly json: Json | undefined } | undefined;
  return {
    response,
    text: () => (text ??= response.body.toString('utf8', 0, patternBytes)),
    json: () => (parsed ??= { json: parse(response.body) }).json,
  };
}

function parse(body: Buffer): Json | undefined {
  if (body.length === 0 || body.length > jsonBytes) return undefined;
  try {
    return parseJson(body);
  } catch (error) {
    // The vendor's answer is not ours to refuse: what is no JSON has no values.
    if ((error as { code?: string }).code?.startsWith('body-') !== true) throw error;
    return undefined;
  }
}

export interface AnswerRule {
  matches(answer: Answer): boolean;
}

const answerKeys = ['status', 'header', 'body', 'code'] as const;

function onlyEntry(value: Json | undefined, fail: Fail, what: string): [name: string, pattern: string] | undefined {
  if (value === undefined) return undefined;
  const entries = value !== null && typeof value === 'object' && !Array.isArray(value) ? Object.entries(value) : [];
  return entries.length === 1 ? [entries[0]![0], String(entries[0]![1])] : fail('', `write ${what}`);
}

/** A value as text: what JSON has as null or not at all is empty. */
const asText = (value: Json | undefined): string => (value === undefined || value === null ? '' : typeof value === 'object' ? JSON.stringify(value) : String(value));

/** Compiles the parts of a rule that look at the answer. Throws through `fail` with the path of the bad part. */
export function compileAnswer(rule: JsonObject, fail: Fail): AnswerRule {
  const status = String(rule['status'] ?? '*');
  if (!/^(\*|[1-5]xx|[1-5]\d\d)$/.test(status)) fail('.status', 'use 404, 5xx or *');
  const family = status.endsWith('xx') ? Number(status[0]) : undefined;
  const header = onlyEntry(rule['header'], (path, message) => fail(`.header${path}`, message), 'header: { name: pattern }');
  const code = onlyEntry(rule['code'], (path, message) => fail(`.code${path}`, message), 'code: { dotted.path: pattern }');
  if (code !== undefined && !new RegExp(dottedPath).test(code[0])) fail('.code', 'a path is written errors.0.code');
  const tests: ((answer: Answer) => boolean)[] = [];
  if (status !== '*') tests.push(({ response }) => (family === undefined ? response.status === Number(status) : Math.floor(response.status / 100) === family));
  if (header !== undefined) {
    const [name, pattern]: [string, Test] = [header[0].toLowerCase(), compilePattern(header[1])];
    tests.push(({ response }) => pattern.test(response.headers[name] ?? ''));
  }
  if (code !== undefined) {
    const pattern = compilePattern(`^(?:${code[1]})$`);
    tests.push((answer) => pattern.test(asText(valueAt(answer.json(), code[0]))));
  }
  if (rule['body'] !== undefined) {
    const pattern = compilePattern(String(rule['body']));
    tests.push((answer) => pattern.test(answer.text()));
  }
  return { matches: (answer) => tests.every((t) => t(answer)) };
}

interface VerdictRule extends AnswerRule {
  readonly verdict: Verdict['kind'];
  readonly effect: Effect;
  readonly vendorSide: boolean;
  retryAfterMs(answer: Answer): number | undefined;
}

const kinds: readonly Verdict['kind'][] = ['ok', 'retry', 'throttled', 'permanent', 'auth-broken'];
const effects: readonly Effect[] = ['none', 'maybe', 'done'];
const keys = [...answerKeys, 'verdict', 'effect', 'vendorSide', 'retryAfter'];
const codes: Record<Exclude<Verdict['kind'], 'ok'>, ErrorCode> = { retry: 'vendor-unavailable', throttled: 'vendor-throttled', permanent: 'delivery-rejected', 'auth-broken': 'credential-rejected' };

function compileRetryAfter(value: Json | undefined, fail: Fail): VerdictRule['retryAfterMs'] {
  if (value === undefined) return ({ response }) => retryAfterMs(response.headers);
  const spec: JsonObject = value !== null && typeof value === 'object' && !Array.isArray(value) ? value : fail('', 'write retryAfter: { header: name } or { path: dotted.path }');
  const { header, path, unit = 'seconds' } = spec;
  if ((typeof header === 'string') === (typeof path === 'string')) fail('', 'give either header or path');
  if (unit !== 'seconds' && unit !== 'milliseconds') fail('.unit', 'use seconds or milliseconds');
  if (typeof path === 'string' && !new RegExp(dottedPath).test(path)) fail('.path', 'a path is written error.retry_after');
  return (answer) => {
    const text = typeof header === 'string' ? answer.response.headers[header.toLowerCase()] ?? '' : asText(valueAt(answer.json(), String(path)));
    return /^\d{1,15}(\.\d{1,9})?$/.test(text) ? Math.ceil(Number(text) * (unit === 'seconds' ? 1000 : 1)) : undefined;
  };
}

function compileRule(entry: Json, fail: Fail): VerdictRule {
  const rule: JsonObject = entry !== null && typeof entry === 'object' && !Array.isArray(entry) ? entry : fail('', 'expected a table');
  for (const key of Object.keys(rule)) if (!keys.includes(key)) fail(`.${key}`, `unknown key, use ${keys.join(', ')}`);
  const answer = compileAnswer(rule, fail);
  const verdict = kinds.find((k) => k === rule['verdict']) ?? fail('.verdict', `use ${kinds.join(', ')}`);
  const effect = effects.find((e) => e === (rule['effect'] ?? (verdict === 'ok' ? 'done' : 'maybe'))) ?? fail('.effect', `use ${effects.join(', ')}`);
  if (verdict === 'ok' && effect !== 'done') fail('.effect', 'ok means done');
  if (verdict !== 'ok' && verdict !== 'permanent' && effect === 'done') fail('.effect', `what is done is not tried again: use ok, or another verdict than ${verdict}`);
  const vendorSide = rule['vendorSide'] ?? false;
  if (typeof vendorSide !== 'boolean' || (vendorSide && (verdict !== 'permanent' || effect !== 'none'))) fail('.vendorSide', 'true or false, and true only with verdict: permanent and effect: none');
  return { matches: answer.matches, verdict, effect, vendorSide: vendorSide === true, retryAfterMs: compileRetryAfter(rule['retryAfter'], (path, message) => fail(`.retryAfter${path}`, message)) };
}

/** A vendor's verdict table. */
export interface VerdictTable {
  /** The first rule that matches, else what the status means by itself. `detail` goes into the trace and the dead letter. */
  verdict(response: HttpResponse, detail?: string): Verdict;
}

/** Compiles a table from an adapter's manifest or from YAML. Throws through `fail` (workspace-invalid) with the path of the bad rule. */
export function compileVerdicts(value: Json | readonly VerdictSpec[] | undefined, fail: Fail): VerdictTable {
  if (value !== undefined && !Array.isArray(value)) fail('', 'expected a list');
  const rules = ((value ?? []) as readonly Json[]).map((entry, i) => compileRule(entry, (path, message) => fail(`.${i}${path}`, message)));
  return {
    verdict(response, detail = `HTTP ${response.status}`) {
      if (rules.length === 0) return classifyStatus(response, detail);
      const answer = answerOf(response);
      const rule = rules.find((r) => r.matches(answer));
      if (rule === undefined) return classifyStatus(response, detail);
      if (rule.verdict === 'ok') return { kind: 'ok', effect: 'done' };
      if (rule.verdict === 'permanent') return { kind: 'permanent', effect: rule.effect, code: codes.permanent, detail, ...(rule.vendorSide ? { vendorSide: true } : {}) };
      return { kind: rule.verdict, effect: rule.effect as 'none' | 'maybe', code: codes[rule.verdict], retryAfterMs: rule.retryAfterMs(answer), detail };
    },
  };
}
