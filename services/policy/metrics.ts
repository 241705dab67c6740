import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

/** Metrics of the policy service; labels are bounded by the release and by closed sets (of a reason only the part before the colon). */
export function createMetrics(registry: Registry) {
  const registers = [registry];
  return {
    decisions: new Counter({ name: 'weir_policy_decisions_total', help: 'Decisions, by destination, effect and class of the reason.', labelNames: ['destination', 'effect', 'reason'], registers }),
    deadLettered: new Counter({ name: 'weir_policy_dead_lettered_total', help: 'Records that could not be decided or folded, by stage and code.', labelNames: ['stage', 'code'], registers }),
    lag: new Gauge({ name: 'weir_policy_lag', help: 'Records not yet finished, by topic and partition.', labelNames: ['topic', 'partition'], registers }),
    loading: new Gauge({ name: 'weir_policy_limits_load_remaining', help: 'Deliveries still to be read for what limit rules have counted before anything of the partitions of this instance is decided.', labelNames: ['topic', 'partition'], registers }),
    topicMissing: new Gauge({ name: 'weir_policy_topic_missing', help: '1 while nothing is decided because a topic of the running release does not exist.', registers }),
    waited: new Histogram({ name: 'weir_policy_wait_seconds', help: 'How long a record waited for the consent and identity it depends on.', buckets: [0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1, 5, 30], registers }),
    folded: new Counter({ name: 'weir_consent_folded_total', help: 'Consent changes folded, by whether they changed a state; erased: what somebody had said before the erasure.', labelNames: ['changed'], registers }),
    applied: new Histogram({ name: 'weir_consent_applied_seconds', help: 'From the acceptance of a consent change, whatever its source, until every instance that may call had applied it; only where the release has a route of ConsentApplied.', buckets: [0.01, 0.02, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120], registers }),
    unknownPurpose: new Counter({ name: 'weir_consent_unknown_purpose_total', help: 'Consent changes for a purpose that the workspace does not have, by source.', labelNames: ['source'], registers }),
    foldLatency: new Histogram({ name: 'weir_consent_fold_seconds', help: 'From the append of a consent change to the acknowledged state.', buckets: [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1, 5, 30], registers }),
  };
}
export type PolicyMetrics = ReturnType<typeof createMetrics>;
