import { createClient } from '../client.ts';
import { UsageError, type Command } from '../command.ts';
import { printable } from '../terminal.ts';

interface Proposal {
  readonly id: string;
  readonly hash: string;
  readonly message: string | null;
  readonly proposedBy: string;
  readonly proposedAt: number;
  readonly approvedBy: string | null;
}

export const command: Command = {
  name: 'approve',
  summary: 'Approve a release that somebody else proposed, or list proposals.',
  usage: '[<proposal-id>]',
  options: {},
  positionals: [0, 1],
  async run({ terminal, json, target, positionals: [id] }) {
    const client = createClient(target);
    if (id === undefined) {
      const found = await client.get<{ proposals: readonly Proposal[] }>('/v1/proposals');
      if (json) terminal.json(found);
      else terminal.table(['id', 'release', 'at', 'by', 'approved by', 'message'], found.proposals.map((p) => [p.id, p.hash, new Date(p.proposedAt).toISOString(), p.proposedBy, p.approvedBy ?? '-', p.message ?? '']));
      return 0;
    }
    if (!/^prop_[0-9a-f]{16}$/.test(id)) throw new UsageError(`${printable(id)} is no proposal id`);
    const done = await client.post<{ hash: string }>(`/v1/proposals/${id}/approve`, {});
    if (json) terminal.json({ ok: true, ...done });
    else terminal.line(`${terminal.paint.green('applied')}  release ${done.hash}`);
    return 0;
  },
};
