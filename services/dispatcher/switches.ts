import type { DestinationConfig, ReleaseFeed } from '@weir/release';
import type { Clock } from '@weir/service';

export interface Switches {
  /** The destination as it may be called now. */
  apply(destination: DestinationConfig | undefined): DestinationConfig | undefined;
  paused(name: string): boolean;
  /** False: weir.control has not been read for too long, and every destination counts as paused. */
  known(): boolean;
  /** True once it is known again after a destination was held back for that, however short it was: whoever asked then asks again only when told. */
  heldBack(): boolean;
}

/**
 * The kill switch over a destination's own `enabled`. Paused, no call starts (looked at again in the tick of the
 * socket write), a call already written is not cut, and events stay on the topic. One object per state and
 * destination, so that asking on every call costs a look-up.
 * @param leaseMs for so long what was read of weir.control counts: who cannot read it may have missed a switch
 */
export function createSwitches(releases: Pick<ReleaseFeed, 'switches' | 'ageMs'>, leaseMs: number, clock: Pick<Clock, 'now' | 'monotonic'>): Switches {
  const off = new WeakMap<DestinationConfig, DestinationConfig>();
  const paused = (name: string): boolean => releases.switches().get(name)?.paused === true;
  /** When what was read by the last look runs out: asked several times for each call. */
  let until = { monotonic: Number.NEGATIVE_INFINITY, wall: Number.NEGATIVE_INFINITY };
  let held = false;

  function known(): boolean {
    const monotonic = clock.monotonic();
    const wall = clock.now();
    if (monotonic < until.monotonic && wall < until.wall) return true;
    const left = leaseMs - releases.ageMs();
    until = { monotonic: monotonic + left, wall: wall + left };
    return left > 0;
  }
  return {
    paused,
    known,
    heldBack() {
      if (!held || !known()) return false;
      held = false;
      return true;
    },
    apply(destination) {
      if (destination === undefined || !destination.enabled) return destination;
      if (!paused(destination.name)) {
        if (known()) return destination;
        held = true;
      }
      let disabled = off.get(destination);
      if (disabled === undefined) off.set(destination, disabled = { ...destination, enabled: false });
      return disabled;
    },
  };
}
