export { compileCel, type CelResult, type CelFunction, type CompiledCel } from './cel.ts';
