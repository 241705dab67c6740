import type { Row } from '../row.ts';
import { appendRows } from './append.ts';
import { faultRows } from './faults.ts';
import { groupRows } from './group.ts';
import { stallRows } from './stall.ts';
import { zombieRows } from './zombie.ts';

export const rows: readonly Row[] = [...appendRows, ...groupRows, ...zombieRows, ...stallRows, ...faultRows];
