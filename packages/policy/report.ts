import { compileCel, type CompiledCel } from '@weir/cel';
import { WorkspaceError, type WorkspaceProblem } from '@weir/errors';
import type { ParsedYaml, YamlValue } from '@weir/yaml';
import { unknownFields } from './record-view.ts';
import { holdsPart, inSet, standardRegions, type Regions } from './regions.ts';
import { ruleVariables } from './types.ts';

export type At = readonly (string | number)[];
export type Table = { [key: string]: YamlValue };
export const isTable = (v: YamlValue | undefined): v is Table => v !== null && typeof v === 'object' && !Array.isArray(v);

/** Problems of one file, each with its line; and CEL as routes and rules know it. */
export class Report {
  readonly problems: WorkspaceProblem[] = [];
  readonly file: string;
  readonly yaml: ParsedYaml;
  readonly regions: Regions;
  constructor(file: string, yaml: ParsedYaml, regions: Regions = standardRegions) {
    this.file = file;
    this.yaml = yaml;
    this.regions = regions;
  }
  add(at: At, message: string, remedy: string): void {
    this.problems.push({ file: this.file, line: this.yaml.lineOf(at), message, remedy });
  }
  /** @param type record name without namespace; absent = the fields of any record may be named */
  cel(source: YamlValue | undefined, at: At, type?: string, result: 'bool' | 'any' = 'bool'): CompiledCel | undefined {
    if (source === undefined) return undefined;
    const text = typeof source === 'boolean' || typeof source === 'string' ? String(source) : '';
    const compiled = compileCel(text, { file: this.file, line: this.yaml.lineOf(at), variables: ruleVariables, result, functions: [this.inRegion()] });
    if ('cel' in compiled) {
      for (const field of unknownFields(text, type)) this.add(at, `${type ?? 'no canonical record'} has ${type === undefined ? 'a' : 'no'} field ${field}`, 'use a field of the canonical schema');
      return compiled.cel;
    }
    this.problems.push(...compiled.problems);
    return undefined;
  }
  /** `inRegion(region, "EEA")`: an unknown region of the person is an error of the rule, which closes; so is a country of which the group holds a part. */
  private inRegion() {
    const { regions } = this;
    return {
      signature: 'inRegion(string, string): bool', name: 'inRegion', literal: 1,
      check: (name: string): string | undefined => (regions.resolve(name) === undefined ? `unknown region ${name}` : undefined),
      run: (code: string, name: string): boolean => {
        if (code === '') throw new Error('the region of the person is not known');
        const set = regions.resolve(name)!;
        if (holdsPart(set, code)) throw new Error('only the country of the person is known');
        return inSet(set, code);
      },
    };
  }
  keys(table: Table, at: At, allowed: readonly string[]): void {
    for (const key of Object.keys(table)) if (!allowed.includes(key)) this.add([...at, key], `unknown key ${key}`, `use one of ${allowed.join(', ')}`);
  }
  /** Undefined where the key is not there. What is there and is no text (left blank, a list) is a problem, not a text that it could be made into: it would be a channel that nobody can say no to. A number is text, as a topic may be. */
  text(spec: Table, key: string, at: At): string | undefined {
    const value = spec[key];
    if (value === undefined) return undefined;
    if ((typeof value === 'string' && value.trim() !== '') || typeof value === 'number') return String(value);
    this.add([...at, key], `${key} ${JSON.stringify(value)}: expected a text`, `leave ${key} out for every one, or write one entry for each`);
    return undefined;
  }
  /** A list of texts that `known` accepts, without repetition. */
  names(value: YamlValue | undefined, at: At, what: string, known: (name: string) => boolean, remedy: string): readonly string[] {
    const list = Array.isArray(value) ? value : [];
    if (list.length === 0) this.add(at, `${what}: expected a list`, remedy);
    const found = new Set<string>();
    for (const [i, item] of list.entries()) {
      if (typeof item !== 'string' || !known(item)) this.add([...at, i], `unknown ${what} ${JSON.stringify(item)}`, remedy);
      else found.add(item);
    }
    return [...found];
  }
  end<T>(value: T): T {
    if (this.problems.length > 0) throw new WorkspaceError(this.problems);
    return value;
  }
}
