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
const separator = '\u0000';

/**
 * YAML 1.2 core from a user: at most 256 KiB, 20,000 nodes, 32 levels; no aliases, no tags, no duplicate or
 * reserved keys, keys are text. Throws WorkspaceError with file, line and remedy of every problem found.
 */
export function parseYaml(file: { readonly path: string; readonly content: string }): ParsedYaml {
  const problems: WorkspaceProblem[] = [];
  const report = (line: number, message: string, remedy: string): void => { if (problems.length < maxProblems) problems.push({ file: file.path, line, message, remedy }); };
  if (Buffer.byteLength(file.content) > maxBytes) throw new WorkspaceError([{ file: file.path, line: 0, message: `larger than ${maxBytes} bytes`, remedy: 'split it into several files' }]);
  const counter = new LineCounter();
  const document = parseDocument(file.content, { lineCounter: counter, schema: 'core', version: '1.2', uniqueKeys: true, strict: true, prettyErrors: false, customTags: [], merge: false });
  for (const error of [...document.errors, ...document.warnings]) report(counter.linePos(error.pos[0]).line, error.message, 'fix the YAML');
  const lines = new Map<string, number>();
  let nodes = 0;

  function convert(node: Node | null, path: readonly (string | number)[], depth: number): YamlValue {
    if (node === null) return null;
    const line = node.range ? counter.linePos(node.range[0]).line : 1;
    if (!lines.has(path.join(separator))) lines.set(path.join(separator), line);
    if (++nodes > maxNodes || depth > maxDepth) {
      report(line, 'too large or too deep', 'simplify the file');
      return null;
    }
    if (isAlias(node)) {
      report(line, 'an alias', 'write the value out');
      return null;
    }
    if (isScalar(node)) return scalar(node.value, line);
    if (isSeq(node)) return node.items.map((item, i) => convert(item as Node, [...path, i], depth + 1));
    if (isMap(node)) return map(node, path, depth);
    report(line, 'not a value', 'use text, numbers, lists and maps');
    return null;
  }

  function scalar(value: unknown, line: number): YamlValue {
    if (value === null || typeof value === 'string' || typeof value === 'boolean') return value;
    if (typeof value === 'number' && Number.isFinite(value)) return value;
    report(line, 'not a plain value', 'quote it');
    return null;
  }

  function map(node: { items: { key: unknown; value: unknown }[] }, path: readonly (string | number)[], depth: number): YamlValue {
    const out = Object.create(null) as { [key: string]: YamlValue };
    for (const pair of node.items) {
      const keyNode = pair.key as Node;
      const line = keyNode?.range ? counter.linePos(keyNode.range[0]).line : 1;
      const key = isScalar(keyNode) ? String(keyNode.value) : undefined;
      if (key === undefined || reserved.has(key)) {
        report(line, key === undefined ? 'a key that is not text' : `the reserved key ${key}`, 'rename the key');
        continue;
      }
      lines.set([...path, key].join(separator), line);
      out[key] = convert(pair.value as Node | null, [...path, key], depth + 1);
    }
    return out;
  }

  const value = problems.length === 0 ? convert(document.contents as Node | null, [], 0) : null;
  if (problems.length > 0) throw new WorkspaceError(problems);
  return {
    value,
    lineOf(path) {
      for (let n = path.length; n >= 0; n--) {
        const line = lines.get(path.slice(0, n).join(separator));
        if (line !== undefined) return line;
      }
      return 1;
    },
  };
}
