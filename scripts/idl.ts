/**
 * The interface of the chain program as JSON for explorers and clients in other languages, from chain/layout.ts.
 *
 * The format is Anchor's IDL, spec 0.1.0: the program is no Anchor program, but its data reads as one's does, since every
 * layout is little endian without hidden gaps (spare bytes are declared fields) and the discriminator is the first byte.
 */
import { LOCAL_PROGRAM_ID } from '../chain/instructions.ts';
import {
  ACCOUNTS,
  EVENTS,
  INSTRUCTIONS,
  RECORDS,
  type AccountMeta,
  type Field,
  type FieldType,
} from '../chain/layout.ts';
import { PROGRAM_ERRORS } from '../chain/program-errors.ts';

const pascal = (name: string): string => name.charAt(0).toUpperCase() + name.slice(1);
const snake = (name: string): string => name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

function idlType(type: FieldType): unknown {
  if (typeof type !== 'object') return type === 'key' ? 'pubkey' : type;
  if ('bytes' in type) return { array: ['u8', type.bytes] };
  if ('keys' in type) return { array: ['pubkey', type.keys] };
  return { defined: { name: pascal(type.record) } };
}

const fieldsOf = (fields: readonly Field[]): unknown[] =>
  fields.filter(([name]) => name !== 'tag').map(([name, type]) => ({ name: snake(name), type: idlType(type) }));

const PROGRAMS: Readonly<Record<string, string>> = {
  tokenProgram: 'TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA',
  systemProgram: '11111111111111111111111111111111',
};

function accountOf({ name, signer, writable }: AccountMeta): unknown {
  return {
    name: snake(name),
    ...(writable ? { writable: true } : {}),
    ...(signer === true ? { signer: true } : {}),
    ...(signer === 'may' ? { docs: ['May sign: what the call is allowed to do depends on who did.'] } : {}),
    ...(PROGRAMS[name] === undefined ? {} : { address: PROGRAMS[name] }),
  };
}

/** The JSON text of chain/program/idl.json. */
export function idl(version: string): string {
  const tagged = Object.entries({ ...ACCOUNTS, ...EVENTS });
  const kinds = (list: Readonly<Record<string, { readonly tag: number }>>): unknown[] =>
    Object.entries(list).map(([name, { tag }]) => ({ name: pascal(name), discriminator: [tag] }));
  const struct = (name: string, fields: readonly Field[]): unknown => ({
    name: pascal(name),
    type: { kind: 'struct', fields: fieldsOf(fields) },
  });
  const whole = {
    address: LOCAL_PROGRAM_ID,
    metadata: {
      name: 'molt',
      version,
      spec: '0.1.0',
      description: 'Budgets, stake, and leases that lock one against the other until they end.',
    },
    instructions: Object.entries(INSTRUCTIONS).map(([name, { tag, accounts, fields }]) => ({
      name: snake(name),
      discriminator: [tag],
      accounts: accounts.map(accountOf),
      args: fieldsOf(fields),
    })),
    accounts: kinds(ACCOUNTS),
    events: kinds(EVENTS),
    errors: PROGRAM_ERRORS.map(({ number, name, text }) => ({ code: number, name, msg: text })),
    types: [
      ...Object.entries(RECORDS).map(([name, fields]) => struct(name, fields)),
      ...tagged.map(([name, { fields }]) => struct(name, fields)),
    ],
  };
  return `${JSON.stringify(whole, null, 2)}\n`;
}
