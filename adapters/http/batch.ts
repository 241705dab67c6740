import { classifyFailure, compileTemplate, compileVerdicts, dottedPath, parseJson, valueAt, type BatchItem, type HttpFailure, type HttpResponse, type Json, type JsonObject, type OperationManifest, type TemplateContext, type Verdict, type VerdictTable } from '@weir/adapter';

/** `batch:` of an operation, compiled. */
export interface HttpBatch {
  readonly manifest: NonNullable<OperationManifest['batch']>;
  readonly path: string;
  body(items: readonly string[]): string;
  readonly results: Results | undefined;
}

/** Where the answer tells of each item. */
interface Results {
  readonly path: string;
  /** Dotted path in an element to the key of the delivery, or to its position from 0; neither: the order. */
  readonly key: string | undefined;
  readonly position: string | undefined;
  /** Dotted path in an element to a status code of its own. */
  readonly status: string | undefined;
  readonly verdicts: VerdictTable;
  /** What an item is that the answer does not tell of: `ok` where only failures are listed, by key or position. */
  readonly missing: 'ok' | 'retry';
}

interface Compiling {
  readonly path: string;
  fail(path: string, message: string): never;
  table(value: Json | undefined, path: string): JsonObject;
  context(path: string, roots: readonly string[]): TemplateContext;
}

const keys = new Set(['maxItems', 'maxBytes', 'path', 'body', 'results', 'cite']);
const resultKeys = new Set(['path', 'key', 'position', 'status', 'verdicts', 'missing']);
const mostItems = 10_000;
const mostBytes = 32 * 1024 * 1024;
const mark = 'items-go-here';
const answerBytes = 16 * 1024 * 1024;

function wholeNumber(value: Json | undefined, standard: number, most: number, path: string, fail: Compiling['fail']): number {
  const number = value ?? standard;
  return typeof number === 'number' && Number.isInteger(number) && number >= 1 && number <= most ? number : fail(path, `use a whole number from 1 to ${most}`);
}

function compileResults(value: Json | undefined, with_: Compiling, path: string): Results | undefined {
  if (value === undefined) return undefined;
  const spec = with_.table(value, path);
  for (const key of Object.keys(spec)) if (!resultKeys.has(key)) with_.fail(`${path}.${key}`, `unknown key, use ${[...resultKeys].join(', ')}`);
  const dotted = (name: string): string | undefined => (spec[name] === undefined ? undefined : typeof spec[name] === 'string' && new RegExp(dottedPath).test(spec[name]) ? spec[name] : with_.fail(`${path}.${name}`, 'a path is written data.results'));
  const missing = spec['missing'] ?? 'retry';
  if (missing !== 'ok' && missing !== 'retry') return with_.fail(`${path}.missing`, 'use ok or retry');
  if (spec['key'] !== undefined && spec['position'] !== undefined) with_.fail(`${path}.position`, 'give key or position');
  if (missing === 'ok' && spec['key'] === undefined && spec['position'] === undefined) with_.fail(`${path}.missing`, 'ok needs key or position: in the order sent, a list of failures does not say of whom');
  return { path: dotted('path') ?? with_.fail(`${path}.path`, 'say where the list of results is'), key: dotted('key'), position: dotted('position'), status: dotted('status'), missing, verdicts: compileVerdicts(spec['verdicts'], (at, message) => with_.fail(`${path}.verdicts${at}`, message)) };
}

/** Throws workspace-invalid with the path of the bad part. */
export function compileBatch(value: Json | undefined, operation: { readonly path: string; readonly scheme: string }, with_: Compiling): HttpBatch | undefined {
  if (value === undefined) return undefined;
  const { path, fail } = with_;
  const spec = with_.table(value, path);
  for (const key of Object.keys(spec)) if (!keys.has(key)) fail(`${path}.${key}`, `unknown key, use ${[...keys].join(', ')}`);
  if (operation.scheme === 'header') fail(path, 'a batch has no key of its own: the key of each delivery goes into its item (body-field), or the vendor upserts');
  const url = spec['path'] ?? operation.path;
  if (typeof url !== 'string' || !url.startsWith('/') || url.includes('{{')) return fail(`${path}.path`, 'a path that is the same for all items, without placeholders');
  const given = spec['body'];
  const whole = given === undefined ? mark : JSON.stringify(compileTemplate(given, with_.context(`${path}.body`, ['items']))({ items: mark }) ?? null);
  const [before, after, ...more] = given === undefined ? ['', ''] : whole.split(JSON.stringify(mark));
  if (after === undefined || more.length > 0) return fail(`${path}.body`, 'the body holds "{{items}}" once, as the whole of a value');
  return {
    manifest: { maxItems: wholeNumber(spec['maxItems'], 100, mostItems, `${path}.maxItems`, fail), maxBytes: wholeNumber(spec['maxBytes'], 1024 * 1024, mostBytes, `${path}.maxBytes`, fail), cite: typeof spec['cite'] === 'string' ? spec['cite'] : 'stated in the workspace' },
    path: url,
    body: (items) => `${before}[${items.join(',')}]${after}`,
    results: compileResults(spec['results'], with_, `${path}.results`),
  };
}

