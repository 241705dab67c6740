import { createClient } from '../client.ts';
import { numberOption, textOption, UsageError, type Command } from '../command.ts';
import { printable } from '../terminal.ts';

interface Token {
  readonly id: string;
  readonly name: string;
  readonly grants: readonly string[];
  readonly expiresAt: number;
  readonly revokedAt: number | null;
}

export const command: Command = {
  name: 'token',
  summary: 'API tokens: issue one with its roles, list, or revoke.',
  usage: 'issue <name> --grant <grant>… | list | revoke <id>',
  options: {
    grant: { type: 'string', multiple: true, value: '<grant>', doc: '<role> or <role>@<sources>:<destinations>, names joined by /, * for all' },
    days: { type: 'string', value: '<n>', doc: 'ends after n days (default 90, at most 366)' },
  },
  takes: { issue: ['grant', 'days'], list: [], revoke: [] },
  positionals: [1, 2],
  async run(context) {
    const { terminal, json, values } = context;
    const [action, name] = context.positionals;
    const grants = (values['grant'] ?? []) as string[];
    if (action === 'issue' && name !== undefined && grants.length > 0) {
      const issued = await createClient(context.target).post<Token & { token: string }>('/v1/tokens', { name, grants, days: numberOption(context, 'days', 90, 1, 366) });
      if (json) terminal.json(issued);
      else terminal.line(`${issued.token}\n${issued.id}, until ${new Date(issued.expiresAt).toISOString()}; it is not shown again`);
      return 0;
    }
    if (action === 'list' && name === undefined) {
      const { tokens } = await createClient(context.target).get<{ tokens: readonly Token[] }>('/v1/tokens');
      if (json) terminal.json({ tokens });
      else terminal.table(['id', 'name', 'grants', 'until', 'state'], tokens.map((t) => [t.id, t.name, t.grants.join(' '), new Date(t.expiresAt).toISOString(), t.revokedAt !== null ? 'revoked' : t.expiresAt <= Date.now() ? 'ended' : 'valid']));
      return 0;
    }
    if (action === 'revoke' && name !== undefined) {
      if (!/^tok_[0-9a-f]{16}$/.test(name)) throw new UsageError(`${printable(name)} is no token id`);
      const done = await createClient(context.target).delete<Token>(`/v1/tokens/${name}`);
      if (json) terminal.json(done);
      else terminal.line(`${done.id} is revoked`);
      return 0;
    }
    throw new UsageError(textOption(context, 'days') === undefined && action === 'issue' ? 'give a name and at least one --grant' : 'give issue <name> --grant <grant>, list, or revoke <id>');
  },
};
