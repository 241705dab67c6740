const plain = (text: string): string => text.toLowerCase().replace(/[\s_-]/g, '');
const isLetter = (code: number): boolean => code >= 0x61 && code <= 0x7a;

/** Whether two channels, or topics, differ only by case, `-`, `_` or spaces: they mean the same. */
export function sameSpelling(one: string, other: string): boolean {
  if (one === other) return true;
  const [a, b] = [one.charCodeAt(0) | 0x20, other.charCodeAt(0) | 0x20];
  // Decisions ask this of the noes of other channels: nearly all begin with another letter.
  if (a !== b && isLetter(a) && isLetter(b)) return false;
  const meant = plain(one);
  return meant !== '' && meant === plain(other);
}
