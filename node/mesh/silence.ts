/**
 * What libp2p would log, dropped. It makes a logger for each connection and stream, and asks for each of them three times
 * whether standard error is a terminal: a tenth of what a stream costs, and some kilobytes of every connection. What
 * matters to an operator is told by the mesh itself, through `Env`.
 */
import type { ComponentLogger, Logger } from '@libp2p/interface';

const nothing = (): void => undefined;

const silence: Logger = Object.assign(nothing, {
  error: nothing,
  trace: nothing,
  enabled: false,
  newScope: () => silence,
});

export const silentComponents: ComponentLogger = { forComponent: () => silence };
