import { errorCodes } from '@weir/errors';
import type { Client } from './client.ts';
import { textOption, UsageError, type CommandContext } from './command.ts';
import { printable } from './terminal.ts';

/** Names of sources that no release has: the consent API and erasures. */
const own = ['consent-api', 'weir-erasure'];
const stages = ['ingest', 'normalizer', 'policy', 'dispatcher'];

/**
 * Asked where nothing was found: throws UsageError where a stage, code, source or destination that is asked for is not one, so
 * that a slip of the pen is not taken for an empty list. What an earlier release had has been found by then, where there is anything of it.
 */
export async function knownNames(context: CommandContext, client: Pick<Client, 'get'>): Promise<void> {
  const stage = textOption(context, 'stage');
  if (stage !== undefined && !stages.includes(stage)) throw new UsageError(`--stage: one of ${stages.join(', ')}`);
  const code = textOption(context, 'code');
  if (code !== undefined && !(errorCodes as readonly string[]).includes(code)) throw new UsageError(`--code: ${printable(code)} is no error code of Weir; docs/errors.md lists them`);
  const asked = (['source', 'destination'] as const).filter((kind) => textOption(context, kind) !== undefined);
  if (asked.length === 0) return;
  const release = await client.get<{ readonly sources: readonly string[]; readonly destinations: readonly string[] }>('/v1/release');
  for (const kind of asked) {
    const name = textOption(context, kind)!;
    const names = release[`${kind}s`];
    if (!names.includes(name) && !(kind === 'source' && own.includes(name))) throw new UsageError(`--${kind}: no such letter is of ${printable(name)}, and the running release has no ${kind} of that name; it has ${[...names].sort().join(', ') || 'none'}`);
  }
}
