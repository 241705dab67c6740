/** An event of a person, with the outputs of it that are the person's: id to canonical record name, undefined when its key is destroyed. */
export interface SubjectEvent {
  readonly eventId: string;
  readonly source: string;
  readonly outputs: ReadonlyMap<string, string | undefined>;
}

interface Seen {
  readonly at: number;
  readonly eventId: string;
  readonly outputId: string;
  readonly source: string;
  readonly type: string | undefined;
}

/** The newest events of a person by the time of their records, which come partition by partition; memory is bounded by twice `most`. */
export function createNewestEvents(most: number) {
  let events = new Map<string, SubjectEvent & { at: number; readonly outputs: Map<string, string | undefined> }>();
  let cut = false;
  function prune(): void {
    if (events.size <= most) return;
    cut = true;
    events = new Map([...events].sort(([, a], [, b]) => b.at - a.at).slice(0, most));
  }
  return {
    add({ at, eventId, outputId, source, type }: Seen): void {
      let event = events.get(eventId);
      if (event === undefined) events.set(eventId, event = { at, eventId, source, outputs: new Map() });
      event.at = Math.max(event.at, at);
      event.outputs.set(outputId, type);
      if (events.size > 2 * most) prune();
    },
    newest(): readonly SubjectEvent[] {
      prune();
      return [...events.values()];
    },
    /** Some were left out; known after `newest`. */
    cut: (): boolean => cut,
  };
}
