import { createHash } from 'node:crypto';
import type { Headers, OutRecord } from '@weir/log';
import { deliveryKey, H, type Reason } from '@weir/pipeline';
import type { CompiledRoute, Decision } from '@weir/policy';
import { controlKeys, incidentName } from '@weir/release';
import type { Canonical } from './delivery.ts';
import type { PolicyPorts } from './ports.ts';

export interface SetAside {
  readonly dlq: OutRecord;
  readonly outcome: OutRecord;
}

/** An incident that was raised and is not seen on weir.control is raised again after this time. */
const raiseEveryMs = 10_000;

type Held = Extract<Decision, { effect: 'hold' }>;

/**
 * A delivery that a rule holds until somebody lets it through: its canonical record on weir.dlq with the rule and the
 * end of the time for it, and a quarantined outcome. A repeated run gives the same letter.
 */
export function heldRecords(ports: PolicyPorts, from: Canonical, decision: Held, headers: Headers): SetAside {
  const until = from.now + decision.expiresMs;
  const reason: Reason = { code: 'approval-required', message: `rule ${decision.rule} holds it until somebody lets it through, at the latest ${new Date(until).toISOString()}` };
  return setAside(ports, from, decision.route, [reason], headers, { state: 'quarantined', reason: decision.reason, rule: decision.rule, consent: decision.consent, extra: [[H.held, Buffer.from(`${decision.rule};${until}`)]], seed: decision.rule });
}

/** A delivery that lacks something its destination needs after minimisation: nothing of it is sent. */
export function breachedRecords(ports: PolicyPorts, from: Canonical, decision: Extract<Decision, { effect: 'allow' }>, reasons: readonly Reason[], headers: Headers): SetAside {
  return setAside(ports, from, decision.route, reasons, headers, { state: 'dead-lettered', reason: 'contract-breached', rule: decision.rule, consent: decision.consent, extra: [], seed: 'contract' });
}

interface How {
  readonly state: 'quarantined' | 'dead-lettered';
  readonly reason: string;
  readonly rule: string;
  readonly consent: Decision['consent'];
  readonly extra: Headers;
  /** Part of the id of the letter. */
  readonly seed: string;
}

function setAside(ports: PolicyPorts, from: Canonical, route: CompiledRoute, reasons: readonly Reason[], headers: Headers, how: How): SetAside {
  const { serde, topics } = ports.context;
  const { record, eventId, outputId, intent, now: at } = from;
  const key = Buffer.from(eventId);
  const letter = {
    id: 'dlq_' + createHash('sha256').update(['policy', outputId, route.destination, route.operation, intent, how.seed].join('\0')).digest('hex').slice(0, 32),
    eventId, stage: 'policy', reasons: reasons.map((r) => ({ code: r.code, message: r.message.slice(0, 500), file: r.file ?? null, line: r.line ?? null, field: r.field ?? null, path: null })),
    source: from.source, destination: route.destination, operation: route.operation, attempts: 0, release: from.release,
    topic: topics.canonical, partition: from.partition, offset: record.offset, key: record.key, value: record.value,
    headers: [...record.headers.filter(([name]) => name !== H.held), ...how.extra].map(([name, value]) => ({ name, value })), effect: 'none', acceptedAt: from.acceptedAt, at,
  };
  const outcome = {
    eventId, outputId, destination: route.destination, operation: route.operation, key: deliveryKey(outputId, route.destination, route.operation, intent, 0),
    state: how.state, reason: how.reason, detail: reasons.map((r) => r.message).join('; ').slice(0, 500), stage: 'policy', release: from.release, rule: how.rule, purpose: route.purpose ?? null,
    consent: how.consent, attempts: 0, status: null, attempt: null, acceptedAt: from.acceptedAt, at,
  };
  return {
    dlq: { partition: ports.appender.partitionFor(topics.dlq, key), key, value: serde.encode('weir.internal.DeadLetter', letter), headers },
    outcome: { partition: ports.appender.partitionFor(topics.outcome, key), key, value: serde.encode('weir.internal.Outcome', outcome), headers },
  };
}

/** The incident of an escalating rule, for weir.control; undefined while it is open already. */
export function escalation(ports: PolicyPorts, decision: Held, now: number, raised: Map<string, number>): OutRecord | undefined {
  const name = incidentName.rule(decision.rule);
  if (ports.context.releases.incidents().get(name)?.until === null || now - (raised.get(name) ?? -Infinity) < raiseEveryMs) return undefined;
  raised.set(name, now);
  return { partition: 0, key: Buffer.from(controlKeys.incident(name)), value: ports.context.serde.encode('weir.internal.Incident', { destination: name, code: 'approval-required', since: now, until: null }) };
}
