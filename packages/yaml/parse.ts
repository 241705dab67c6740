import { WorkspaceError, type WorkspaceProblem } from '@weir/errors';
import { isAlias, isMap, isScalar, isSeq, LineCounter, parseDocument, type Node } from 'yaml';

export type YamlValue = null | boolean | number | string | YamlValue[] | { [key: string]: YamlValue };

export interface ParsedYaml {
  /** Objects have no prototype. */
  readonly value: YamlValue;
  /** Line (from 1) of the node at this path, or of its nearest parent. */
  lineOf(path: readonly (string | number)[]): number;
}

const maxBytes = 256 * 1024;
const maxNodes = 20_000;
const maxDepth = 32;
/** More are not told: the answer to a bad file must not be larger than the file. */
const maxProblems = 100;
const reserved = new Set(['__proto__', 'constructor', 'prototype']);

/** Line of a node, and the nodes in it by key or index: as large as the file, whatever its paths look like. */
interface Place {
  readonly line: number;
  inner?: Map<string, Place>;
}

/**
 * YAML 1.2 core from a user: at most 256 KiB, 20,000 nodes, 32 levels; no aliases, no tags, no duplicate or
 * reserved keys, keys are text. Throws WorkspaceError with file, line and remedy of every problem found. Work and
 * memory grow with the bytes of the file, not with their square.
 */
export function parseYaml(file: { readonly path: string; readonly content: string }): ParsedYaml {
  const problems: WorkspaceProblem[] = [];
  const report = (line: number, message: string, remedy: string): void => { if (problems.length < maxProblems) problems.push({ file: file.path, line, message, remedy }); };
  if (Buffer.byteLength(file.content) > maxBytes) throw new WorkspaceError([{ file: file.path, line: 0, message: `larger than ${maxBytes} bytes`, remedy: 'split it into several files' }]);
  const counter = new LineCounter();
  // The parser compares each key with all before it; the walk below looks it up.
  const document = parseDocument(file.content, { lineCounter: counter, schema: 'core', version: '1.2', uniqueKeys: false, strict: true, prettyErrors: false, customTags: [], merge: false });
  for (const error of [...document.errors, ...document.warnings]) report(counter.linePos(error.pos[0]).line, error.message, 'fix the YAML');
  const lineAt = (node: Node | null): number => (node?.range ? counter.linePos(node.range[0]).line : 1);
  let nodes = 0;

  function convert(node: Node | null, place: Place, depth: number): YamlValue {
    const line = node === null ? place.line : lineAt(node);
    if (++nodes > maxNodes || depth > maxDepth) {
      report(line, 'too large or too deep', 'simplify the file');
      return null;
    }
    if (node === null) return null;
    if (isAlias(node)) {
      report(line, 'an alias', 'write the value out');
      return null;
    }
    if (isScalar(node)) return scalar(node.value, line);
    if (isSeq(node)) return node.items.map((item, i) => convert(item as Node, within(place, String(i), lineAt(item as Node)), depth + 1));
    if (isMap(node)) return map(node, place, depth);
    report(line, 'not a value', 'use text, numbers, lists and maps');
    return null;
  }

  function within(place: Place, key: string, line: number): Place {
    const inner: Place = { line };
    (place.inner ??= new Map()).set(key, inner);
    return inner;
  }

  function scalar(value: unknown, line: number): YamlValue {
    if (value === null || typeof value === 'string' || typeof value === 'boolean') return value;
    if (typeof value === 'number' && Number.isFinite(value)) return value;
    report(line, 'not a plain value', 'quote it');
    return null;
  }

  function map(node: { items: { key: unknown; value: unknown }[] }, place: Place, depth: number): YamlValue {
    const out = Object.create(null) as { [key: string]: YamlValue };
    for (const pair of node.items) {
      const keyNode = pair.key as Node;
      const line = lineAt(keyNode);
      const key = isScalar(keyNode) ? String(keyNode.value) : undefined;
      if (key === undefined || reserved.has(key)) {
        report(line, key === undefined ? 'a key that is not text' : `the reserved key ${key}`, 'rename the key');
        continue;
      }
      if (Object.hasOwn(out, key)) {
        report(line, `the key ${key.slice(0, 80)} a second time in one map`, 'rename or remove one of them');
        continue;
      }
      out[key] = convert(pair.value as Node | null, within(place, key, line), depth + 1);
    }
    return out;
  }

  const root: Place = { line: lineAt(document.contents as Node | null) };
  const value = problems.length === 0 ? convert(document.contents as Node | null, root, 0) : null;
  if (problems.length > 0) throw new WorkspaceError(problems);
  return {
    value,
    lineOf(path) {
      let place = root;
      for (const step of path) {
        const inner = place.inner?.get(String(step));
        if (inner === undefined) break;
        place = inner;
      }
      return place.line;
    },
  };
}
