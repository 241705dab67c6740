/** What of a stage of a trace says of which delivery it is. */
export interface TraceStage {
  readonly stage: string;
  readonly [detail: string]: unknown;
}

/** Name of the delivery that a stage is of: one output of the event, for one operation of a destination. */
export const deliveryOfStage = (stage: TraceStage): string => JSON.stringify([stage['outputId'] === undefined ? 0 : stage['outputId'], stage['destination'], stage['operation']]);

/**
 * The last end of a decision of an event, whose stages are in the order of the way. An event has several outputs, and
 * each ends by itself; an end that was indexed before ends named their output counts for each of them.
 */
export function endsOf<S extends TraceStage>(stages: readonly S[]): (decided: TraceStage) => S | undefined {
  const last = new Map<string, number>();
  stages.forEach((stage, i) => { if (stage.stage === 'outcome') last.set(deliveryOfStage(stage), i); });
  const unnamed = (stage: TraceStage): string => deliveryOfStage({ ...stage, outputId: undefined });
  return (decided) => stages[Math.max(last.get(deliveryOfStage(decided)) ?? -1, last.get(unnamed(decided)) ?? -1)];
}