function parse(body: Buffer): Json | undefined {
  if (body.length > answerBytes) return undefined;
  try {
    return parseJson(body);
  } catch (error) {
    if ((error as { code?: string }).code?.startsWith('body-') !== true) throw error;
    return undefined;
  }
}

/** The list of results; null: the answer is whole and has none. Undefined: it cannot be read, or something else stands there. */
function listOf(body: Buffer, path: string): readonly Json[] | null | undefined {
  if (body.length === 0) return null;
  const answer = parse(body);
  if (answer === undefined) return undefined;
  const list = valueAt(answer, path) ?? null;
  return list === null || Array.isArray(list) ? list : undefined;
}

/** Written as a number: of "", [] and false Number() makes 0. */
const positionOf = (value: Json | undefined): number => (typeof value === 'number' || (typeof value === 'string' && /^\d+$/.test(value)) ? Number(value) : -1);

/** Element → index of its item; one that no item has = of none of them. */
function indexer(results: Results, items: readonly BatchItem[]): (element: Json, at: number) => number {
  if (results.position !== undefined) return (element) => positionOf(valueAt(element, results.position!));
  if (results.key === undefined) return (_element, at) => at;
  const byKey = new Map(items.map((item, i) => [item.key, i]));
  return (element) => byKey.get(String(valueAt(element, results.key!))) ?? -1;
}

const inDoubt = (detail: string): Verdict => ({ kind: 'retry', effect: 'maybe', code: 'vendor-unavailable', detail });

/**
 * One verdict for all where the answer as a whole is no success, or tells of no items; else one each. What is not told, told in
 * two ways, or told by an order that does not fit the items may have been applied or not: it is tried again.
 */
export function readBatch(batch: HttpBatch, verdicts: VerdictTable, response: HttpResponse | HttpFailure, items: readonly BatchItem[]): Verdict | readonly Verdict[] {
  if ('failure' in response) return classifyFailure(response);
  const { results } = batch;
  const whole = verdicts.verdict(response);
  if (results === undefined) return whole;
  const list = listOf(response.body, results.path);
  if (list === undefined || list === null) return whole.kind !== 'ok' || (list === null && results.missing === 'ok') ? whole : inDoubt('the answer has no list of results');
  // Told of one by one, also where the answer as a whole is a refusal.
  const untold = whole.kind !== 'ok' ? whole : inDoubt('the answer does not tell of this item');
  if (results.key === undefined && results.position === undefined && list.length !== items.length) return untold;
  const found = new Array<Verdict | undefined>(items.length).fill(undefined);
  const indexOf = indexer(results, items);
  let strayFailure = false;
  for (let at = 0; at < list.length; at++) {
    const element = list[at]!;
    const index = indexOf(element, at);
    const status = results.status === undefined ? response.status : Number(valueAt(element, results.status));
    const verdict = results.verdicts.verdict(new ItemAnswer(Number.isInteger(status) ? status : 0, response.headers, element), `item ${Number.isInteger(status) ? status : 'without a status'}`);
    const before = found[index];
    if (!(index in found)) strayFailure ||= verdict.kind !== 'ok';
    else found[index] = before === undefined || (before.kind === verdict.kind && before.effect === verdict.effect) ? verdict : inDoubt('the answer tells of this item in two ways');
  }
  // A failure that names no item is one of those that are not told of.
  const rest = results.missing === 'ok' && !strayFailure ? whole : untold;
  return found.map((verdict) => verdict ?? rest);
}

/** What the answer says of one item, as an answer of its own. Its body is made when a rule looks at it. */
class ItemAnswer implements HttpResponse {
  readonly status: number;
  readonly headers: HttpResponse['headers'];
  readonly #element: Json;
  #body: Buffer | undefined = undefined;
  constructor(status: number, headers: HttpResponse['headers'], element: Json) {
    this.status = status;
    this.headers = headers;
    this.#element = element;
  }
  get body(): Buffer {
    return this.#body ??= Buffer.from(JSON.stringify(this.#element));
  }
}
