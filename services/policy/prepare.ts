import type { LogRecord } from '@weir/log';
import { erasureSource, H, isPassing, patiently } from '@weir/pipeline';
import { isReadable, isSealed, sealedBy, type KeyRing } from '@weir/seal';
import { numberOf, textOf, type PolicyPorts } from './ports.ts';

type Ports = { readonly context: Pick<PolicyPorts['context'], 'serde' | 'clock' | 'logger' | 'keys'> };
type Wanted = Pick<LogRecord, 'value'> & Partial<Pick<LogRecord, 'key' | 'headers'>>;

/**
 * Look up the schemas of older writers, and keys, before the records are decoded; what does not exist is left to the decoder
 * to report. A registry or brokers that are away are waited for: who ends because of them folds no withdrawal of those that
 * can be read either. Of a record whose key is missing and that no erasure covers, the key is looked for longer. False: it was
 * given up, since the partition is gone.
 */
export async function prepare({ context }: Ports, records: readonly Wanted[], gone: () => boolean): Promise<boolean> {
  const { serde, clock, logger, keys } = context;
  const lost: Wanted[] = [];
  let told = false;
  const patient = (work: () => Promise<void>): Promise<void> => patiently(clock, gone, work, (error) => {
    if (!told) logger.warn({ err: error }, 'records wait for what is needed to read them');
    told = true;
  });
  try {
    for (const record of records) {
      const { value } = record;
      if (!isReadable(value) || serde.known(value)) continue;
      await patient(() => serde.prepare(value)).catch((error: unknown) => {
        if ((error as { code?: string }).code !== 'schema-unknown') throw error;
      });
      if (keys !== undefined && isLost(keys, record)) lost.push(record);
    }
    if (lost.length === 0) return true;
    await patient(() => keys!.find(lost.map(({ value }) => sealedBy(value!)), gone));
  } catch (error) {
    if (gone() && isPassing(error)) return false;
    throw error;
  }
  return !gone() && prepare({ context }, lost.filter(({ value }) => keys!.has(sealedBy(value!))), gone);
}

/** Its key is not here, and nothing says why. */
function isLost(keys: KeyRing, { value, key, headers }: Wanted): boolean {
  if (value === null || !isSealed(value) || headers === undefined || keys.has(sealedBy(value))) return false;
  const record = { headers } as LogRecord;
  const ids = [key?.toString() ?? '', ...textOf(record, H.ids).split(',')];
  return textOf(record, H.source) !== erasureSource && keys.erasedUntil(ids.filter((id) => id !== '')) < numberOf(record, H.accepted);
}
