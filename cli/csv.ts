import { Finding } from './command.ts';

export interface CsvRow { readonly line: number; readonly values: Readonly<Record<string, string>> }

/**
 * RFC 4180 with a heading, comma or semicolon as separator (the one the heading has). Throws Finding with the line of a
 * quote that does not end, a heading that is not known or comes twice, and a row with more cells than the heading.
 */
export function parseCsv(text: string, known: readonly string[], maxRows: number): CsvRow[] {
  const source = text.startsWith('\ufeff') ? text.slice(1) : text;
  const firstLine = source.slice(0, Math.max(0, source.search(/\r?\n|$/)));
  const separator = firstLine.includes(';') && !firstLine.includes(',') ? ';' : ',';
  const rows: { line: number; cells: string[] }[] = [];
  let cells: string[] = [];
  let cell = '';
  let quoted = false;
  let line = 1;
  let begun = 1;
  const endRow = (): void => {
    cells.push(cell);
    if (cells.length > 1 || cells[0] !== '') rows.push({ line: begun, cells });
    if (rows.length > maxRows + 1) throw new Finding(`more than ${maxRows} rows: split the file`);
    cells = [];
    cell = '';
  };
  for (let i = 0; i < source.length; i++) {
    const c = source[i]!;
    if (quoted) {
      if (c === '\n') line++;
      if (c !== '"') cell += c;
      else if (source[i + 1] === '"') cell += source[++i]!;
      else quoted = false;
    } else if (c === '"' && cell === '') quoted = true;
    else if (c === separator) {
      cells.push(cell);
      cell = '';
    } else if (c === '\n') {
      endRow();
      begun = ++line;
    } else if (c !== '\r') cell += c;
  }
  if (quoted) throw new Finding(`line ${begun}: a quote does not end`);
  endRow();
  const [head, ...body] = rows;
  if (head === undefined) throw new Finding('the file is empty');
  const names = head.cells.map((name) => name.trim());
  const wrong = names.find((name, i) => !known.includes(name) || names.indexOf(name) !== i);
  if (wrong !== undefined) throw new Finding(`line 1: the column ${JSON.stringify(wrong.slice(0, 40))} is not known or comes twice; columns are ${known.join(', ')}`);
  return body.map((row) => {
    if (row.cells.length > names.length) throw new Finding(`line ${row.line}: ${row.cells.length} cells, the heading has ${names.length}`);
    return { line: row.line, values: Object.fromEntries(names.flatMap((name, i) => ((row.cells[i] ?? '').trim() === '' ? [] : [[name, row.cells[i]!.trim()]]))) };
  });
}
