import { Connection, metadataV12, type ResponseError } from '@platformatic/kafka';
import { WeirError } from '@weir/errors';
import { delay, withDeadline } from '../deadline.ts';

/** Kafka error codes that the port looks at. https://kafka.apache.org/protocol#protocol_error_codes */
export const E = {
  offsetOutOfRange: 1, unknownTopic: 3, leaderNotAvailable: 5, notLeader: 6, messageTooLarge: 10, coordinatorLoading: 14, coordinatorNotAvailable: 15,
  notCoordinator: 16, invalidTopic: 17, recordListTooLarge: 18, illegalGeneration: 22, unknownMember: 25, rebalanceInProgress: 27, topicAuthorization: 29,
  groupAuthorization: 30, topicExists: 36, memberIdRequired: 79, fencedInstance: 82, invalidRecord: 87,
} as const;

/** An API of the client library: callback last. */
export type Api<A extends unknown[], R> = ((connection: Connection, ...args: [...A, (error: Error | null | undefined, result: R) => void]) => void);

interface TopicMeta {
  readonly leaders: number[];
}

/**
 * Connections and metadata of one client. The library gives the wire protocol; routing, retry and deadlines
 * are here, where they can be reasoned about.
 */
export class Cluster {
  readonly #bootstrap: readonly { host: string; port: number }[];
  readonly #clientId: string;
  readonly deadlineMs: number;
  readonly #connections = new Map<string, Promise<Connection>>();
  readonly #topics = new Map<string, TopicMeta>();
  #brokers = new Map<number, { host: string; port: number }>();
  #refreshing: Promise<void> | undefined;
  readonly #wanted = new Set<string>();
  #closed = false;

  constructor(options: { brokers: readonly string[]; clientId: string; deadlineMs: number }) {
    this.#bootstrap = options.brokers.map((text) => {
      const at = text.lastIndexOf(':');
      const port = Number(text.slice(at + 1));
      if (at <= 0 || !Number.isInteger(port) || port < 1 || port > 65535) throw new WeirError('config-invalid', `KAFKA_BROKERS: expected host:port, got ${JSON.stringify(text)}`);
      return { host: text.slice(0, at), port };
    });
    this.#clientId = options.clientId;
    this.deadlineMs = options.deadlineMs;
  }

  /** A connection for this purpose and broker; requests on one connection are answered in order, so long polls have their own. */
  connection(purpose: string, node: number): Promise<Connection> {
    const broker = this.#brokers.get(node);
    if (broker === undefined) return Promise.reject(new WeirError('log-unavailable', `broker ${node} is not known`));
    return this.#connect(`${purpose}@${node}`, broker);
  }

  #connect(key: string, broker: { host: string; port: number }): Promise<Connection> {
    if (this.#closed) return Promise.reject(new WeirError('log-unavailable', 'the log client is closed'));
    let known = this.#connections.get(key);
    if (known !== undefined) return known;
    const connection = new Connection(this.#clientId, { connectTimeout: 5000, requestTimeout: this.deadlineMs + 5000, maxInflights: 64 });
    const drop = (): void => {
      if (this.#connections.get(key) === known) this.#connections.delete(key);
    };
    connection.on('close', drop);
    connection.on('error', drop);
    known = (connection.connect(broker.host, broker.port) as Promise<void>).then(() => connection, (error: unknown) => {
      drop();
      throw new WeirError('log-unavailable', `no connection to ${broker.host}:${broker.port}`, { cause: error });
    });
    this.#connections.set(key, known);
    return known;
  }

  /** Close the connection of a purpose, e.g. after a time-out: what it still answers is not to be trusted. */
  discard(purpose: string, node: number): void {
    const key = `${purpose}@${node}`;
    const known = this.#connections.get(key);
    this.#connections.delete(key);
    known?.then((connection) => connection.close(() => {}), () => {});
  }

  /** Send one request with a deadline; a response with error codes is a value, not an exception. */
  async request<A extends unknown[], R>(connection: Connection, what: string, api: unknown, args: A, deadlineMs = this.deadlineMs): Promise<R> {
    const call = api as Api<A, R>;
    return withDeadline(new Promise<R>((resolve, reject) => {
      call(connection, ...args, (error, result) => {
        const response = (error as ResponseError | null | undefined)?.response as R | undefined;
        if (error && response === undefined) reject(new WeirError('log-unavailable', `${what} failed: ${error.message}`, { cause: error }));
        else resolve(response ?? result);
      });
    }), deadlineMs, what);
  }

  /** Leaders of the topics from any broker; one refresh at a time. Unknown topics stay unknown. */
  async refresh(topics: readonly string[]): Promise<void> {
    for (const topic of topics) this.#wanted.add(topic);
    this.#refreshing ??= this.#refresh().finally(() => { this.#refreshing = undefined; });
    await this.#refreshing;
  }

  async #refresh(): Promise<void> {
    const targets = [...[...this.#brokers.values()].sort(() => Math.random() - 0.5), ...this.#bootstrap];
    let last: unknown;
    for (const broker of targets) {
      try {
        const connection = await this.#connect(`meta@${broker.host}:${broker.port}`, broker);
        const wanted = [...this.#wanted];
        const response = await this.request<unknown[], { brokers: { nodeId: number; host: string; port: number }[]; topics: { errorCode: number; name: string; partitions: { partitionIndex: number; leaderId: number }[] }[] }>(connection, 'metadata', metadataV12.api, [wanted, false, false], Math.min(this.deadlineMs, 10_000));
        this.#brokers = new Map(response.brokers.map((b) => [b.nodeId, { host: b.host, port: b.port }]));
        for (const topic of response.topics) {
          if (topic.errorCode === E.unknownTopic) this.#topics.delete(topic.name);
          if (topic.partitions.length === 0) continue;
          const leaders: number[] = [];
          for (const p of topic.partitions) leaders[p.partitionIndex] = p.leaderId;
          this.#topics.set(topic.name, { leaders });
        }
        return;
      } catch (error) {
        last = error;
        this.#connections.delete(`meta@${broker.host}:${broker.port}`);
      }
    }
    throw new WeirError('log-unavailable', 'no broker answers', { cause: last });
  }

  /** Partition count; asks the brokers for a topic not seen yet. Rejects with log-fatal when it does not exist. */
  async partitions(topic: string): Promise<number> {
    for (let attempt = 0; attempt < 10; attempt++) {
      const known = this.#topics.get(topic);
      if (known !== undefined) return known.leaders.length;
      await this.refresh([topic]);
      // A topic just created may not be known to every broker yet.
      if (!this.#topics.has(topic)) await delay(50 * (attempt + 1));
    }
    throw new WeirError('log-fatal', `topic ${topic} does not exist; create it with: weir topics apply`);
  }

  partitionsKnown(topic: string): number | undefined {
    return this.#topics.get(topic)?.leaders.length;
  }

  /** Node id of the leader, or -1 when there is none now. */
  leader(topic: string, partition: number): number {
    return this.#topics.get(topic)?.leaders[partition] ?? -1;
  }

  anyBroker(): number {
    return this.#brokers.keys().next().value ?? -1;
  }

  async close(): Promise<void> {
    this.#closed = true;
    const all = [...this.#connections.values()];
    this.#connections.clear();
    await Promise.all(all.map(async (pending) => {
      const connection = await pending.catch(() => undefined);
      if (connection !== undefined) await new Promise<void>((resolve) => { connection.close(() => resolve()); });
    }));
  }
}
