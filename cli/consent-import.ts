import { readFileSync, statSync } from 'node:fs';
import { maxOrderBytes, parseExternalId } from '@weir/release';
import type { Client } from './client.ts';
import { Finding } from './command.ts';
import { importKey, type ConsentOrder } from './consent-api.ts';
import { namesOf } from './consent-order.ts';
import { parseCsv, type CsvRow } from './csv.ts';

/** A row of the file as a change for `POST /v1/consent`, with what it says as it stands there. */
export interface ImportRow {
  readonly line: number;
  readonly order: ConsentOrder;
}

/** What an import would do. */
export interface ImportPlan {
  /** In the order of the file, without those that are wrong. */
  readonly rows: readonly ImportRow[];
  /** `line <n>: <reason>`, in the order of the file: one is enough, and nothing is imported. */
  readonly problems: readonly string[];
  /** What would change, with how many rows and the first of their lines. */
  readonly changes: ReadonlyArray<{ readonly change: string; readonly rows: number; readonly lines: readonly number[] }>;
}

const singleColumns = ['userId', 'email', 'phone', 'anonymousId'] as const;
const identifierColumns: readonly string[] = [...singleColumns, 'externalId'];
export const columns: readonly string[] = [...identifierColumns, 'purpose', 'channel', 'topic', 'state', 'legalBasis', 'jurisdiction', 'noticeVersion', 'proof', 'reason', 'expiresAt', 'occurredAt'];
const maxFileBytes = 64 * 1024 * 1024;
const maxRows = 200_000;
/** Of one request of the preview. */
const batchRows = 500;
const batchBytes = 2 * 1024 * 1024;
const shownLines = 5;

type Preview = { readonly problem: string } | { readonly before: string; readonly after: string; readonly why: string | null };

/**
 * Looks at every row before any is sent: the control API checks each as ingest would and folds it onto what is stored,
 * one after the other. Throws Finding for a file that is no table of these columns.
 *
 * @param looked told how many rows have been looked at, of how many
 */
export async function planImport(client: Pick<Client, 'post'>, file: string, looked: (done: number, of: number) => void): Promise<ImportPlan> {
  if (statSync(file).size > maxFileBytes) throw new Finding(`${file} is over ${maxFileBytes / 1024 / 1024} MB: split it`);
  const problems = new Map<number, string>();
  const rows = parseCsv(textOf(file), columns, maxRows).flatMap((row): ImportRow[] => {
    const found = rowOf(row);
    if (typeof found !== 'string') return [found];
    problems.set(row.line, found);
    return [];
  });
  const lines = new Map<string, number[]>();
  const linesOf = (change: string): number[] => lines.get(change) ?? lines.set(change, []).get(change)!;
  let done = 0;
  for (const batch of batchesOf(rows)) {
    const { changes } = await client.post<{ changes: readonly Preview[] }>('/v1/consent/preview', { changes: batch.map(({ order, line }) => (order.state === 'granted' ? { order, key: importKey(order, line, '') } : { order })) });
    for (const [i, { line }] of batch.entries()) {
      const preview = changes[i]!;
      if ('problem' in preview) problems.set(line, preview.problem);
      else linesOf(wordsOf(preview)).push(line);
    }
    looked(done += batch.length, rows.length);
  }
  return {
    rows: rows.filter(({ line }) => !problems.has(line)),
    problems: [...problems].sort(([a], [b]) => a - b).map(([line, problem]) => `line ${line}: ${problem}`),
    changes: [...lines].map(([change, list]) => ({ change, rows: list.length, lines: list.toSorted((a, b) => a - b).slice(0, shownLines) })),
  };
}

/** What is no UTF-8 is refused: read as such, an address of other letters would be another one, and a no one to nobody. */
function textOf(file: string): string {
  const bytes = readFileSync(file);
  const decoder = new TextDecoder('utf-8', { fatal: true });
  const isText = (part: Uint8Array): boolean => {
    try {
      decoder.decode(part);
      return true;
    } catch {
      return false;
    }
  };
  if (isText(bytes)) return decoder.decode(bytes);
  const wide = (bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff);
  let line = 1;
  let at = 0;
  for (;;) {
    const end = bytes.indexOf(10, at);
    if (end < 0 || !isText(bytes.subarray(at, end))) break;
    at = end + 1;
    line++;
  }
  throw new Finding(`${file} is ${wide ? 'UTF-16' : `no UTF-8, by its line ${line}`}: save it as CSV UTF-8, or convert it with iconv -f ${wide ? 'UTF-16' : 'WINDOWS-1252'} -t UTF-8`);
}

function wordsOf({ before, after, why }: Exclude<Preview, { readonly problem: string }>): string {
  if (before !== after) return `${before} → ${after}`;
  return why === null ? 'no change' : `stays ${after}: ${why}`;
}

/** The row as an order; text = why it can be none. Values go as they stand there: they are part of what makes a row the same in the next import. */
function rowOf({ line, values }: CsvRow): ImportRow | string {
  const external = values['externalId'] === undefined ? undefined : parseExternalId(values['externalId']);
  if (values['externalId'] !== undefined && external === undefined) return 'externalId: expected <type>:<value>';
  const identifiers: ConsentOrder['identifiers'] = { ...Object.fromEntries(singleColumns.flatMap((name) => (values[name] === undefined ? [] : [[name, values[name]]]))), ...(external === undefined ? {} : { externalIds: [external] }) };
  const order = { identifiers, ...Object.fromEntries(Object.entries(values).filter(([name]) => !identifierColumns.includes(name))) } as ConsentOrder;
  return Buffer.byteLength(JSON.stringify(order)) > maxOrderBytes ? `it is over ${maxOrderBytes / 1024} KiB` : { line, order };
}

/** Rows in requests. Those that share an identifier, also by way of others, follow each other in the order of the file: each is looked at on what those before it made. */
export function batchesOf(rows: readonly ImportRow[], most = batchRows): ImportRow[][] {
  const parents = new Map<string, string>();
  function rootOf(name: string): string {
    let root = name;
    for (let next = parents.get(root); next !== undefined && next !== root; next = parents.get(root)) root = next;
    for (let at = name; at !== root;) {
      const next = parents.get(at)!;
      parents.set(at, root);
      at = next;
    }
    return root;
  }
  const firstOf = rows.map(({ order, line }) => {
    const names = namesOf(order.identifiers);
    const first = names[0] ?? `line ${line}`;
    for (const name of names) parents.set(rootOf(name), rootOf(first));
    return first;
  });
  const people = Map.groupBy(rows.map((row, i) => ({ row, root: rootOf(firstOf[i]!) })), ({ root }) => root);
  const batches: ImportRow[][] = [[]];
  let bytes = 0;
  const begin = (): void => {
    batches.push([]);
    bytes = 0;
  };
  for (const list of people.values()) {
    const sizes = list.map(({ row }) => Buffer.byteLength(JSON.stringify(row.order)));
    const whole = sizes.reduce((sum, size) => sum + size, 0);
    if (bytes + whole > batchBytes || batches.at(-1)!.length + list.length > most) begin();
    for (const [i, { row }] of list.entries()) {
      // One that is known by more rows than a request takes.
      if (bytes + sizes[i]! > batchBytes || batches.at(-1)!.length >= most) begin();
      batches.at(-1)!.push(row);
      bytes += sizes[i]!;
    }
  }
  return batches.filter((batch) => batch.length > 0);
}
