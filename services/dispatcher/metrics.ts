import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

/** Metrics of the dispatcher; labels are bounded by the release (destinations, operations) and by closed sets. */
export function createMetrics(registry: Registry) {
  const registers = [registry];
  return {
    ended: new Counter({ name: 'weir_deliveries_ended_total', help: 'Deliveries that ended, by state and code.', labelNames: ['destination', 'operation', 'state', 'code'], registers }),
    calls: new Histogram({ name: 'weir_delivery_call_seconds', help: 'Vendor calls, by verdict.', labelNames: ['destination', 'operation', 'verdict'], buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10], registers }),
    batchItems: new Histogram({ name: 'weir_delivery_batch_items', help: 'Deliveries in one batched vendor call.', labelNames: ['destination'], buckets: [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000], registers }),
    readBacks: new Counter({ name: 'weir_delivery_read_backs_total', help: 'Questions to vendors whether a delivery took effect, by answer.', labelNames: ['destination', 'operation', 'answer'], registers }),
    latency: new Histogram({ name: 'weir_delivery_latency_seconds', help: 'From accept to the end of a delivery that was delivered.', labelNames: ['destination'], buckets: [0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300, 3600], registers }),
    inFlight: new Gauge({ name: 'weir_delivery_calls_in_flight', help: 'Vendor calls in flight.', labelNames: ['destination'], registers }),
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
export type DispatcherMetrics = ReturnType<typeof createMetrics>;
