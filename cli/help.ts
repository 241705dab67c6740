import { commonOptions, type Command } from './command.ts';

function columns(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`).join('\n');
}

export function overview(commands: readonly Command[]): string {
  return `usage: weir <command> [options]

${columns(commands.map((c) => [`${c.name} ${c.usage}`, c.summary] as const))}

weir <command> --help tells more. The running instance is found by WEIR_PORT (base port,
default 8080) and WEIR_DATA (default .weir). Exit codes: 0 done, 1 a finding, 2 wrong use
or a workspace that does not compile.`;
}

export function helpOf(command: Command): string {
  const rows = Object.entries({ ...command.options, ...commonOptions }).map(([name, option]) => [`${option.short === undefined ? '' : `-${option.short}, `}--${name}${option.value === undefined ? '' : ` ${option.value}`}`, option.doc] as const);
  return `usage: weir ${command.name} ${command.usage}\n\n${command.summary}\n\n${columns(rows)}${command.notes === undefined ? '' : `\n\n${command.notes}`}`;
}
