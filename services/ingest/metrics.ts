import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

export function createMetrics(registry: Registry, inflightBytes: () => number) {
  const registers = [registry];
  /** Taken since somebody asked: a set of labels costs as much to count one as to count thousands. */
  const requestsOf = new Map<string, number>();
  const itemsOf = new Map<string, number>();
  const count = (counted: Map<string, number>, source: string, by: number): void => { counted.set(source, (counted.get(source) ?? 0) + by); };
  const give = (counted: Map<string, number>, to: (source: string, by: number) => void): void => {
    for (const [source, by] of counted) to(source, by);
    counted.clear();
  };
  new Gauge({ name: 'weir_ingest_inflight_bytes', help: 'Bytes held by requests, or taken and not acknowledged.', registers, collect() { this.set(inflightBytes()); } });
  return {
    /** A request whose items the log has acknowledged. */
    taken(source: string, items: number): void {
      count(requestsOf, source, 1);
      count(itemsOf, source, items);
    },
    requests: new Counter({ name: 'weir_ingest_requests_total', help: 'Requests by source and answer: ok or an error code.', labelNames: ['source', 'result'], registers, collect() { give(requestsOf, (source, by) => this.inc({ source, result: 'ok' }, by)); } }),
    items: new Counter({ name: 'weir_ingest_items_total', help: 'Items accepted.', labelNames: ['source'], registers, collect() { give(itemsOf, (source, by) => this.inc({ source }, by)); } }),
    ack: new Histogram({ name: 'weir_ingest_ack_seconds', help: 'From the verified body to the acknowledgement of the log.', buckets: [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5], registers }),
    consentApplied: new Histogram({ name: 'weir_ingest_consent_applied_seconds', help: 'Consent API: from the request to the answer that the change is applied everywhere.', buckets: [0.01, 0.02, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30], registers }),
    topicMissing: new Gauge({ name: 'weir_source_topic_missing', help: '1 while nothing of the source is taken or read because its raw topic does not exist.', labelNames: ['source'], registers }),
    oversized: new Counter({ name: 'weir_ingest_oversized_items_total', help: 'Items of polled pages that were larger than a record and are dead letters.', labelNames: ['source'], registers }),
    polls: new Counter({ name: 'weir_ingest_polls_total', help: 'Calls of pollers, by source and result: ok, lost (the lease), a verdict or an error code.', labelNames: ['source', 'result'], registers }),
  };
}
export type IngestMetrics = ReturnType<typeof createMetrics>;
