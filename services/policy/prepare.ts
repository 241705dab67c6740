import type { LogRecord } from '@weir/log';
import { isPassing, patiently } from '@weir/pipeline';
import { isReadable } from '@weir/seal';
import type { PolicyPorts } from './ports.ts';

/**
 * Look up the schemas of older writers, and keys, before the records are decoded; what does not exist is left to the decoder
 * to report. A registry or brokers that are away are waited for: who ends because of them folds no withdrawal of those that
 * can be read either. False: it was given up, since the partition is gone.
 */
export async function prepare({ context }: { readonly context: Pick<PolicyPorts['context'], 'serde' | 'clock' | 'logger'> }, records: readonly Pick<LogRecord, 'value'>[], gone: () => boolean): Promise<boolean> {
  const { serde, clock, logger } = context;
  let told = false;
  for (const { value } of records) {
    if (!isReadable(value) || serde.known(value)) continue;
    try {
      await patiently(clock, gone, () => serde.prepare(value), (error) => {
        if (!told) logger.warn({ err: error }, 'records wait for what is needed to read them');
        told = true;
      });
    } catch (error) {
      if (gone() && isPassing(error)) return false;
      if ((error as { code?: string }).code !== 'schema-unknown') throw error;
    }
  }
  return true;
}
