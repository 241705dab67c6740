// Imported by the processes that tests start: ends this one when the process that started it is gone, however it ended.
import { Socket } from 'node:net';

const tie = new Socket({ fd: 3 });
const end = () => process.kill(process.pid, 'SIGKILL');
tie.on('close', end).on('error', end).resume().unref();
