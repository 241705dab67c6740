import type { ParseArgsOptionDescriptor, ParseArgsOptionsConfig } from 'node:util';
import type { Terminal } from './terminal.ts';

/** The instance the command works on, found by WEIR_PORT and WEIR_DATA. */
export interface Target {
  readonly host: string;
  /** Base port: ingest; the control API is one above. */
  readonly port: number;
  readonly dataDir: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}

export interface CommandContext {
  readonly terminal: Terminal;
  readonly target: Target;
  readonly json: boolean;
  readonly values: Readonly<Record<string, string | boolean | (string | boolean)[] | undefined>>;
  readonly positionals: readonly string[];
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal;
}

export type OptionSpec = ParseArgsOptionDescriptor & { readonly doc: string; /** Shown in the help, e.g. `<n>`. */ readonly value?: string };

/** One command = one file in commands/. */
export interface Command {
  readonly name: string;
  /** One line for the list of commands. */
  readonly summary: string;
  /** What follows `weir <name>`. */
  readonly usage: string;
  readonly options: Readonly<Record<string, OptionSpec>>;
  /** Which of the options each action (the first positional) takes; another one is wrong use. Absent: there is one action, which takes all. */
  readonly takes?: Readonly<Record<string, readonly string[]>>;
  /** What the help says below the options. */
  readonly notes?: string;
  /** Takes WEIR_KEY as it is; else one that is wrapped is opened before the run. */
  readonly keyAsGiven?: boolean;
  /** Least and most positionals. */
  readonly positionals: readonly [least: number, most: number];
  /** Exit code: 0 done, 1 a finding (something is wrong, refused or missing). */
  run(context: CommandContext): Promise<number>;
}

/** Wrong use of the command line: exit code 2 with the usage. */
export class UsageError extends Error {}

/** Something is not as it must be, in one line with its remedy: exit code 1. */
export class Finding extends Error {}

export const commonOptions: Readonly<Record<string, OptionSpec>> = {
  json: { type: 'boolean', doc: 'print JSON' },
  help: { type: 'boolean', short: 'h', doc: 'this text' },
};

export function parseOptionsOf(command: Command): ParseArgsOptionsConfig {
  const config: ParseArgsOptionsConfig = {};
  for (const [name, { doc: _doc, value: _value, ...option }] of Object.entries({ ...command.options, ...commonOptions })) config[name] = option;
  return config;
}

/** Throws UsageError for an option that the action does not take: it would say less, or more, than is done. */
export function assertTaken({ options, takes }: Pick<Command, 'options' | 'takes'>, values: CommandContext['values'], action: string | undefined): void {
  const taken = action === undefined || takes === undefined || !Object.hasOwn(takes, action) ? undefined : takes[action]!;
  const other = taken === undefined ? undefined : Object.keys(options).find((name) => values[name] !== undefined && !taken.includes(name));
  if (other !== undefined) throw new UsageError(`${action} takes no --${other}${taken!.length === 0 ? '' : `; it takes ${taken!.map((name) => `--${name}`).join(', ')}`}`);
}

/** A whole number option. */
export function numberOption(context: CommandContext, name: string, standard: number, least: number, most: number): number {
  const text = context.values[name];
  if (text === undefined) return standard;
  // Number('') is 0, which may mean no bound.
  const n = String(text).trim() === '' ? Number.NaN : Number(text);
  if (!Number.isInteger(n) || n < least || n > most) throw new UsageError(`--${name} takes a whole number from ${least} to ${most}`);
  return n;
}

export function textOption(context: CommandContext, name: string): string | undefined {
  const value = context.values[name];
  return typeof value === 'string' ? value : undefined;
}
