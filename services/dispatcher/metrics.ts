import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

/** Metrics of the dispatcher; labels are bounded by the release (destinations, operations) and by closed sets. */
export function createMetrics(registry: Registry) {
  const registers = [registry];
  const ends = createTally();
  const inFlight = new Map<string, number>();
  return {
    /** One more of `weir_deliveries_ended_total`. */
    end: ends.add,
    /** Sets `weir_delivery_calls_in_flight`. */
    callsInFlight(destination: string, calls: number): void { inFlight.set(destination, calls); },
    ended: new Counter({
      name: 'weir_deliveries_ended_total', help: 'Deliveries that ended, by state and code.', labelNames: ['destination', 'operation', 'state', 'code'], registers,
      collect() { ends.give((labels, count) => this.inc({ ...labels }, count)); },
    }),
    calls: new Histogram({ name: 'weir_delivery_call_seconds', help: 'Vendor calls, by verdict; a batched one once for each verdict in it.', labelNames: ['destination', 'operation', 'verdict'], buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10], registers }),
    batchItems: new Histogram({ name: 'weir_delivery_batch_items', help: 'Deliveries in one batched vendor call.', labelNames: ['destination'], buckets: [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000], registers }),
    readBacks: new Counter({ name: 'weir_delivery_read_backs_total', help: 'Questions to vendors whether a delivery took effect, by answer.', labelNames: ['destination', 'operation', 'answer'], registers }),
    latency: new Histogram({ name: 'weir_delivery_latency_seconds', help: 'From accept to the end of a delivery that was delivered.', labelNames: ['destination'], buckets: [0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300, 3600], registers }),
    inFlight: new Gauge({
      name: 'weir_delivery_calls_in_flight', help: 'Vendor calls in flight.', labelNames: ['destination'], registers,
      collect() { for (const [destination, calls] of inFlight) this.set({ destination }, calls); },
    }),
    breaker: new Gauge({ name: 'weir_destination_breaker_open', help: '1 while the breaker of the destination is not closed.', labelNames: ['destination'], registers }),
    topicMissing: new Gauge({ name: 'weir_destination_topic_missing', help: '1 while the destination is not served because one of its topics does not exist.', labelNames: ['destination'], registers }),
    switchedOff: new Gauge({ name: 'weir_destination_switched_off', help: '1 while the kill switch holds the destination.', labelNames: ['destination'], registers }),
    parked: new Gauge({ name: 'weir_parked_subjects', help: 'Subjects whose deliveries wait on the parked topic.', labelNames: ['destination'], registers }),
    takeover: new Gauge({ name: 'weir_ledger_takeover_remaining', help: 'Records of weir.ledger.<destination> still to be read before the partition is served.', labelNames: ['destination', 'partition'], registers }),
    cached: new Gauge({ name: 'weir_ledger_cache_bytes', help: 'Bytes of the local cache of the ledger that hold something.', labelNames: ['destination'], registers }),
    pruned: new Counter({ name: 'weir_ledger_cache_pruned_total', help: 'Ends that left the local cache of the ledger: older than the dedupe window.', labelNames: ['destination'], registers }),
    lag: new Gauge({ name: 'weir_dispatch_lag', help: 'Records on weir.dispatch.<destination> not yet read by this instance.', labelNames: ['destination', 'partition'], registers }),
    refused: new Counter({ name: 'weir_delivery_calls_refused_total', help: 'Calls not started at the last moment, by reason.', labelNames: ['destination', 'reason'], registers }),
  };
}

interface EndLabels {
  readonly destination: string;
  readonly operation: string;
  readonly state: string;
  readonly code: string;
}

/** Ends of deliveries until they are asked for: a labelled counter makes a text of its labels for each. */
function createTally() {
  const counts = new Map<string, { readonly labels: EndLabels; count: number }>();
  let last: { readonly labels: EndLabels; count: number } | undefined;
  return {
    add(destination: string, operation: string, state: string, code: string): void {
      if (last === undefined || last.labels.state !== state || last.labels.operation !== operation || last.labels.destination !== destination || last.labels.code !== code) {
        const name = JSON.stringify([destination, operation, state, code]);
        last = counts.get(name);
        if (last === undefined) counts.set(name, last = { labels: { destination, operation, state, code }, count: 0 });
      }
      last.count++;
    },
    /** Those since the last time. */
    give(to: (labels: EndLabels, count: number) => void): void {
      for (const entry of counts.values()) {
        if (entry.count > 0) to(entry.labels, entry.count);
        entry.count = 0;
      }
    },
  };
}

export type DispatcherMetrics = ReturnType<typeof createMetrics>;
