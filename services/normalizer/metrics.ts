import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

export function createMetrics(registry: Registry) {
  const registers = [registry];
  return {
    records: new Counter({ name: 'weir_normalizer_records_total', help: 'Raw records that ended, by result.', labelNames: ['source', 'result'], registers }),
    outputs: new Counter({ name: 'weir_normalizer_outputs_total', help: 'Canonical records written, by type.', labelNames: ['source', 'record'], registers }),
    failures: new Counter({ name: 'weir_normalizer_dead_letters_total', help: 'Dead letters, by code of the first reason.', labelNames: ['source', 'code'], registers }),
    unrouted: new Counter({ name: 'weir_consent_unrouted_total', help: 'Changes of consent of a mapping with a channel or topic (part) that no route has: a no (said) to a channel closes all of them, to a topic that alone, a yes opens nothing.', labelNames: ['source', 'part', 'said'], registers }),
    headersLeft: new Counter({ name: 'weir_normalizer_headers_left_total', help: 'Headers of replayed raw records that were not carried on, for their name had come before: somebody else writes the raw topic.', labelNames: ['source'], registers }),
    lookedAhead: new Counter({ name: 'weir_normalizer_looked_ahead_total', help: 'Raw records that wait behind a backlog and were looked at for changes of consent that close.', labelNames: ['source'], registers }),
    closedAhead: new Counter({ name: 'weir_consent_closed_ahead_total', help: 'Raw records whose changes of consent that close were written before their turn.', labelNames: ['source'], registers }),
    batch: new Histogram({ name: 'weir_normalizer_batch_seconds', help: 'From taking a batch to its acknowledged outputs.', buckets: [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5], registers }),
    topicMissing: new Gauge({ name: 'weir_source_topic_missing', help: '1 while nothing of the source is taken or read because its raw topic does not exist.', labelNames: ['source'], registers }),
    loading: new Gauge({ name: 'weir_event_ids_load_remaining', help: 'Raw records whose event ids are still to be read before anything of the partition is normalised.', labelNames: ['topic', 'partition'], registers }),
    lag: new Gauge({ name: 'weir_normalizer_lag', help: 'Raw records not yet read.', labelNames: ['topic', 'partition'], registers }),
  };
}
export type NormalizerMetrics = ReturnType<typeof createMetrics>;
