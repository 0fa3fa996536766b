import { describeHostile, openHostileGround } from '../../contract/hostile.ts';
import { findEngine } from '../../fixtures/engine.ts';

const { socketPath = '', reason } = await findEngine();
describeHostile("this machine's engine", async () => openHostileGround(socketPath), { skipReason: reason });
