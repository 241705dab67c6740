import { Agent, type AgentOptions } from 'node:https';
import type { RegistrySecurity } from '@weir/config';
import { SchemaRegistry } from '@kafkajs/confluent-schema-registry';
import { tlsRefusal } from './refusal.ts';
import { credentialOf, tlsContext, tlsOptions } from './security.ts';

type RegistryMiddleware = NonNullable<ConstructorParameters<typeof SchemaRegistry>[0]['middlewares']>[number];

/** A connection for each request, made with the files as they are then. */
class SecuredAgent extends Agent {
  readonly #tls: ReturnType<typeof tlsContext>;
  /** What a connection last failed with, and when: the library keeps no more of it than its text. */
  failure: { readonly error: Error; readonly at: number } | undefined;

  constructor(tls: ReturnType<typeof tlsContext>) {
    super({ keepAlive: false, maxCachedSessions: 0 });
    this.#tls = tls;
  }

  override createConnection(options: AgentOptions & { readonly host?: string }, callback?: Parameters<Agent['createConnection']>[1]): ReturnType<Agent['createConnection']> {
    const socket = super.createConnection({ ...options, ...tlsOptions(this.#tls().value, options.host ?? '') }, callback);
    socket?.on('error', (error: Error) => { this.failure = { error, at: performance.now() }; });
    return socket;
  }
}

/** The registry's client: login and certificates are read for each request, which rejects with log-tls-failed or log-auth-failed where TLS does. Throws config-invalid when a file is not what it should be. */
export function createRegistry(registryUrl: string, security: RegistrySecurity = {}): SchemaRegistry {
  const tls = registryUrl.startsWith('https:') ? tlsContext(security.tls ?? {}) : undefined;
  const { login } = security;
  const secret = login === undefined ? undefined : credentialOf(login.kind === 'basic' ? login.password : login.token);
  tls?.();
  const agent = tls === undefined ? undefined : new SecuredAgent(tls);
  secret?.();
  const authorization = (): string => (login!.kind === 'basic' ? `Basic ${Buffer.from(`${login!.username}:${secret!().value}`).toString('base64')}` : `Bearer ${secret!().value}`);
  const secured: RegistryMiddleware = () => ({
    prepareRequest: async (next) => {
      const request = await next();
      return login === undefined ? request : request.enhance({ headers: { authorization: authorization() } });
    },
    response: (next) => {
      const began = performance.now();
      return next().catch((error: unknown) => {
        const failure = agent?.failure;
        throw (failure !== undefined && failure.at >= began ? tlsRefusal(failure.error, `the schema registry ${registryUrl}`) : undefined) ?? error;
      });
    },
  });
  return new SchemaRegistry({ host: registryUrl, clientId: 'weir', retry: { retries: 0 }, middlewares: [secured], agent });
}
