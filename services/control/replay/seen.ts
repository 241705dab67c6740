/** A set of ids, 16 bytes of memory per slot: a replay must know which deliveries it met, and they are many. */
export interface IdSet {
  /** False when it is there already. `hex` = 24 hex digits or more, of which the first 24 count. */
  add(hex: string): boolean;
  readonly size: number;
}

/** 96 bits of the id, as two exact integers; with n ids the chance that two are taken for one is below n² / 2^97. */
export function createIdSet(capacity = 1024): IdSet {
  let slots = 2 ** Math.ceil(Math.log2(Math.max(16, capacity * 2)));
  let high = new Float64Array(slots);
  let low = new Float64Array(slots);
  let size = 0;

  /** 0 stands for an empty slot. */
  function place(h: number, l: number): boolean {
    for (let at = (h % slots); ; at = at + 1 === slots ? 0 : at + 1) {
      if (high[at] === 0) {
        high[at] = h;
        low[at] = l;
        return true;
      }
      if (high[at] === h && low[at] === l) return false;
    }
  }

  function grow(): void {
    const [oldHigh, oldLow] = [high, low];
    slots *= 2;
    high = new Float64Array(slots);
    low = new Float64Array(slots);
    for (let i = 0; i < oldHigh.length; i++) if (oldHigh[i] !== 0) place(oldHigh[i]!, oldLow[i]!);
  }

  return {
    add(hex) {
      const added = place(Number.parseInt(hex.slice(0, 12), 16) + 1, Number.parseInt(hex.slice(12, 24), 16));
      if (added && ++size * 2 > slots) grow();
      return added;
    },
    get size() { return size; },
  };
}
