/** What a command writes: data on stdout, everything else on stderr. */
export interface Terminal {
  line(text?: string): void;
  /** Text as it is, e.g. NDJSON. */
  write(text: string): void;
  json(value: unknown): void;
  /** Aligned columns with a heading; the last column is not padded. */
  table(heads: readonly string[], rows: readonly (readonly string[])[]): void;
  /** To stderr. */
  error(text: string): void;
  /** Colours only on a terminal, and not with NO_COLOR. */
  readonly paint: Readonly<Record<'green' | 'red' | 'yellow' | 'dim' | 'bold', (text: string) => string>>;
  /** A bar on stderr, only on a terminal; end() removes it. */
  progress(total: number, label: string): { step(done: number): void; end(): void };
}

interface Stream {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

const codes = { green: 32, red: 31, yellow: 33, dim: 2, bold: 1 } as const;
const barWidth = 28;

/** Control characters of a stranger's text must not reach the terminal. */
export function printable(text: string): string {
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g, '\u00b7').replaceAll('\n', ' ').replaceAll('\t', ' ');
}

export function createTerminal(options: { out: Stream; err: Stream; env: Readonly<Record<string, string | undefined>>; monotonic: () => number }): Terminal {
  const { out, err } = options;
  const colour = out.isTTY === true && (options.env['NO_COLOR'] ?? '') === '' && options.env['TERM'] !== 'dumb';
  const paint = Object.fromEntries(Object.entries(codes).map(([name, code]) => [name, (text: string) => (colour ? `\u001b[${code}m${text}\u001b[0m` : text)])) as Terminal['paint'];
  return {
    paint,
    write: (text) => { out.write(text); },
    line: (text = '') => { out.write(`${text}\n`); },
    json: (value) => { out.write(`${JSON.stringify(value)}\n`); },
    table(heads, rows) {
      const clean = rows.map((row) => row.map(printable));
      const widths = heads.map((head, i) => Math.max(head.length, ...clean.map((row) => (row[i] ?? '').length)));
      const format = (row: readonly string[]): string => row.map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i]!))).join('  ').trimEnd();
      out.write(`${paint.bold(format(heads))}\n${clean.map((row) => `${format(row)}\n`).join('')}`);
    },
    error: (text) => { err.write(`${text}\n`); },
    progress(total, label) {
      if (err.isTTY !== true) return { step() {}, end() {} };
      let last = -Infinity;
      return {
        step(done) {
          const now = options.monotonic();
          if (now - last < 100 && done < total) return;
          last = now;
          const filled = Math.round((barWidth * done) / Math.max(1, total));
          err.write(`\r\u001b[K${label} [${'#'.repeat(filled)}${'.'.repeat(barWidth - filled)}] ${done}/${total}`);
        },
        end() {
          err.write('\r\u001b[K');
        },
      };
    },
  };
}
