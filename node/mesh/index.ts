/**
 * The mesh: who is there, what they shout, and streams to one of them.
 *
 * One libp2p node behind Molt's own words. Nothing above this folder knows libp2p, and nothing here knows offers, leases or
 * jobs: it moves bytes between node keys, with a bound on everything a stranger can make us hold. It also moves
 * artifacts, content named by the CID of a UnixFS tree, and evidence to verifiers.
 *
 * Reading order: mesh.ts puts the parts together; channel.ts is the framed stream; streams.ts dials and serves;
 * gossip.ts is publish and subscribe; gater.ts, guard.ts and frames.ts keep strangers in bounds, pressure.ts tells when to shed
 * load, watch.ts keeps friends connected and friends.ts finds more of them; nat.ts decides which addresses are told, relay.ts
 * is the way to peers that nobody can dial, and dht.ts keeps the DHT off it.
 */
export { type Mesh, type MeshLimits, type MeshOptions, type PeerEvent, openMesh } from './mesh.ts';
export { type Reachability, type Way } from './nat.ts';
export { type MeshOpenOptions } from './streams.ts';
export { nextFrame, tunnel } from './tunnel.ts';
export { type Artifacts, type ArtifactsOptions, openArtifacts } from './artifact/artifacts.ts';
export { type ExportOptions } from './artifact/export.ts';
export { type AddOptions, type Added, cidOfFile } from './artifact/import.ts';
export { type Allow } from './artifact/serve.ts';
export { type FetchOptions } from './artifact/transfer.ts';
export { type DrawnNode, type HandedIn, handInToAll, serveEvidence } from './evidence.ts';
