import { WeirError } from '@weir/errors';
import { patiently } from '@weir/pipeline';
import { isSealed, sealedBy, type KeyRing } from '@weir/seal';
import type { DestinationPorts } from './ports.ts';
import type { DeliveryValue } from './types.ts';

type Ports = Pick<DestinationPorts, 'name' | 'serde' | 'clock' | 'logger' | 'keys'>;

function decode({ serde }: Ports, value: Buffer): DeliveryValue {
  const decoded = serde.decode(value);
  if (decoded.name !== 'weir.internal.Delivery') throw new WeirError('avro-undecodable', `a ${decoded.name} is no delivery`);
  return decoded.value as DeliveryValue;
}

/**
 * A delivery out of its bytes, with all that its payload needs to be read: at once where that is here, else when registry and
 * keys have told it, however long they are away. Throws, or rejects, with a fault of the bytes (`recordFault`), with what nobody
 * declared, or, once it is `gone`, with what it waited for.
 */
export function readDelivery(ports: Ports, value: Buffer | null, gone: () => boolean): DeliveryValue | Promise<DeliveryValue> {
  if (value === null) throw new WeirError('avro-undecodable', 'no value');
  if (!ports.serde.known(value)) return lookUp(ports, value, gone);
  const delivery = decode(ports, value);
  return ports.serde.known(delivery.payload) ? delivery : lookUp(ports, value, gone);
}

function lookUp(ports: Ports, value: Buffer, gone: () => boolean): Promise<DeliveryValue> {
  const { serde } = ports;
  let told = false;
  return patiently(ports.clock, gone, async () => {
    if (!serde.known(value)) await serde.prepare(value);
    const delivery = decode(ports, value);
    if (!serde.known(delivery.payload)) await serde.prepare(delivery.payload);
    await findKey(ports, delivery, gone);
    return delivery;
  }, (error) => {
    if (!told) ports.logger.warn({ err: error, destination: ports.name }, 'a delivery waits for what is needed to read it');
    told = true;
  });
}

/** Whether an erasure is why the payload's key is gone. The record of an erasure is under a key that ends with it. */
export function isErased(keys: Pick<KeyRing, 'erasedUntil'>, { recordType, ids, acceptedAt }: DeliveryValue): boolean {
  return recordType === 'weir.canonical.Erasure' || keys.erasedUntil(ids) >= acceptedAt;
}

/** Where nothing says why the key is missing, it may only not have been read yet. */
async function findKey({ keys, serde }: Ports, delivery: DeliveryValue, gone: () => boolean): Promise<void> {
  const { payload } = delivery;
  if (keys === undefined || !isSealed(payload) || keys.has(sealedBy(payload)) || isErased(keys, delivery)) return;
  await keys.find([sealedBy(payload)], gone);
  if (gone()) throw new WeirError('log-assignment-stale', 'the partition is another one\'s');
  if (keys.has(sealedBy(payload)) && !serde.known(payload)) await serde.prepare(payload);
}
