import type { LogAdmin } from '@weir/log';
import type { groupNames, TopicNames } from '@weir/pipeline';
import { incidentAbout, replayOf, type Incident, type Release } from '@weir/release';
import { count, flag, instant, list, map, named, nullable, object, optional, text, type TypeOf } from '@weir/service';
import type { Store } from './store.ts';
import { switchView, type SwitchView } from './switches.ts';
import type { Unresolved } from './unresolved.ts';

const incident = named('Incident', object('Something that people have to look at; nothing is lost meanwhile.', {
  destination: text('Destination that is paused for its credential; `policy/<rule>`: deliveries that an escalating rule holds; `source/<name>`: a polled source; `consent/<source>`: changes of consent that bind nobody.'),
  code: text('Code of docs/errors.md.', { example: 'credential-rejected' }), since: instant('Since when.'),
  open: optional(count('Of consent: events that wait to be put right.')),
  replay: optional(nullable(text('The command that sends again, from the start of the incident, what was not delivered; of destinations.'))),
}));
export const statusReply = named('Status', object('Counts of events, deliveries and dead letters, and lag.', {
  events: object('Events.', { accepted: count('Accepted, each once.'), pending: count('On their way to a decision; 0 only when everything accepted before the call has ended.'), dropped: count('Dropped by a mapping, or by a person.'), deadLettered: count('Set aside before they were routed.'), quarantined: count('Set aside with an alarm before they were routed.') }),
  deliveries: object('Deliveries: an output, a destination and an operation each.', { delivered: count('Taken by the vendor.'), denied: count('Not let through by policy or consent.'), deadLettered: count('Refused for good, or out of retries.'), quarantined: count('Set aside with an alarm.'), superseded: count('Older than what was delivered meanwhile.'), failedOver: count('Gone on to the second vendor.'), pending: count('On their way.') }),
  deadLetters: count('Dead letters that are kept.'),
  held: count('Deliveries of unknown effect that wait for a person; they are among the quarantined.'),
  lag: map(count('Records.'), 'Records between the end of the topic and the committed offset, by stage; `index` is this service\'s own.'),
  release: text('Hash of the running release.', { example: 'rel_2f1c0a9b4d6e' }), ready: flag('Always true: it answers once it has started.'),
  callers: nullable(count('Dispatchers that have read the tables of consent: no other starts a `use` call. Null while that is not known.')),
  incidents: list(incident, 'Open ones.'),
  ended: list(object('An incident of a destination that is over.', { destination: text('Destination.'), code: text('Code of docs/errors.md.'), since: instant('Since when it was.'), until: instant('When it ended.'), replay: text('The command that sends again what was given up while it lasted.') }), 'Ended within seven days, the last of each destination, the newest first; 20 at most.'),
  paused: list(switchView, 'Destinations that the kill switch holds; their events are kept.'),
  retired: list(object('A destination that has left the release.', { destination: text('Destination.'), waiting: count('Records on its topic that no dispatcher takes.') }), 'Told while deliveries are pending: those to these destinations stay so until a release has them again.'),
}));
export type Status = TypeOf<typeof statusReply>;

/** Incidents of rules, and of polled sources of the release; those of consent are counted from their letters. */
function isShown(incident: string, release: Release): boolean {
  const { kind, name } = incidentAbout(incident);
  return kind === 'policy' || (kind === 'source' && release.sources.has(name));
}

const endedForMs = 7 * 86_400_000;
const mostEnded = 20;

/** Its deliveries go on by themselves when a credential works again; those that were given up do not. */
function endedOf(incidents: Iterable<Incident>, release: Release, now: number): Status['ended'] {
  return [...incidents].flatMap((one) => (one.until !== null && now - one.until < endedForMs && release.destinations.has(one.destination) ? [{ ...one, until: one.until }] : []))
    .toSorted((a, b) => b.until - a.until).slice(0, mostEnded)
    .map(({ destination, code, since, until }) => ({ destination, code, since: new Date(since).toISOString(), until: new Date(until).toISOString(), replay: replayOf({ destination, since, until })! }));
}

