/**
 * What of one partition has been read and is not finished. Offsets finish in any order; only the contiguous
 * finished prefix may be committed. Holes that compaction or control records left count as finished.
 */
export interface CommitWindow {
  /** Take a batch: its records are unfinished, everything else below nextOffset is finished. */
  begin(batch: { readonly records: ReadonlyArray<{ readonly offset: number; readonly key: Buffer | null; readonly value: Buffer | null }>; readonly nextOffset: number }): void;
  done(offset: number): void;
  /** Every record below this offset is finished. */
  doneUpTo(nextOffset: number): void;
  /** Next offset that may be committed: the first unfinished, or the read position. */
  committable(): number;
  /** Records or bytes between commit and read position reached the cap: pause the partition. */
  full(): boolean;
  unfinished(): number;
}

interface Entry {
  readonly offset: number;
  readonly size: number;
  done: boolean;
}

export function createCommitWindow(options: { position: number; maxRecords: number; maxBytes: number }): CommitWindow {
  let entries: Entry[] = [];
  let head = 0;
  let next = options.position;
  let bytes = 0;
  let open = 0;

  function advance(): void {
    while (head < entries.length && entries[head]!.done) {
      bytes -= entries[head]!.size;
      head++;
    }
    if (head > 4096 && head * 2 > entries.length) {
      entries = entries.slice(head);
      head = 0;
    }
  }

  /** Index of the offset among the unfinished, by binary search; -1 when it is not there. */
  function find(offset: number): number {
    let low = head;
    let high = entries.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const at = entries[middle]!.offset;
      if (at === offset) return middle;
      if (at < offset) low = middle + 1;
      else high = middle - 1;
    }
    return -1;
  }

  return {
    begin(batch) {
      for (const record of batch.records) {
        const size = 64 + (record.key?.length ?? 0) + (record.value?.length ?? 0);
        entries.push({ offset: record.offset, size, done: false });
        bytes += size;
        open++;
      }
      next = batch.nextOffset;
    },
    done(offset) {
      const entry = entries[find(offset)];
      if (entry === undefined || entry.done) return;
      entry.done = true;
      open--;
      advance();
    },
    doneUpTo(nextOffset) {
      for (let i = head; i < entries.length && entries[i]!.offset < nextOffset; i++) {
        if (entries[i]!.done) continue;
        entries[i]!.done = true;
        open--;
      }
      advance();
    },
    committable: () => (head < entries.length ? entries[head]!.offset : next),
    full: () => entries.length - head >= options.maxRecords || bytes >= options.maxBytes,
    unfinished: () => open,
  };
}
