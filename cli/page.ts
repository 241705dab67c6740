import type { CommandContext } from './command.ts';

/** Of a list that may be longer than what was asked for. */
export interface Page {
  /** How many come behind the last one. */
  readonly left?: number;
  /** Where they begin; null = there are none. */
  readonly next?: string | null;
}

/** So many of what is left are counted by the control service. */
export const mostLeft = 10_000;

/** Says so where a list is not all, and how to see the rest; `most`: how many of the rest the service counts. */
export function printLeft({ terminal, values }: Pick<CommandContext, 'terminal' | 'values'>, shown: number, { left = 0, next = null }: Page, most = mostLeft): void {
  if (left === 0 || next === null) return;
  const total = `${left >= most ? 'more than ' : ''}${(shown + left).toLocaleString('en-GB')}`;
  terminal.line(`the ${values['after'] === undefined ? 'first' : 'next'} ${shown.toLocaleString('en-GB')} of ${total}; the rest: the same with --after ${next}, or a higher --limit`);
}
