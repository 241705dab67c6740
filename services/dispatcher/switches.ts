import type { DestinationConfig, ReleaseFeed } from '@weir/release';

/**
 * The kill switch over a destination's own `enabled`. Paused, no call starts (looked at again in the tick of the
 * socket write), a call already written is not cut, and events stay on the topic. One object per state and
 * destination, so that asking on every call costs a look-up.
 */
export function createSwitches(releases: Pick<ReleaseFeed, 'switches'>): { apply(destination: DestinationConfig | undefined): DestinationConfig | undefined; paused(name: string): boolean } {
  const off = new WeakMap<DestinationConfig, DestinationConfig>();
  const paused = (name: string): boolean => releases.switches().get(name)?.paused === true;
  return {
    paused,
    apply(destination) {
      if (destination === undefined || !destination.enabled || !paused(destination.name)) return destination;
      let disabled = off.get(destination);
      if (disabled === undefined) off.set(destination, disabled = { ...destination, enabled: false });
      return disabled;
    },
  };
}
