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
  /** What an item is that the answer does not tell of: `ok` where only failures are listed. */
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

/** Element → index of its item; -1 = of none of them. */
function indexer(results: Results, items: readonly BatchItem[]): (element: Json, at: number) => number {
  if (results.position !== undefined) return (element) => Number(valueAt(element, results.position!) ?? -1);
  if (results.key === undefined) return (_element, at) => at;
  const byKey = new Map(items.map((item, i) => [item.key, i]));
  return (element) => byKey.get(String(valueAt(element, results.key!))) ?? -1;
}

/** One verdict for all where the answer as a whole is no success, or tells of no items; else one each. */
export function readBatch(batch: HttpBatch, verdicts: VerdictTable, response: HttpResponse | HttpFailure, items: readonly BatchItem[]): Verdict | readonly Verdict[] {
  if ('failure' in response) return classifyFailure(response);
  const { results } = batch;
  const whole = verdicts.verdict(response);
  const answer = results === undefined ? undefined : parse(response.body);
  const list = results === undefined || answer === undefined ? undefined : valueAt(answer, results.path);
  if (results === undefined) return whole;
  if (!Array.isArray(list)) return whole.kind === 'ok' && results.missing === 'retry' ? { kind: 'retry', effect: 'maybe', code: 'vendor-unavailable', detail: 'the answer has no list of results' } : whole;
  // Told of one by one, also where the answer as a whole is a refusal.
  const untold: Verdict = whole.kind !== 'ok' ? whole : results.missing === 'ok' ? whole : { kind: 'retry', effect: 'maybe', code: 'vendor-unavailable', detail: 'the answer does not tell of this item' };
  const found = new Array<Verdict>(items.length).fill(untold);
  const indexOf = indexer(results, items);
  for (let at = 0; at < list.length; at++) {
    const element = list[at]!;
    const index = indexOf(element, at);
    if (!(index in found)) continue;
    const status = results.status === undefined ? response.status : Number(valueAt(element, results.status));
    found[index] = results.verdicts.verdict(new ItemAnswer(Number.isInteger(status) ? status : 0, response.headers, element), `item ${Number.isInteger(status) ? status : 'without a status'}`);
  }
  return found;
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
