import type { Lane, Slot } from './lane.ts';

/** How many parked subjects may have a head in hand, counted for each reason apart, so that none of these waits behind another. */
export interface Slots {
  /** Free ones; of `empty` there is no end. */
  free(slot: Slot): number;
  /** False: there is none. */
  take(lane: Lane, slot: Slot): boolean;
  /** True: somebody sleeps for want of one, and there are enough again to look. */
  giveBack(lane: Lane): boolean;
  /** Some sleep for want of a slot. */
  starve(): void;
}

/** @param heads of each kind at most */
export function createSlots(heads: () => number): Slots {
  const inHand = new Map<Slot, Set<Lane>>();
  let starved = false;
  const free = (slot: Slot): number => heads() - (inHand.get(slot)?.size ?? 0);
  return {
    free,
    take(lane, slot) {
      if (slot !== 'empty' && free(slot) <= 0) return false;
      lane.parked!.slot = slot;
      let lanes = inHand.get(slot);
      if (lanes === undefined) inHand.set(slot, lanes = new Set());
      lanes.add(lane);
      return true;
    },
    giveBack(lane) {
      const { slot } = lane.parked!;
      if (slot === undefined) return false;
      lane.parked!.slot = undefined;
      inHand.get(slot)!.delete(lane);
      if (!starved || free(slot) * 2 < heads()) return false;
      starved = false;
      return true;
    },
    starve() { starved = true; },
  };
}
