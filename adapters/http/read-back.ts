import { answerOf, classifyFailure, classifyStatus, compileAnswer, compileTemplate, compileUrlTemplate, dottedPath, valueAt, type Answer, type AnswerRule, type HttpFailure, type HttpResponse, type Json, type JsonObject, type OperationManifest, type ReadBack, type ReadBackManifest, type Scope, type Template, type TemplateContext } from '@weir/adapter';

/** `verify:` of an operation, compiled: how the vendor is asked whether a delivery took effect, and what its answer means. */
export interface HttpReadBack {
  readonly manifest: ReadBackManifest;
  readonly method: 'GET' | 'POST';
  readonly path: (scope: Scope) => string;
  readonly headers: ReadonlyArray<readonly [name: string, value: Template]>;
  readonly body: Template | undefined;
  /** The first rule that matches counts. */
  readonly answers: readonly AnswerLine[];
}

interface AnswerLine extends AnswerRule {
  readonly answer: 'applied' | 'not-applied' | 'unknown';
  /** Values of the JSON answer, by dotted path, and what they must be. */
  readonly equals: ReadonlyArray<readonly [path: string, value: Template]>;
}

interface Compiling {
  readonly path: string;
  fail(path: string, message: string): never;
  table(value: Json | undefined, path: string): JsonObject;
  duration(value: Json | undefined, path: string): number | undefined;
  limit(value: Json | undefined, path: string): OperationManifest['limit'];
  headers(value: Json | undefined, path: string): HttpReadBack['headers'];
  context(path: string): TemplateContext;
}

const keys = new Set(['method', 'path', 'headers', 'body', 'answers', 'settle', 'limit', 'timeout', 'cite']);
const answers = ['applied', 'not-applied', 'unknown'] as const;
const lineKeys = new Set(['status', 'header', 'body', 'code', 'equals', 'answer']);

function compileLine(entry: Json, path: string, with_: Compiling): AnswerLine {
  const line = with_.table(entry, path);
  for (const key of Object.keys(line)) if (!lineKeys.has(key)) with_.fail(`${path}.${key}`, `unknown key, use ${[...lineKeys].join(', ')}`);
  const answer = answers.find((a) => a === line['answer']) ?? with_.fail(`${path}.answer`, `use ${answers.join(', ')}`);
  const equals = Object.entries(line['equals'] === undefined ? {} : with_.table(line['equals'], `${path}.equals`)).map(([at, value]) => {
    if (!new RegExp(dottedPath).test(at)) with_.fail(`${path}.equals`, 'a path is written data.0.email');
    return [at, compileTemplate(value, with_.context(`${path}.equals.${at}`))] as const;
  });
  return { ...compileAnswer(line, (at, message) => with_.fail(`${path}${at}`, message)), answer, equals };
}

/** Throws workspace-invalid with the path of the bad part. */
export function compileReadBack(value: Json | undefined, with_: Compiling): HttpReadBack | undefined {
  if (value === undefined) return undefined;
  const { path, fail } = with_;
  const spec = with_.table(value, path);
  for (const key of Object.keys(spec)) if (!keys.has(key)) fail(`${path}.${key}`, `unknown key, use ${[...keys].join(', ')}`);
  const method = spec['method'] ?? 'GET';
  if (method !== 'GET' && method !== 'POST') return fail(`${path}.method`, 'use GET, or POST for a search: a read-back changes nothing');
  if (typeof spec['path'] !== 'string' || !spec['path'].startsWith('/')) return fail(`${path}.path`, 'a path begins with /');
  const lines = spec['answers'];
  if (!Array.isArray(lines) || lines.length === 0) return fail(`${path}.answers`, 'say what the answers mean: - { status: 404, answer: not-applied }');
  const compiled = lines.map((line, i) => compileLine(line, `${path}.answers.${i}`, with_));
  if (!compiled.some((line) => line.answer === 'applied')) fail(`${path}.answers`, 'no answer says applied');
  if (method === 'GET' && spec['body'] !== undefined) fail(`${path}.body`, 'a GET has no body');
  return {
    manifest: { settleMs: with_.duration(spec['settle'], `${path}.settle`), limit: with_.limit(spec['limit'], `${path}.limit`), timeoutMs: with_.duration(spec['timeout'], `${path}.timeout`), cite: typeof spec['cite'] === 'string' ? spec['cite'] : 'stated in the workspace' },
    method,
    path: compileUrlTemplate(spec['path'], with_.context(`${path}.path`)),
    headers: with_.headers(spec['headers'], `${path}.headers`),
    body: spec['body'] === undefined ? undefined : compileTemplate(spec['body'], with_.context(`${path}.body`)),
    answers: compiled,
  };
}

/** Values that differ in kind only (12 and "12") are the same: templates make text. */
const same = (found: Json | undefined, wanted: Json | undefined): boolean => (found ?? null) === (wanted ?? null) || (found !== undefined && found !== null && wanted !== undefined && wanted !== null && typeof found !== 'object' && typeof wanted !== 'object' && String(found) === String(wanted));

function holds(line: AnswerLine, answer: Answer, scope: Scope): boolean {
  return line.matches(answer) && line.equals.every(([path, value]) => same(valueAt(answer.json(), path), value(scope)));
}

/** What the answer says. An answer that no line names is trouble when its status is (429, 5xx, 401), else it tells nothing. */
export function readAnswer(readBack: HttpReadBack, response: HttpResponse | HttpFailure, scope: Scope): ReadBack {
  const usual = 'failure' in response ? classifyFailure(response) : classifyStatus(response);
  if (!('failure' in response)) {
    const answer = answerOf(response);
    const line = readBack.answers.find((l) => holds(l, answer, scope));
    if (line !== undefined) return { kind: line.answer, detail: `HTTP ${response.status}` };
  }
  return usual.kind === 'ok' || usual.kind === 'permanent' ? { kind: 'unknown', detail: usual.detail ?? 'the answer is none of those named in verify.answers' } : usual;
}
