import { bucketOf } from '@weir/http';
import type { DestinationConfig } from '@weir/release';
import type { Ready } from './batch.ts';
import { restrictSince, type Lane } from './lane.ts';
import { classOf } from './quota.ts';
import { createReady, type Ordered } from './ready.ts';

/** No operation has a bucket of that name: what hurries is looked at though the quota of its head is closed. */
const hurry = '\u0000hurry';
/** Places that are nobody's any more, before they are cleared away. */
const maxStale = 1000;

/**
 * Lanes in line for a call, each at one place. A lane whose head is a use with something behind it that restricts has the
 * class of that: it is looked at first, and whoever looks finds out whether the head can go or must make way.
 */
export function createHeads(configured: () => DestinationConfig | undefined) {
  const ready = createReady<Ready>();
  let stale = 0;
  const gone = (entry: Ready): boolean => entry.lane.dead || entry.lane.place !== entry;

  function hurries(lane: Lane): boolean {
    return lane.queue[0]!.delivery.kind !== 'restrict' && restrictSince(lane) !== undefined;
  }

  function drop(): void {
    ready.drop(gone);
    stale = 0;
  }

  return {
    /** A lane has a head that nobody works on. */
    push(entry: Ready): void {
      const { lane } = entry;
      const task = lane.queue[0]!;
      const { operation: name } = task.delivery;
      const operation = configured()?.operations[name];
      lane.place = entry;
      ready.push(hurries(lane) ? { class: 'restrict', bucket: hurry, item: entry } : { class: classOf(task, operation?.kind), bucket: bucketOf(name, operation?.limit), item: entry });
    },
    /** Back to where it was, or to the front of what hurries: it could not start. */
    putBack(next: Ordered<Ready>): void {
      const { lane } = next.item;
      if (lane.dead) return;
      lane.place = next.item;
      ready.putBack(next.class !== 'restrict' && hurries(lane) ? { class: 'restrict', bucket: hurry, item: next.item } : next);
    },
    /** Something that restricts came behind the head. False: the lane is not in line, or its head restricts, too. */
    raise(lane: Lane): boolean {
      const { place } = lane;
      if (place === undefined || lane.dead || !hurries(lane)) return false;
      const entry = { ...place };
      lane.place = entry;
      ready.push({ class: 'restrict', bucket: hurry, item: entry });
      if (++stale > maxStale && stale * 2 > ready.size()) drop();
      return true;
    },
    /** Takes the next of an open bucket out of line; undefined when there is none. */
    next(open: (bucket: string) => boolean): Ordered<Ready> | undefined {
      for (let next = ready.next(open); next !== undefined; next = ready.next(open)) {
        const { item } = next;
        if (!gone(item)) {
          item.lane.place = undefined;
          return next;
        }
        if (!item.lane.dead) stale--;
      }
      return undefined;
    },
    /** Lets go of those that nobody will start. */
    drop,
    size: () => ready.size() - stale,
  };
}
