import { createSerde, type Serde } from '@weir/log';

/** A serde that has started, without a registry: it numbers the schemas of this version, and knows no others. */
export async function createLocalSerde(): Promise<Serde> {
  let ids = 0;
  const serde = createSerde({ registryUrl: '', registry: { register: async () => ({ id: ++ids }), getSchema: () => Promise.reject(new Error('no registry')) } });
  await serde.start();
  return serde;
}
