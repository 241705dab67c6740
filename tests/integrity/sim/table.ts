import type { openTable, Put, Seen, Table } from '@weir/state';

interface File { readonly values: Map<string, Buffer>; readonly positions: Map<number, number>; readonly seen: Map<number, Seen> }

const createFile = (): File => ({ values: new Map(), positions: new Map(), seen: new Map() });

function apply({ values, positions, seen }: File, puts: readonly Put[], nextPositions?: ReadonlyMap<number, number>, nextSeen?: ReadonlyMap<number, Seen>): void {
  for (const { key, value } of puts) {
    if (value === null) values.delete(key);
    else values.set(key, Buffer.from(value));
  }
  for (const [partition, next] of nextPositions ?? []) positions.set(partition, next);
  for (const [partition, next] of nextSeen ?? []) seen.set(partition, next);
}

/** The disk of one instance: tables by path. It outlives a killed process, without what that had gathered and not written; `lose` is a disk that was lost. */
export interface Disk {
  readonly open: typeof openTable;
  /** Of the table that was opened last in this folder, what its process sees: next offsets of partitions. */
  positions(path: string): Map<number, number>;
  lose(): void;
}

export function createDisk(): Disk {
  let files = new Map<string, File>();
  const opened = new Map<string, File>();
  return {
    positions: (path) => new Map(opened.get(path)?.positions),
    lose: () => { files = new Map(); },
    open({ path }): Table {
      const disk = files.get(path) ?? createFile();
      files.set(path, disk);
      const live: File = { values: new Map(disk.values), positions: new Map(disk.positions), seen: new Map(disk.seen) };
      opened.set(path, live);
      const { values, positions, seen } = live;
      /** Of the process only, until they are written; undefined = nothing is gathered. */
      let gathered: Parameters<Table['putBatch']>[] | undefined;
      const flush = (): void => {
        for (const batch of gathered?.splice(0) ?? []) apply(disk, ...batch);
      };
      const clear = (): void => {
        gathered?.splice(0);
        for (const file of [live, disk]) for (const map of [file.values, file.positions, file.seen]) map.clear();
      };
      return {
        get: (key) => values.get(key),
        text: (key) => values.get(key)?.toString('utf8'),
        has: (key) => values.has(key),
        range: (prefix, after) => (flush(), [...values]).filter(([key]) => key.startsWith(prefix) && (after === undefined || Buffer.compare(Buffer.from(key), Buffer.from(after)) > 0)).map(([key, value]) => ({ key, value })).sort((a, b) => Buffer.compare(Buffer.from(a.key), Buffer.from(b.key))),
        putBatch(...batch) {
          apply(live, ...batch);
          if (gathered === undefined) apply(disk, ...batch);
          else gathered.push(batch);
        },
        loading: () => { gathered ??= []; },
        loaded() {
          flush();
          gathered = undefined;
        },
        position: (partition) => positions.get(partition),
        positions: () => new Map(positions),
        seen: (partition) => seen.get(partition),
        bytes: () => [...values.values()].reduce((sum, value) => sum + value.length, 0),
        clear,
        close() {
          flush();
          return Promise.resolve();
        },
        drop: () => {
          clear();
          return Promise.resolve();
        },
      };
    },
  };
}
