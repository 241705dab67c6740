import type { openTable, Seen, Table } from '@weir/state';

/** The disk of one instance: tables by path. It outlives a killed process; `lose` is a disk that was lost. */
export interface Disk {
  readonly open: typeof openTable;
  lose(): void;
}

export function createDisk(): Disk {
  let files = new Map<string, { values: Map<string, Buffer>; positions: Map<number, number>; seen: Map<number, Seen> }>();
  return {
    lose: () => { files = new Map(); },
    open({ path }): Table {
      const mine = files.get(path) ?? { values: new Map<string, Buffer>(), positions: new Map<number, number>(), seen: new Map<number, Seen>() };
      files.set(path, mine);
      const { values, positions, seen } = mine;
      const clear = (): void => {
        values.clear();
        positions.clear();
        seen.clear();
      };
      return {
        get: (key) => values.get(key),
        text: (key) => values.get(key)?.toString('utf8'),
        has: (key) => values.has(key),
        range: (prefix, after) => [...values].filter(([key]) => key.startsWith(prefix) && (after === undefined || Buffer.compare(Buffer.from(key), Buffer.from(after)) > 0)).map(([key, value]) => ({ key, value })).sort((a, b) => Buffer.compare(Buffer.from(a.key), Buffer.from(b.key))),
        putBatch(puts, nextPositions, nextSeen) {
          for (const { key, value } of puts) {
            if (value === null) values.delete(key);
            else values.set(key, Buffer.from(value));
          }
          for (const [partition, next] of nextPositions ?? []) positions.set(partition, next);
          for (const [partition, next] of nextSeen ?? []) seen.set(partition, next);
        },
        loading: () => {},
        loaded: () => {},
        position: (partition) => positions.get(partition),
        positions: () => new Map(positions),
        seen: (partition) => seen.get(partition),
        bytes: () => [...values.values()].reduce((sum, value) => sum + value.length, 0),
        clear,
        close: () => Promise.resolve(),
        drop: () => {
          clear();
          return Promise.resolve();
        },
      };
    },
  };
}