async function groupLag(admin: LogAdmin, groupId: string, topic: string): Promise<number> {
  const committed = await admin.committed(groupId, topic);
  const [ends, begins] = await Promise.all([admin.endOffsets(topic), admin.beginningOffsets(topic)]);
  let lag = 0;
  for (const [partition, end] of ends) lag += Math.max(0, end - (committed.get(partition) ?? begins.get(partition) ?? 0));
  return lag;
}

/** Destinations that have left the release, and still have a topic. */
async function retiredOf(admin: LogAdmin, release: Release, topics: TopicNames, groups: ReturnType<typeof groupNames>): Promise<Status['retired']> {
  const prefix = topics.dispatch('');
  const names = (await admin.listTopics()).filter((topic) => topic.startsWith(prefix)).map((topic) => topic.slice(prefix.length)).filter((name) => !release.destinations.has(name)).sort();
  return Promise.all(names.map(async (destination) => ({ destination, waiting: await groupLag(admin, groups.dispatcher(destination), topics.dispatch(destination)) })));
}

/**
 * Counts and lags. Stages are asked in the direction of the flow and the index last, so a record that moves on
 * meanwhile is counted where it is going: pending is 0 only when everything accepted before the call has ended.
 */
export async function status(admin: LogAdmin, store: Store, release: Release, topics: TopicNames, groups: ReturnType<typeof groupNames>, indexed: readonly string[], incidents: ReadonlyMap<string, Incident>, switches: readonly SwitchView[], unresolved: ReadonlyMap<string, Unresolved>, callers: number | null, now: number): Promise<Status> {
  const lag: Record<string, number> = {};
  const sum = (list: readonly number[]): number => list.reduce((a, b) => a + b, 0);
  lag['normalizer'] = sum(await Promise.all([...release.sources.keys()].map((name) => groupLag(admin, groups.normalizer, topics.raw(name)))));
  lag['policy'] = await groupLag(admin, groups.policy, topics.canonical);
  lag['consent'] = await groupLag(admin, groups.consentFold, topics.consentChanges);
  await Promise.all([...release.destinations.keys()].map(async (name) => { lag[`dispatcher.${name}`] = await groupLag(admin, groups.dispatcher(name), topics.dispatch(name)); }));
  lag['index'] = sum(await Promise.all(indexed.map(async (topic) => {
    let behind = 0;
    for (const [partition, end] of await admin.endOffsets(topic)) behind += Math.max(0, end - store.position(topic, partition));
    return behind;
  })));
  const c = (name: string): number => store.counter(name);
  const dispatching = sum(Object.entries(lag).filter(([name]) => name.startsWith('dispatcher.')).map(([, n]) => n));
  return {
    events: { accepted: c('events.accepted'), pending: lag['normalizer'] + lag['policy'] + lag['index'], dropped: c('events.dropped'), deadLettered: c('events.dead-lettered'), quarantined: c('events.quarantined') },
    deliveries: { delivered: c('deliveries.delivered'), denied: c('deliveries.denied'), deadLettered: c('deliveries.dead-lettered'), quarantined: c('deliveries.quarantined'), superseded: c('deliveries.superseded'), failedOver: c('deliveries.failed-over'), pending: Math.max(c('deliveries.pending'), dispatching) + lag['index'] },
    deadLetters: c('deadLetters'), held: c('deliveries.held'),
    lag, release: release.hash, ready: true, callers,
    incidents: [
      ...[...incidents.values()].filter((i) => i.until === null && (release.destinations.has(i.destination) || isShown(i.destination, release))).map((one) => ({ destination: one.destination, code: one.code, since: new Date(one.since).toISOString(), replay: replayOf(one) })),
      ...[...unresolved].map(([destination, { open, since }]) => ({ destination, code: 'consent-unresolved', since: new Date(since).toISOString(), open })),
    ],
    ended: endedOf(incidents.values(), release, now),
    paused: switches.filter((s) => s.paused && release.destinations.has(s.destination)),
    retired: c('deliveries.pending') === 0 ? [] : await retiredOf(admin, release, topics, groups),
  };
}
