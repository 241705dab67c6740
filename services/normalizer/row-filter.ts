import { createKeyFilter, type KeyFilter, type Table } from '@weir/state';

/**
 * Tells of most keys without a row that they have none, without a look at the table. Rows that were there when it was made are
 * taken in a slice at a time (`step`); until all of them are, it tells of none.
 */
export interface RowFilter {
  /** Before the row is written. */
  add(key: string): void;
  /** True: there is surely no row. */
  absent(key: string): boolean;
  /** Takes in up to `limit` more of the rows that were there before. */
  step(limit: number): void;
}

/** Beyond it one key in fourteen without a row is let through. */
const defaultMost = 5_000_000;

/** @param most keys, those of rows that are deleted by now among them; then it is made anew, once, or left when so many have a row. */
export function createRowFilter(table: Table, most = defaultMost): RowFilter {
  let filter: KeyFilter | undefined;
  let count = 0;
  /** Last row that was taken in. */
  let after: string | undefined;
  let whole = false;

  function begin(): void {
    filter = createKeyFilter();
    count = 0;
    after = undefined;
    whole = false;
  }

  function add(key: string): void {
    if (filter === undefined) return;
    filter.add(key);
    if (++count <= most) return;
    if (whole) begin();
    else filter = undefined;
  }

  begin();
  return {
    add,
    absent: (key) => whole && filter?.may(key) === false,
    step(limit) {
      if (whole || filter === undefined) return;
      let left = limit;
      for (const { key } of table.range('', after)) {
        if (left-- === 0) return;
        after = key;
        add(key);
        if (filter === undefined) return;
      }
      whole = true;
    },
  };
}
