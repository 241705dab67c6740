/** Harm between the port and a real broker: a driver whose requests are held, lost or answered otherwise while the harm is on. */
import type { BrokerConnection, Driver } from '../../packages/log/driver.ts';
import { kafkajs } from '../../packages/log/drivers/kafkajs.ts';
import { platformatic } from '../../packages/log/drivers/platformatic.ts';

export type Requests = { readonly [K in keyof BrokerConnection]?: (send: BrokerConnection[K]) => BrokerConnection[K] };

export interface HarmedDriver extends Driver {
  /** What stands between from now on; replaces what stood there. */
  harm(requests: Requests): void;
  heal(): void;
  /** Cut every connection that is open. */
  cut(): number;
}

/** An answer that never comes. */
export const never = (): Promise<never> => new Promise(() => {});

export function harmed(name: Driver['name']): HarmedDriver {
  const driver = name === 'kafkajs' ? kafkajs : platformatic;
  const open = new Set<BrokerConnection>();
  let now: Requests = {};
  return {
    name,
    async connect(clientId, endpoint, timeoutMs, onClose, secured) {
      const closed = Promise.withResolvers<never>();
      closed.promise.catch((error: unknown) => error);
      const real = await driver.connect(clientId, endpoint, timeoutMs, () => {
        open.delete(real);
        closed.reject(new Error('the connection was closed'));
        onClose();
      }, secured);
      open.add(real);
      return new Proxy(real, {
        get(target, key: keyof BrokerConnection) {
          // A promise looks whether it is one itself.
          if (typeof target[key] !== 'function') return undefined;
          const send = target[key].bind(target) as never;
          const between = now[key] as ((send: never) => (...args: unknown[]) => unknown) | undefined;
          // As without harm: a request without an answer rejects when its connection ends.
          return between === undefined ? send : (...args: unknown[]) => Promise.race([between(send)(...args), closed.promise]);
        },
      });
    },
    harm(requests) { now = requests; },
    heal() { now = {}; },
    cut() {
      const list = [...open];
      for (const connection of list) connection.destroy();
      return list.length;
    },
  };
}
