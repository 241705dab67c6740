import { classifyStatus, compilePattern, type Effect, type HttpResponse, type Json, type JsonObject, type Verdict } from '@weir/adapter';
import type { ErrorCode } from '@weir/errors';

type Kind = Verdict['kind'];

/** A line of the verdict table: every part that is given must hold. */
export interface VerdictRule {
  /** `404`, `5xx`, `*`. */
  readonly status: string;
  /** Pattern over a header of the answer, absent headers being empty. */
  readonly header: { readonly name: string; readonly pattern: { test(text: string): boolean } } | undefined;
  /** Pattern over the first 64 KiB of the body. */
  readonly body: { test(text: string): boolean } | undefined;
  readonly verdict: Kind;
  readonly effect: Effect;
}

const kinds: readonly Kind[] = ['ok', 'retry', 'throttled', 'permanent', 'auth-broken'];
const effects: readonly Effect[] = ['none', 'maybe', 'done'];
const keys = new Set(['status', 'header', 'body', 'verdict', 'effect']);
const codes: Record<Exclude<Kind, 'ok'>, ErrorCode> = { retry: 'vendor-unavailable', throttled: 'vendor-throttled', permanent: 'delivery-rejected', 'auth-broken': 'credential-rejected' };
const bodyBytes = 64 * 1024;

function compileRule(entry: Json, fail: (path: string, message: string) => never): VerdictRule {
  const rule: JsonObject = entry !== null && typeof entry === 'object' && !Array.isArray(entry) ? entry : fail('', 'expected a table');
  for (const key of Object.keys(rule)) if (!keys.has(key)) fail(`.${key}`, `unknown key, use ${[...keys].join(', ')}`);
  const status = String(rule['status'] ?? '*');
  if (!/^(\*|[1-5]xx|[1-5]\d\d)$/.test(status)) fail('.status', 'use 404, 5xx or *');
  const verdict = kinds.find((k) => k === rule['verdict']) ?? fail('.verdict', `use ${kinds.join(', ')}`);
  const effect = effects.find((e) => e === (rule['effect'] ?? (verdict === 'ok' ? 'done' : 'maybe'))) ?? fail('.effect', `use ${effects.join(', ')}`);
  if (verdict === 'ok' && effect !== 'done') fail('.effect', 'ok means done');
  if (verdict !== 'ok' && verdict !== 'permanent' && effect === 'done') fail('.effect', `what is done is not tried again: use ok, or another verdict than ${verdict}`);
  const header = rule['header'];
  if (header !== undefined && (header === null || typeof header !== 'object' || Array.isArray(header) || Object.keys(header).length !== 1)) fail('.header', 'write header: { name: pattern }');
  const [[name, pattern] = []] = Object.entries((header as JsonObject | undefined) ?? {});
  return { status, verdict, effect, header: name === undefined ? undefined : { name: name.toLowerCase(), pattern: compilePattern(String(pattern)) }, body: rule['body'] === undefined ? undefined : compilePattern(String(rule['body'])) };
}

/** `verdicts:` of an operation. Throws workspace-invalid through `fail` with the path of the bad rule. */
export function compileVerdicts(value: Json | undefined, fail: (path: string, message: string) => never): VerdictRule[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) return fail('', 'expected a list');
  return value.map((entry, i) => compileRule(entry, (path, message) => fail(`.${i}${path}`, message)));
}

function matches(rule: VerdictRule, response: HttpResponse): boolean {
  if (rule.status !== '*' && (rule.status.endsWith('xx') ? Math.floor(response.status / 100) !== Number(rule.status[0]) : Number(rule.status) !== response.status)) return false;
  if (rule.header !== undefined && !rule.header.pattern.test(response.headers[rule.header.name] ?? '')) return false;
  return rule.body === undefined || rule.body.test(response.body.toString('utf8', 0, bodyBytes));
}

/** The first rule that matches, else what the status means by itself. */
export function verdictOf(rules: readonly VerdictRule[], response: HttpResponse): Verdict {
  const rule = rules.find((r) => matches(r, response));
  const usual = classifyStatus(response);
  if (rule === undefined) return usual;
  if (rule.verdict === 'ok') return { kind: 'ok', effect: 'done' };
  const detail = `HTTP ${response.status}`;
  if (rule.verdict === 'permanent') return { kind: 'permanent', effect: rule.effect, code: codes.permanent, detail };
  return { kind: rule.verdict, effect: rule.effect as 'none' | 'maybe', code: codes[rule.verdict], retryAfterMs: 'retryAfterMs' in usual ? usual.retryAfterMs : undefined, detail };
}
