// Generated from molt.proto by `npm run proto`. Do not edit.
import type { Codec, DecodeOptions } from 'protons-runtime';
import type { Uint8ArrayList } from 'uint8arraylist';
export interface Signed {
    payload: Uint8Array;
    signature: Uint8Array;
}
export declare namespace Signed {
    const codec: () => Codec<Signed>;
    interface SignedPayloadFieldEvent {
        field: '$.payload';
        value: Uint8Array;
    }
    interface SignedSignatureFieldEvent {
        field: '$.signature';
        value: Uint8Array;
    }
    function encode(obj: Partial<Signed>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Signed>): Signed;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Signed>): Generator<SignedPayloadFieldEvent | SignedSignatureFieldEvent>;
}
export interface Payload {
    version: number;
    kind: number;
    network: Uint8Array;
    signer: Uint8Array;
    sequence: bigint;
    issuedMs: bigint;
    expiresMs: bigint;
    body: Uint8Array;
}
export declare namespace Payload {
    const codec: () => Codec<Payload>;
    interface PayloadVersionFieldEvent {
        field: '$.version';
        value: number;
    }
    interface PayloadKindFieldEvent {
        field: '$.kind';
        value: number;
    }
    interface PayloadNetworkFieldEvent {
        field: '$.network';
        value: Uint8Array;
    }
    interface PayloadSignerFieldEvent {
        field: '$.signer';
        value: Uint8Array;
    }
    interface PayloadSequenceFieldEvent {
        field: '$.sequence';
        value: bigint;
    }
    interface PayloadIssuedMsFieldEvent {
        field: '$.issuedMs';
        value: bigint;
    }
    interface PayloadExpiresMsFieldEvent {
        field: '$.expiresMs';
        value: bigint;
    }
    interface PayloadBodyFieldEvent {
        field: '$.body';
        value: Uint8Array;
    }
    function encode(obj: Partial<Payload>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Payload>): Payload;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Payload>): Generator<PayloadVersionFieldEvent | PayloadKindFieldEvent | PayloadNetworkFieldEvent | PayloadSignerFieldEvent | PayloadSequenceFieldEvent | PayloadIssuedMsFieldEvent | PayloadExpiresMsFieldEvent | PayloadBodyFieldEvent>;
}
export interface Resources {
    cpuMillis: number;
    memoryBytes: bigint;
    diskBytes: bigint;
    gpus: Gpus[];
}
export declare namespace Resources {
    const codec: () => Codec<Resources>;
    interface ResourcesCpuMillisFieldEvent {
        field: '$.cpuMillis';
        value: number;
    }
    interface ResourcesMemoryBytesFieldEvent {
        field: '$.memoryBytes';
        value: bigint;
    }
    interface ResourcesDiskBytesFieldEvent {
        field: '$.diskBytes';
        value: bigint;
    }
    interface ResourcesGpusCountFieldEvent {
        field: '$.gpus[].count';
        value: number;
        index: number;
    }
    interface ResourcesGpusVramBytesFieldEvent {
        field: '$.gpus[].vramBytes';
        value: bigint;
        index: number;
    }
    interface ResourcesGpusModelFieldEvent {
        field: '$.gpus[].model';
        value: string;
        index: number;
    }
    interface ResourcesGpusComputeCapabilityFieldEvent {
        field: '$.gpus[].computeCapability';
        value: number;
        index: number;
    }
    function encode(obj: Partial<Resources>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Resources>): Resources;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Resources>): Generator<ResourcesCpuMillisFieldEvent | ResourcesMemoryBytesFieldEvent | ResourcesDiskBytesFieldEvent | ResourcesGpusCountFieldEvent | ResourcesGpusVramBytesFieldEvent | ResourcesGpusModelFieldEvent | ResourcesGpusComputeCapabilityFieldEvent>;
}
export interface Gpus {
    count: number;
    vramBytes: bigint;
    model: string;
    computeCapability: number;
}
export declare namespace Gpus {
    const codec: () => Codec<Gpus>;
    interface GpusCountFieldEvent {
        field: '$.count';
        value: number;
    }
    interface GpusVramBytesFieldEvent {
        field: '$.vramBytes';
        value: bigint;
    }
    interface GpusModelFieldEvent {
        field: '$.model';
        value: string;
    }
    interface GpusComputeCapabilityFieldEvent {
        field: '$.computeCapability';
        value: number;
    }
    function encode(obj: Partial<Gpus>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Gpus>): Gpus;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Gpus>): Generator<GpusCountFieldEvent | GpusVramBytesFieldEvent | GpusModelFieldEvent | GpusComputeCapabilityFieldEvent>;
}
export interface Offer {
    provider: Uint8Array;
    free?: Resources;
    runtimes: number[];
    prices?: Prices;
    speed: number;
    speedMeasuredMs: bigint;
    region: string;
    durationSecondsMax: number;
    warm: Uint8Array[];
    addresses: Uint8Array[];
    revoked: boolean;
    features: number[];
    hardwareTier: number;
}
export declare namespace Offer {
    const codec: () => Codec<Offer>;
    interface OfferProviderFieldEvent {
        field: '$.provider';
        value: Uint8Array;
    }
    interface OfferFreeCpuMillisFieldEvent {
        field: '$.free.cpuMillis';
        value: number;
    }
    interface OfferFreeMemoryBytesFieldEvent {
        field: '$.free.memoryBytes';
        value: bigint;
    }
    interface OfferFreeDiskBytesFieldEvent {
        field: '$.free.diskBytes';
        value: bigint;
    }
    interface OfferFreeGpusCountFieldEvent {
        field: '$.free.gpus[].count';
        value: number;
        index: number;
    }
    interface OfferFreeGpusVramBytesFieldEvent {
        field: '$.free.gpus[].vramBytes';
        value: bigint;
        index: number;
    }
    interface OfferFreeGpusModelFieldEvent {
        field: '$.free.gpus[].model';
        value: string;
        index: number;
    }
    interface OfferFreeGpusComputeCapabilityFieldEvent {
        field: '$.free.gpus[].computeCapability';
        value: number;
        index: number;
    }
    interface OfferRuntimesFieldEvent {
        field: '$.runtimes[]';
        index: number;
        value: number;
    }
    interface OfferPricesBaseFieldEvent {
        field: '$.prices.base';
        value: bigint;
    }
    interface OfferPricesCpuFieldEvent {
        field: '$.prices.cpu';
        value: bigint;
    }
    interface OfferPricesMemoryFieldEvent {
        field: '$.prices.memory';
        value: bigint;
    }
    interface OfferPricesGpuFieldEvent {
        field: '$.prices.gpu';
        value: bigint;
    }
    interface OfferSpeedFieldEvent {
        field: '$.speed';
        value: number;
    }
    interface OfferSpeedMeasuredMsFieldEvent {
        field: '$.speedMeasuredMs';
        value: bigint;
    }
    interface OfferRegionFieldEvent {
        field: '$.region';
        value: string;
    }
    interface OfferDurationSecondsMaxFieldEvent {
        field: '$.durationSecondsMax';
        value: number;
    }
    interface OfferWarmFieldEvent {
        field: '$.warm[]';
        index: number;
        value: Uint8Array;
    }
    interface OfferAddressesFieldEvent {
        field: '$.addresses[]';
        index: number;
        value: Uint8Array;
    }
    interface OfferRevokedFieldEvent {
        field: '$.revoked';
        value: boolean;
    }
    interface OfferFeaturesFieldEvent {
        field: '$.features[]';
        index: number;
        value: number;
    }
    interface OfferHardwareTierFieldEvent {
        field: '$.hardwareTier';
        value: number;
    }
    function encode(obj: Partial<Offer>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Offer>): Offer;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Offer>): Generator<OfferProviderFieldEvent | OfferFreeCpuMillisFieldEvent | OfferFreeMemoryBytesFieldEvent | OfferFreeDiskBytesFieldEvent | OfferFreeGpusCountFieldEvent | OfferFreeGpusVramBytesFieldEvent | OfferFreeGpusModelFieldEvent | OfferFreeGpusComputeCapabilityFieldEvent | OfferRuntimesFieldEvent | OfferPricesBaseFieldEvent | OfferPricesCpuFieldEvent | OfferPricesMemoryFieldEvent | OfferPricesGpuFieldEvent | OfferSpeedFieldEvent | OfferSpeedMeasuredMsFieldEvent | OfferRegionFieldEvent | OfferDurationSecondsMaxFieldEvent | OfferWarmFieldEvent | OfferAddressesFieldEvent | OfferRevokedFieldEvent | OfferFeaturesFieldEvent | OfferHardwareTierFieldEvent>;
}
export interface Prices {
    base: bigint;
    cpu: bigint;
    memory: bigint;
    gpu: bigint;
}
export declare namespace Prices {
    const codec: () => Codec<Prices>;
    interface PricesBaseFieldEvent {
        field: '$.base';
        value: bigint;
    }
    interface PricesCpuFieldEvent {
        field: '$.cpu';
        value: bigint;
    }
    interface PricesMemoryFieldEvent {
        field: '$.memory';
        value: bigint;
    }
    interface PricesGpuFieldEvent {
        field: '$.gpu';
        value: bigint;
    }
    function encode(obj: Partial<Prices>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Prices>): Prices;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Prices>): Generator<PricesBaseFieldEvent | PricesCpuFieldEvent | PricesMemoryFieldEvent | PricesGpuFieldEvent>;
}
export interface Bid {
    need?: Resources;
    runtime: number;
    durationSecondsMax: number;
    pricePerSecondMax: bigint;
    stakeMin: bigint;
    reserveMin: bigint;
    region: string;
    distanceMax: bigint;
    quotesWanted: number;
    warm: Uint8Array;
    addresses: Uint8Array[];
    features: number[];
    finishByMs: bigint;
    startByMs: bigint;
    budget: Uint8Array;
    windowMs: bigint;
    near: Uint8Array[];
    hardwareTier: number;
}
export declare namespace Bid {
    const codec: () => Codec<Bid>;
    interface BidNeedCpuMillisFieldEvent {
        field: '$.need.cpuMillis';
        value: number;
    }
    interface BidNeedMemoryBytesFieldEvent {
        field: '$.need.memoryBytes';
        value: bigint;
    }
    interface BidNeedDiskBytesFieldEvent {
        field: '$.need.diskBytes';
        value: bigint;
    }
    interface BidNeedGpusCountFieldEvent {
        field: '$.need.gpus[].count';
        value: number;
        index: number;
    }
    interface BidNeedGpusVramBytesFieldEvent {
        field: '$.need.gpus[].vramBytes';
        value: bigint;
        index: number;
    }
    interface BidNeedGpusModelFieldEvent {
        field: '$.need.gpus[].model';
        value: string;
        index: number;
    }
    interface BidNeedGpusComputeCapabilityFieldEvent {
        field: '$.need.gpus[].computeCapability';
        value: number;
        index: number;
    }
    interface BidRuntimeFieldEvent {
        field: '$.runtime';
        value: number;
    }
    interface BidDurationSecondsMaxFieldEvent {
        field: '$.durationSecondsMax';
        value: number;
    }
    interface BidPricePerSecondMaxFieldEvent {
        field: '$.pricePerSecondMax';
        value: bigint;
    }
    interface BidStakeMinFieldEvent {
        field: '$.stakeMin';
        value: bigint;
    }
    interface BidReserveMinFieldEvent {
        field: '$.reserveMin';
        value: bigint;
    }
    interface BidRegionFieldEvent {
        field: '$.region';
        value: string;
    }
    interface BidDistanceMaxFieldEvent {
        field: '$.distanceMax';
        value: bigint;
    }
    interface BidQuotesWantedFieldEvent {
        field: '$.quotesWanted';
        value: number;
    }
    interface BidWarmFieldEvent {
        field: '$.warm';
        value: Uint8Array;
    }
    interface BidAddressesFieldEvent {
        field: '$.addresses[]';
        index: number;
        value: Uint8Array;
    }
    interface BidFeaturesFieldEvent {
        field: '$.features[]';
        index: number;
        value: number;
    }
    interface BidFinishByMsFieldEvent {
        field: '$.finishByMs';
        value: bigint;
    }
    interface BidStartByMsFieldEvent {
        field: '$.startByMs';
        value: bigint;
    }
    interface BidBudgetFieldEvent {
        field: '$.budget';
        value: Uint8Array;
    }
    interface BidWindowMsFieldEvent {
        field: '$.windowMs';
        value: bigint;
    }
    interface BidNearFieldEvent {
        field: '$.near[]';
        index: number;
        value: Uint8Array;
    }
    interface BidHardwareTierFieldEvent {
        field: '$.hardwareTier';
        value: number;
    }
    function encode(obj: Partial<Bid>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Bid>): Bid;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Bid>): Generator<BidNeedCpuMillisFieldEvent | BidNeedMemoryBytesFieldEvent | BidNeedDiskBytesFieldEvent | BidNeedGpusCountFieldEvent | BidNeedGpusVramBytesFieldEvent | BidNeedGpusModelFieldEvent | BidNeedGpusComputeCapabilityFieldEvent | BidRuntimeFieldEvent | BidDurationSecondsMaxFieldEvent | BidPricePerSecondMaxFieldEvent | BidStakeMinFieldEvent | BidReserveMinFieldEvent | BidRegionFieldEvent | BidDistanceMaxFieldEvent | BidQuotesWantedFieldEvent | BidWarmFieldEvent | BidAddressesFieldEvent | BidFeaturesFieldEvent | BidFinishByMsFieldEvent | BidStartByMsFieldEvent | BidBudgetFieldEvent | BidWindowMsFieldEvent | BidNearFieldEvent | BidHardwareTierFieldEvent>;
}
export interface Quote {
    bid: Uint8Array;
    provider: Uint8Array;
    pricePerSecond: bigint;
    amount: bigint;
    reserve: bigint;
    openBeforeMs: bigint;
    finishByMs: bigint;
    graceMs: bigint;
    windowMs: bigint;
    speed: number;
    warm: boolean;
    startByMs: bigint;
    near: Uint8Array[];
}
export declare namespace Quote {
    const codec: () => Codec<Quote>;
    interface QuoteBidFieldEvent {
        field: '$.bid';
        value: Uint8Array;
    }
    interface QuoteProviderFieldEvent {
        field: '$.provider';
        value: Uint8Array;
    }
    interface QuotePricePerSecondFieldEvent {
        field: '$.pricePerSecond';
        value: bigint;
    }
    interface QuoteAmountFieldEvent {
        field: '$.amount';
        value: bigint;
    }
    interface QuoteReserveFieldEvent {
        field: '$.reserve';
        value: bigint;
    }
    interface QuoteOpenBeforeMsFieldEvent {
        field: '$.openBeforeMs';
        value: bigint;
    }
    interface QuoteFinishByMsFieldEvent {
        field: '$.finishByMs';
        value: bigint;
    }
    interface QuoteGraceMsFieldEvent {
        field: '$.graceMs';
        value: bigint;
    }
    interface QuoteWindowMsFieldEvent {
        field: '$.windowMs';
        value: bigint;
    }
    interface QuoteSpeedFieldEvent {
        field: '$.speed';
        value: number;
    }
    interface QuoteWarmFieldEvent {
        field: '$.warm';
        value: boolean;
    }
    interface QuoteStartByMsFieldEvent {
        field: '$.startByMs';
        value: bigint;
    }
    interface QuoteNearFieldEvent {
        field: '$.near[]';
        index: number;
        value: Uint8Array;
    }
    function encode(obj: Partial<Quote>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Quote>): Quote;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Quote>): Generator<QuoteBidFieldEvent | QuoteProviderFieldEvent | QuotePricePerSecondFieldEvent | QuoteAmountFieldEvent | QuoteReserveFieldEvent | QuoteOpenBeforeMsFieldEvent | QuoteFinishByMsFieldEvent | QuoteGraceMsFieldEvent | QuoteWindowMsFieldEvent | QuoteSpeedFieldEvent | QuoteWarmFieldEvent | QuoteStartByMsFieldEvent | QuoteNearFieldEvent>;
}
export interface BidAnswer {
    quote?: Uint8Array;
    declined?: Refusal;
    bid: Uint8Array;
}
export declare namespace BidAnswer {
    const codec: () => Codec<BidAnswer>;
    interface BidAnswerQuoteFieldEvent {
        field: '$.quote';
        value: Uint8Array;
    }
    interface BidAnswerDeclinedCodeFieldEvent {
        field: '$.declined.code';
        value: string;
    }
    interface BidAnswerDeclinedReasonFieldEvent {
        field: '$.declined.reason';
        value: string;
    }
    interface BidAnswerDeclinedEnoughFieldEvent {
        field: '$.declined.enough';
        value: bigint;
    }
    interface BidAnswerBidFieldEvent {
        field: '$.bid';
        value: Uint8Array;
    }
    function encode(obj: Partial<BidAnswer>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<BidAnswer>): BidAnswer;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<BidAnswer>): Generator<BidAnswerQuoteFieldEvent | BidAnswerDeclinedCodeFieldEvent | BidAnswerDeclinedReasonFieldEvent | BidAnswerDeclinedEnoughFieldEvent | BidAnswerBidFieldEvent>;
}
export interface LetGo {
    bid: Uint8Array;
}
export declare namespace LetGo {
    const codec: () => Codec<LetGo>;
    interface LetGoBidFieldEvent {
        field: '$.bid';
        value: Uint8Array;
    }
    function encode(obj: Partial<LetGo>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<LetGo>): LetGo;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<LetGo>): Generator<LetGoBidFieldEvent>;
}
export interface Refusal {
    code: string;
    reason: string;
    enough: bigint;
}
export declare namespace Refusal {
    const codec: () => Codec<Refusal>;
    interface RefusalCodeFieldEvent {
        field: '$.code';
        value: string;
    }
    interface RefusalReasonFieldEvent {
        field: '$.reason';
        value: string;
    }
    interface RefusalEnoughFieldEvent {
        field: '$.enough';
        value: bigint;
    }
    function encode(obj: Partial<Refusal>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Refusal>): Refusal;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Refusal>): Generator<RefusalCodeFieldEvent | RefusalReasonFieldEvent | RefusalEnoughFieldEvent>;
}
export interface LeaseRequest {
    accept?: Accept;
    submit?: Submit;
    attach?: Attach;
    settle?: SettleRequest;
    cancel?: CancelRequest;
}
export declare namespace LeaseRequest {
    const codec: () => Codec<LeaseRequest>;
    interface LeaseRequestAcceptQuoteFieldEvent {
        field: '$.accept.quote';
        value: Uint8Array;
    }
    interface LeaseRequestAcceptSpecDigestFieldEvent {
        field: '$.accept.specDigest';
        value: Uint8Array;
    }
    interface LeaseRequestAcceptBudgetFieldEvent {
        field: '$.accept.budget';
        value: Uint8Array;
    }
    interface LeaseRequestAcceptBlockhashFieldEvent {
        field: '$.accept.blockhash';
        value: Uint8Array;
    }
    interface LeaseRequestAcceptMessageFieldEvent {
        field: '$.accept.message';
        value: Uint8Array;
    }
    interface LeaseRequestAcceptEgressFieldEvent {
        field: '$.accept.egress[]';
        index: number;
        value: string;
    }
    interface LeaseRequestSubmitLeaseFieldEvent {
        field: '$.submit.lease';
        value: Uint8Array;
    }
    interface LeaseRequestSubmitSpecFieldEvent {
        field: '$.submit.spec';
        value: Uint8Array;
    }
    interface LeaseRequestSubmitTransactionFieldEvent {
        field: '$.submit.transaction';
        value: Uint8Array;
    }
    interface LeaseRequestSubmitSecretsNameFieldEvent {
        field: '$.submit.secrets[].name';
        value: string;
        index: number;
    }
    interface LeaseRequestSubmitSecretsValueFieldEvent {
        field: '$.submit.secrets[].value';
        value: Uint8Array;
        index: number;
    }
    interface LeaseRequestSubmitRegistryUsernameFieldEvent {
        field: '$.submit.registry.username';
        value: string;
    }
    interface LeaseRequestSubmitRegistryPasswordFieldEvent {
        field: '$.submit.registry.password';
        value: string;
    }
    interface LeaseRequestAttachLeaseFieldEvent {
        field: '$.attach.lease';
        value: Uint8Array;
    }
    interface LeaseRequestAttachFromSequenceFieldEvent {
        field: '$.attach.fromSequence';
        value: bigint;
    }
    interface LeaseRequestSettleLeaseFieldEvent {
        field: '$.settle.lease';
        value: Uint8Array;
    }
    interface LeaseRequestSettleAmountFieldEvent {
        field: '$.settle.amount';
        value: bigint;
    }
    interface LeaseRequestSettleBlockhashFieldEvent {
        field: '$.settle.blockhash';
        value: Uint8Array;
    }
    interface LeaseRequestSettleDelegateSignatureFieldEvent {
        field: '$.settle.delegateSignature';
        value: Uint8Array;
    }
    interface LeaseRequestCancelLeaseFieldEvent {
        field: '$.cancel.lease';
        value: Uint8Array;
    }
    function encode(obj: Partial<LeaseRequest>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<LeaseRequest>): LeaseRequest;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<LeaseRequest>): Generator<LeaseRequestAcceptQuoteFieldEvent | LeaseRequestAcceptSpecDigestFieldEvent | LeaseRequestAcceptBudgetFieldEvent | LeaseRequestAcceptBlockhashFieldEvent | LeaseRequestAcceptMessageFieldEvent | LeaseRequestAcceptEgressFieldEvent | LeaseRequestSubmitLeaseFieldEvent | LeaseRequestSubmitSpecFieldEvent | LeaseRequestSubmitTransactionFieldEvent | LeaseRequestSubmitSecretsNameFieldEvent | LeaseRequestSubmitSecretsValueFieldEvent | LeaseRequestSubmitRegistryUsernameFieldEvent | LeaseRequestSubmitRegistryPasswordFieldEvent | LeaseRequestAttachLeaseFieldEvent | LeaseRequestAttachFromSequenceFieldEvent | LeaseRequestSettleLeaseFieldEvent | LeaseRequestSettleAmountFieldEvent | LeaseRequestSettleBlockhashFieldEvent | LeaseRequestSettleDelegateSignatureFieldEvent | LeaseRequestCancelLeaseFieldEvent>;
}
export interface Accept {
    quote: Uint8Array;
    specDigest: Uint8Array;
    budget: Uint8Array;
    blockhash: Uint8Array;
    message: Uint8Array;
    egress: string[];
}
export declare namespace Accept {
    const codec: () => Codec<Accept>;
    interface AcceptQuoteFieldEvent {
        field: '$.quote';
        value: Uint8Array;
    }
    interface AcceptSpecDigestFieldEvent {
        field: '$.specDigest';
        value: Uint8Array;
    }
    interface AcceptBudgetFieldEvent {
        field: '$.budget';
        value: Uint8Array;
    }
    interface AcceptBlockhashFieldEvent {
        field: '$.blockhash';
        value: Uint8Array;
    }
    interface AcceptMessageFieldEvent {
        field: '$.message';
        value: Uint8Array;
    }
    interface AcceptEgressFieldEvent {
        field: '$.egress[]';
        index: number;
        value: string;
    }
    function encode(obj: Partial<Accept>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Accept>): Accept;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Accept>): Generator<AcceptQuoteFieldEvent | AcceptSpecDigestFieldEvent | AcceptBudgetFieldEvent | AcceptBlockhashFieldEvent | AcceptMessageFieldEvent | AcceptEgressFieldEvent>;
}
export interface Submit {
    lease: Uint8Array;
    spec: Uint8Array;
    transaction: Uint8Array;
    secrets: Secret[];
    registry?: RegistryLogin;
}
export declare namespace Submit {
    const codec: () => Codec<Submit>;
    interface SubmitLeaseFieldEvent {
        field: '$.lease';
        value: Uint8Array;
    }
    interface SubmitSpecFieldEvent {
        field: '$.spec';
        value: Uint8Array;
    }
    interface SubmitTransactionFieldEvent {
        field: '$.transaction';
        value: Uint8Array;
    }
    interface SubmitSecretsNameFieldEvent {
        field: '$.secrets[].name';
        value: string;
        index: number;
    }
    interface SubmitSecretsValueFieldEvent {
        field: '$.secrets[].value';
        value: Uint8Array;
        index: number;
    }
    interface SubmitRegistryUsernameFieldEvent {
        field: '$.registry.username';
        value: string;
    }
    interface SubmitRegistryPasswordFieldEvent {
        field: '$.registry.password';
        value: string;
    }
    function encode(obj: Partial<Submit>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Submit>): Submit;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Submit>): Generator<SubmitLeaseFieldEvent | SubmitSpecFieldEvent | SubmitTransactionFieldEvent | SubmitSecretsNameFieldEvent | SubmitSecretsValueFieldEvent | SubmitRegistryUsernameFieldEvent | SubmitRegistryPasswordFieldEvent>;
}
export interface RegistryLogin {
    username: string;
    password: string;
}
export declare namespace RegistryLogin {
    const codec: () => Codec<RegistryLogin>;
    interface RegistryLoginUsernameFieldEvent {
        field: '$.username';
        value: string;
    }
    interface RegistryLoginPasswordFieldEvent {
        field: '$.password';
        value: string;
    }
    function encode(obj: Partial<RegistryLogin>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<RegistryLogin>): RegistryLogin;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<RegistryLogin>): Generator<RegistryLoginUsernameFieldEvent | RegistryLoginPasswordFieldEvent>;
}
export interface Secret {
    name: string;
    value: Uint8Array;
}
export declare namespace Secret {
    const codec: () => Codec<Secret>;
    interface SecretNameFieldEvent {
        field: '$.name';
        value: string;
    }
    interface SecretValueFieldEvent {
        field: '$.value';
        value: Uint8Array;
    }
    function encode(obj: Partial<Secret>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Secret>): Secret;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Secret>): Generator<SecretNameFieldEvent | SecretValueFieldEvent>;
}
export interface Attach {
    lease: Uint8Array;
    fromSequence: bigint;
}
export declare namespace Attach {
    const codec: () => Codec<Attach>;
    interface AttachLeaseFieldEvent {
        field: '$.lease';
        value: Uint8Array;
    }
    interface AttachFromSequenceFieldEvent {
        field: '$.fromSequence';
        value: bigint;
    }
    function encode(obj: Partial<Attach>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Attach>): Attach;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Attach>): Generator<AttachLeaseFieldEvent | AttachFromSequenceFieldEvent>;
}
export interface SettleRequest {
    lease: Uint8Array;
    amount: bigint;
    blockhash: Uint8Array;
    delegateSignature: Uint8Array;
}
export declare namespace SettleRequest {
    const codec: () => Codec<SettleRequest>;
    interface SettleRequestLeaseFieldEvent {
        field: '$.lease';
        value: Uint8Array;
    }
    interface SettleRequestAmountFieldEvent {
        field: '$.amount';
        value: bigint;
    }
    interface SettleRequestBlockhashFieldEvent {
        field: '$.blockhash';
        value: Uint8Array;
    }
    interface SettleRequestDelegateSignatureFieldEvent {
        field: '$.delegateSignature';
        value: Uint8Array;
    }
    function encode(obj: Partial<SettleRequest>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<SettleRequest>): SettleRequest;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<SettleRequest>): Generator<SettleRequestLeaseFieldEvent | SettleRequestAmountFieldEvent | SettleRequestBlockhashFieldEvent | SettleRequestDelegateSignatureFieldEvent>;
}
export interface CancelRequest {
    lease: Uint8Array;
}
export declare namespace CancelRequest {
    const codec: () => Codec<CancelRequest>;
    interface CancelRequestLeaseFieldEvent {
        field: '$.lease';
        value: Uint8Array;
    }
    function encode(obj: Partial<CancelRequest>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<CancelRequest>): CancelRequest;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<CancelRequest>): Generator<CancelRequestLeaseFieldEvent>;
}
export interface LeaseResponse {
    accepted?: Accepted;
    refused?: Refusal;
    event?: JobEvent;
    settleSigned?: SettleSigned;
    heartbeat?: Heartbeat;
}
export declare namespace LeaseResponse {
    const codec: () => Codec<LeaseResponse>;
    interface LeaseResponseAcceptedLeaseFieldEvent {
        field: '$.accepted.lease';
        value: Uint8Array;
    }
    interface LeaseResponseAcceptedOperatorSignatureFieldEvent {
        field: '$.accepted.operatorSignature';
        value: Uint8Array;
    }
    interface LeaseResponseRefusedCodeFieldEvent {
        field: '$.refused.code';
        value: string;
    }
    interface LeaseResponseRefusedReasonFieldEvent {
        field: '$.refused.reason';
        value: string;
    }
    interface LeaseResponseRefusedEnoughFieldEvent {
        field: '$.refused.enough';
        value: bigint;
    }
    interface LeaseResponseEventSequenceFieldEvent {
        field: '$.event.sequence';
        value: bigint;
    }
    interface LeaseResponseEventAtMsFieldEvent {
        field: '$.event.atMs';
        value: bigint;
    }
    interface LeaseResponseEventAttemptFieldEvent {
        field: '$.event.attempt';
        value: number;
    }
    interface LeaseResponseEventPhasePhaseFieldEvent {
        field: '$.event.phase.phase';
        value: string;
    }
    interface LeaseResponseEventPhaseDetailFieldEvent {
        field: '$.event.phase.detail';
        value: string;
    }
    interface LeaseResponseEventPhaseBytesDoneFieldEvent {
        field: '$.event.phase.bytesDone';
        value: bigint;
    }
    interface LeaseResponseEventPhaseBytesTotalFieldEvent {
        field: '$.event.phase.bytesTotal';
        value: bigint;
    }
    interface LeaseResponseEventLogStreamFieldEvent {
        field: '$.event.log.stream';
        value: number;
    }
    interface LeaseResponseEventLogBytesFieldEvent {
        field: '$.event.log.bytes';
        value: Uint8Array;
    }
    interface LeaseResponseEventLogOffsetFieldEvent {
        field: '$.event.log.offset';
        value: bigint;
    }
    interface LeaseResponseEventUsageElapsedMsFieldEvent {
        field: '$.event.usage.elapsedMs';
        value: bigint;
    }
    interface LeaseResponseEventUsageCpuMsFieldEvent {
        field: '$.event.usage.cpuMs';
        value: bigint;
    }
    interface LeaseResponseEventUsageMemoryBytesFieldEvent {
        field: '$.event.usage.memoryBytes';
        value: bigint;
    }
    interface LeaseResponseEventUsageNetworkRxBytesFieldEvent {
        field: '$.event.usage.networkRxBytes';
        value: bigint;
    }
    interface LeaseResponseEventUsageNetworkTxBytesFieldEvent {
        field: '$.event.usage.networkTxBytes';
        value: bigint;
    }
    interface LeaseResponseEventUsageBlockReadBytesFieldEvent {
        field: '$.event.usage.blockReadBytes';
        value: bigint;
    }
    interface LeaseResponseEventUsageBlockWriteBytesFieldEvent {
        field: '$.event.usage.blockWriteBytes';
        value: bigint;
    }
    interface LeaseResponseEventUsageGpuPercentFieldEvent {
        field: '$.event.usage.gpuPercent';
        value: number;
    }
    interface LeaseResponseEventUsageGpuMemoryBytesFieldEvent {
        field: '$.event.usage.gpuMemoryBytes';
        value: bigint;
    }
    interface LeaseResponseEventProofEnvelopeFieldEvent {
        field: '$.event.proof.envelope';
        value: Uint8Array;
    }
    interface LeaseResponseEventProofCommitFieldEvent {
        field: '$.event.proof.commit';
        value: Uint8Array;
    }
    interface LeaseResponseEventProofCommitSignatureFieldEvent {
        field: '$.event.proof.commitSignature';
        value: Uint8Array;
    }
    interface LeaseResponseEventFailedCodeFieldEvent {
        field: '$.event.failed.code';
        value: string;
    }
    interface LeaseResponseEventFailedReasonFieldEvent {
        field: '$.event.failed.reason';
        value: string;
    }
    interface LeaseResponseEventFailedEnoughFieldEvent {
        field: '$.event.failed.enough';
        value: bigint;
    }
    interface LeaseResponseEventClosedStateFieldEvent {
        field: '$.event.closed.state';
        value: string;
    }
    interface LeaseResponseEventClosedPaidFieldEvent {
        field: '$.event.closed.paid';
        value: bigint;
    }
    interface LeaseResponseEventReadyServiceFieldEvent {
        field: '$.event.ready.service';
        value: string;
    }
    interface LeaseResponseEventReadyReadyFieldEvent {
        field: '$.event.ready.ready';
        value: boolean;
    }
    interface LeaseResponseEventReadyReasonFieldEvent {
        field: '$.event.ready.reason';
        value: string;
    }
    interface LeaseResponseSettleSignedOperatorSignatureFieldEvent {
        field: '$.settleSigned.operatorSignature';
        value: Uint8Array;
    }
    interface LeaseResponseHeartbeatNextSequenceFieldEvent {
        field: '$.heartbeat.nextSequence';
        value: bigint;
    }
    function encode(obj: Partial<LeaseResponse>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<LeaseResponse>): LeaseResponse;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<LeaseResponse>): Generator<LeaseResponseAcceptedLeaseFieldEvent | LeaseResponseAcceptedOperatorSignatureFieldEvent | LeaseResponseRefusedCodeFieldEvent | LeaseResponseRefusedReasonFieldEvent | LeaseResponseRefusedEnoughFieldEvent | LeaseResponseEventSequenceFieldEvent | LeaseResponseEventAtMsFieldEvent | LeaseResponseEventAttemptFieldEvent | LeaseResponseEventPhasePhaseFieldEvent | LeaseResponseEventPhaseDetailFieldEvent | LeaseResponseEventPhaseBytesDoneFieldEvent | LeaseResponseEventPhaseBytesTotalFieldEvent | LeaseResponseEventLogStreamFieldEvent | LeaseResponseEventLogBytesFieldEvent | LeaseResponseEventLogOffsetFieldEvent | LeaseResponseEventUsageElapsedMsFieldEvent | LeaseResponseEventUsageCpuMsFieldEvent | LeaseResponseEventUsageMemoryBytesFieldEvent | LeaseResponseEventUsageNetworkRxBytesFieldEvent | LeaseResponseEventUsageNetworkTxBytesFieldEvent | LeaseResponseEventUsageBlockReadBytesFieldEvent | LeaseResponseEventUsageBlockWriteBytesFieldEvent | LeaseResponseEventUsageGpuPercentFieldEvent | LeaseResponseEventUsageGpuMemoryBytesFieldEvent | LeaseResponseEventProofEnvelopeFieldEvent | LeaseResponseEventProofCommitFieldEvent | LeaseResponseEventProofCommitSignatureFieldEvent | LeaseResponseEventFailedCodeFieldEvent | LeaseResponseEventFailedReasonFieldEvent | LeaseResponseEventFailedEnoughFieldEvent | LeaseResponseEventClosedStateFieldEvent | LeaseResponseEventClosedPaidFieldEvent | LeaseResponseEventReadyServiceFieldEvent | LeaseResponseEventReadyReadyFieldEvent | LeaseResponseEventReadyReasonFieldEvent | LeaseResponseSettleSignedOperatorSignatureFieldEvent | LeaseResponseHeartbeatNextSequenceFieldEvent>;
}
export interface Accepted {
    lease: Uint8Array;
    operatorSignature: Uint8Array;
}
export declare namespace Accepted {
    const codec: () => Codec<Accepted>;
    interface AcceptedLeaseFieldEvent {
        field: '$.lease';
        value: Uint8Array;
    }
    interface AcceptedOperatorSignatureFieldEvent {
        field: '$.operatorSignature';
        value: Uint8Array;
    }
    function encode(obj: Partial<Accepted>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Accepted>): Accepted;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Accepted>): Generator<AcceptedLeaseFieldEvent | AcceptedOperatorSignatureFieldEvent>;
}
export interface SettleSigned {
    operatorSignature: Uint8Array;
}
export declare namespace SettleSigned {
    const codec: () => Codec<SettleSigned>;
    interface SettleSignedOperatorSignatureFieldEvent {
        field: '$.operatorSignature';
        value: Uint8Array;
    }
    function encode(obj: Partial<SettleSigned>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<SettleSigned>): SettleSigned;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<SettleSigned>): Generator<SettleSignedOperatorSignatureFieldEvent>;
}
export interface Heartbeat {
    nextSequence: bigint;
}
export declare namespace Heartbeat {
    const codec: () => Codec<Heartbeat>;
    interface HeartbeatNextSequenceFieldEvent {
        field: '$.nextSequence';
        value: bigint;
    }
    function encode(obj: Partial<Heartbeat>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Heartbeat>): Heartbeat;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<Heartbeat>): Generator<HeartbeatNextSequenceFieldEvent>;
}
export interface JobEvent {
    sequence: bigint;
    atMs: bigint;
    attempt: number;
    phase?: PhaseEvent;
    log?: LogEvent;
    usage?: UsageEvent;
    proof?: ProofEvent;
    failed?: Refusal;
    closed?: ClosedEvent;
    ready?: ReadyEvent;
}
export declare namespace JobEvent {
    const codec: () => Codec<JobEvent>;
    interface JobEventSequenceFieldEvent {
        field: '$.sequence';
        value: bigint;
    }
    interface JobEventAtMsFieldEvent {
        field: '$.atMs';
        value: bigint;
    }
    interface JobEventAttemptFieldEvent {
        field: '$.attempt';
        value: number;
    }
    interface JobEventPhasePhaseFieldEvent {
        field: '$.phase.phase';
        value: string;
    }
    interface JobEventPhaseDetailFieldEvent {
        field: '$.phase.detail';
        value: string;
    }
    interface JobEventPhaseBytesDoneFieldEvent {
        field: '$.phase.bytesDone';
        value: bigint;
    }
    interface JobEventPhaseBytesTotalFieldEvent {
        field: '$.phase.bytesTotal';
        value: bigint;
    }
    interface JobEventLogStreamFieldEvent {
        field: '$.log.stream';
        value: number;
    }
    interface JobEventLogBytesFieldEvent {
        field: '$.log.bytes';
        value: Uint8Array;
    }
    interface JobEventLogOffsetFieldEvent {
        field: '$.log.offset';
        value: bigint;
    }
    interface JobEventUsageElapsedMsFieldEvent {
        field: '$.usage.elapsedMs';
        value: bigint;
    }
    interface JobEventUsageCpuMsFieldEvent {
        field: '$.usage.cpuMs';
        value: bigint;
    }
    interface JobEventUsageMemoryBytesFieldEvent {
        field: '$.usage.memoryBytes';
        value: bigint;
    }
    interface JobEventUsageNetworkRxBytesFieldEvent {
        field: '$.usage.networkRxBytes';
        value: bigint;
    }
    interface JobEventUsageNetworkTxBytesFieldEvent {
        field: '$.usage.networkTxBytes';
        value: bigint;
    }
    interface JobEventUsageBlockReadBytesFieldEvent {
        field: '$.usage.blockReadBytes';
        value: bigint;
    }
    interface JobEventUsageBlockWriteBytesFieldEvent {
        field: '$.usage.blockWriteBytes';
        value: bigint;
    }
    interface JobEventUsageGpuPercentFieldEvent {
        field: '$.usage.gpuPercent';
        value: number;
    }
    interface JobEventUsageGpuMemoryBytesFieldEvent {
        field: '$.usage.gpuMemoryBytes';
        value: bigint;
    }
    interface JobEventProofEnvelopeFieldEvent {
        field: '$.proof.envelope';
        value: Uint8Array;
    }
    interface JobEventProofCommitFieldEvent {
        field: '$.proof.commit';
        value: Uint8Array;
    }
    interface JobEventProofCommitSignatureFieldEvent {
        field: '$.proof.commitSignature';
        value: Uint8Array;
    }
    interface JobEventFailedCodeFieldEvent {
        field: '$.failed.code';
        value: string;
    }
    interface JobEventFailedReasonFieldEvent {
        field: '$.failed.reason';
        value: string;
    }
    interface JobEventFailedEnoughFieldEvent {
        field: '$.failed.enough';
        value: bigint;
    }
    interface JobEventClosedStateFieldEvent {
        field: '$.closed.state';
        value: string;
    }
    interface JobEventClosedPaidFieldEvent {
        field: '$.closed.paid';
        value: bigint;
    }
    interface JobEventReadyServiceFieldEvent {
        field: '$.ready.service';
        value: string;
    }
    interface JobEventReadyReadyFieldEvent {
        field: '$.ready.ready';
        value: boolean;
    }
    interface JobEventReadyReasonFieldEvent {
        field: '$.ready.reason';
        value: string;
    }
    function encode(obj: Partial<JobEvent>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<JobEvent>): JobEvent;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<JobEvent>): Generator<JobEventSequenceFieldEvent | JobEventAtMsFieldEvent | JobEventAttemptFieldEvent | JobEventPhasePhaseFieldEvent | JobEventPhaseDetailFieldEvent | JobEventPhaseBytesDoneFieldEvent | JobEventPhaseBytesTotalFieldEvent | JobEventLogStreamFieldEvent | JobEventLogBytesFieldEvent | JobEventLogOffsetFieldEvent | JobEventUsageElapsedMsFieldEvent | JobEventUsageCpuMsFieldEvent | JobEventUsageMemoryBytesFieldEvent | JobEventUsageNetworkRxBytesFieldEvent | JobEventUsageNetworkTxBytesFieldEvent | JobEventUsageBlockReadBytesFieldEvent | JobEventUsageBlockWriteBytesFieldEvent | JobEventUsageGpuPercentFieldEvent | JobEventUsageGpuMemoryBytesFieldEvent | JobEventProofEnvelopeFieldEvent | JobEventProofCommitFieldEvent | JobEventProofCommitSignatureFieldEvent | JobEventFailedCodeFieldEvent | JobEventFailedReasonFieldEvent | JobEventFailedEnoughFieldEvent | JobEventClosedStateFieldEvent | JobEventClosedPaidFieldEvent | JobEventReadyServiceFieldEvent | JobEventReadyReadyFieldEvent | JobEventReadyReasonFieldEvent>;
}
export interface PhaseEvent {
    phase: string;
    detail: string;
    bytesDone: bigint;
    bytesTotal: bigint;
}
export declare namespace PhaseEvent {
    const codec: () => Codec<PhaseEvent>;
    interface PhaseEventPhaseFieldEvent {
        field: '$.phase';
        value: string;
    }
    interface PhaseEventDetailFieldEvent {
        field: '$.detail';
        value: string;
    }
    interface PhaseEventBytesDoneFieldEvent {
        field: '$.bytesDone';
        value: bigint;
    }
    interface PhaseEventBytesTotalFieldEvent {
        field: '$.bytesTotal';
        value: bigint;
    }
    function encode(obj: Partial<PhaseEvent>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<PhaseEvent>): PhaseEvent;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<PhaseEvent>): Generator<PhaseEventPhaseFieldEvent | PhaseEventDetailFieldEvent | PhaseEventBytesDoneFieldEvent | PhaseEventBytesTotalFieldEvent>;
}
export interface LogEvent {
    stream: number;
    bytes: Uint8Array;
    offset: bigint;
}
export declare namespace LogEvent {
    const codec: () => Codec<LogEvent>;
    interface LogEventStreamFieldEvent {
        field: '$.stream';
        value: number;
    }
    interface LogEventBytesFieldEvent {
        field: '$.bytes';
        value: Uint8Array;
    }
    interface LogEventOffsetFieldEvent {
        field: '$.offset';
        value: bigint;
    }
    function encode(obj: Partial<LogEvent>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<LogEvent>): LogEvent;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<LogEvent>): Generator<LogEventStreamFieldEvent | LogEventBytesFieldEvent | LogEventOffsetFieldEvent>;
}
export interface UsageEvent {
    elapsedMs: bigint;
    cpuMs: bigint;
    memoryBytes: bigint;
    networkRxBytes: bigint;
    networkTxBytes: bigint;
    blockReadBytes: bigint;
    blockWriteBytes: bigint;
    gpuPercent: number;
    gpuMemoryBytes: bigint;
}
export declare namespace UsageEvent {
    const codec: () => Codec<UsageEvent>;
    interface UsageEventElapsedMsFieldEvent {
        field: '$.elapsedMs';
        value: bigint;
    }
    interface UsageEventCpuMsFieldEvent {
        field: '$.cpuMs';
        value: bigint;
    }
    interface UsageEventMemoryBytesFieldEvent {
        field: '$.memoryBytes';
        value: bigint;
    }
    interface UsageEventNetworkRxBytesFieldEvent {
        field: '$.networkRxBytes';
        value: bigint;
    }
    interface UsageEventNetworkTxBytesFieldEvent {
        field: '$.networkTxBytes';
        value: bigint;
    }
    interface UsageEventBlockReadBytesFieldEvent {
        field: '$.blockReadBytes';
        value: bigint;
    }
    interface UsageEventBlockWriteBytesFieldEvent {
        field: '$.blockWriteBytes';
        value: bigint;
    }
    interface UsageEventGpuPercentFieldEvent {
        field: '$.gpuPercent';
        value: number;
    }
    interface UsageEventGpuMemoryBytesFieldEvent {
        field: '$.gpuMemoryBytes';
        value: bigint;
    }
    function encode(obj: Partial<UsageEvent>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<UsageEvent>): UsageEvent;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<UsageEvent>): Generator<UsageEventElapsedMsFieldEvent | UsageEventCpuMsFieldEvent | UsageEventMemoryBytesFieldEvent | UsageEventNetworkRxBytesFieldEvent | UsageEventNetworkTxBytesFieldEvent | UsageEventBlockReadBytesFieldEvent | UsageEventBlockWriteBytesFieldEvent | UsageEventGpuPercentFieldEvent | UsageEventGpuMemoryBytesFieldEvent>;
}
export interface ProofEvent {
    envelope: Uint8Array;
    commit: Uint8Array;
    commitSignature: Uint8Array;
}
export declare namespace ProofEvent {
    const codec: () => Codec<ProofEvent>;
    interface ProofEventEnvelopeFieldEvent {
        field: '$.envelope';
        value: Uint8Array;
    }
    interface ProofEventCommitFieldEvent {
        field: '$.commit';
        value: Uint8Array;
    }
    interface ProofEventCommitSignatureFieldEvent {
        field: '$.commitSignature';
        value: Uint8Array;
    }
    function encode(obj: Partial<ProofEvent>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<ProofEvent>): ProofEvent;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<ProofEvent>): Generator<ProofEventEnvelopeFieldEvent | ProofEventCommitFieldEvent | ProofEventCommitSignatureFieldEvent>;
}
export interface ClosedEvent {
    state: string;
    paid: bigint;
}
export declare namespace ClosedEvent {
    const codec: () => Codec<ClosedEvent>;
    interface ClosedEventStateFieldEvent {
        field: '$.state';
        value: string;
    }
    interface ClosedEventPaidFieldEvent {
        field: '$.paid';
        value: bigint;
    }
    function encode(obj: Partial<ClosedEvent>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<ClosedEvent>): ClosedEvent;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<ClosedEvent>): Generator<ClosedEventStateFieldEvent | ClosedEventPaidFieldEvent>;
}
export interface ReadyEvent {
    service: string;
    ready: boolean;
    reason: string;
}
export declare namespace ReadyEvent {
    const codec: () => Codec<ReadyEvent>;
    interface ReadyEventServiceFieldEvent {
        field: '$.service';
        value: string;
    }
    interface ReadyEventReadyFieldEvent {
        field: '$.ready';
        value: boolean;
    }
    interface ReadyEventReasonFieldEvent {
        field: '$.reason';
        value: string;
    }
    function encode(obj: Partial<ReadyEvent>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<ReadyEvent>): ReadyEvent;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<ReadyEvent>): Generator<ReadyEventServiceFieldEvent | ReadyEventReadyFieldEvent | ReadyEventReasonFieldEvent>;
}
export interface ForwardRequest {
    lease: Uint8Array;
    port: number;
}
export declare namespace ForwardRequest {
    const codec: () => Codec<ForwardRequest>;
    interface ForwardRequestLeaseFieldEvent {
        field: '$.lease';
        value: Uint8Array;
    }
    interface ForwardRequestPortFieldEvent {
        field: '$.port';
        value: number;
    }
    function encode(obj: Partial<ForwardRequest>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<ForwardRequest>): ForwardRequest;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<ForwardRequest>): Generator<ForwardRequestLeaseFieldEvent | ForwardRequestPortFieldEvent>;
}
export interface ForwardAnswer {
    refused?: Refusal;
}
export declare namespace ForwardAnswer {
    const codec: () => Codec<ForwardAnswer>;
    interface ForwardAnswerRefusedCodeFieldEvent {
        field: '$.refused.code';
        value: string;
    }
    interface ForwardAnswerRefusedReasonFieldEvent {
        field: '$.refused.reason';
        value: string;
    }
    interface ForwardAnswerRefusedEnoughFieldEvent {
        field: '$.refused.enough';
        value: bigint;
    }
    function encode(obj: Partial<ForwardAnswer>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<ForwardAnswer>): ForwardAnswer;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<ForwardAnswer>): Generator<ForwardAnswerRefusedCodeFieldEvent | ForwardAnswerRefusedReasonFieldEvent | ForwardAnswerRefusedEnoughFieldEvent>;
}
export interface OffersRequest {
    resourceClass: string;
    region: string;
}
export declare namespace OffersRequest {
    const codec: () => Codec<OffersRequest>;
    interface OffersRequestResourceClassFieldEvent {
        field: '$.resourceClass';
        value: string;
    }
    interface OffersRequestRegionFieldEvent {
        field: '$.region';
        value: string;
    }
    function encode(obj: Partial<OffersRequest>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<OffersRequest>): OffersRequest;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<OffersRequest>): Generator<OffersRequestResourceClassFieldEvent | OffersRequestRegionFieldEvent>;
}
export interface ArtifactRequest {
    cid: Uint8Array;
    leaves: boolean;
    have: Uint8Array;
}
export declare namespace ArtifactRequest {
    const codec: () => Codec<ArtifactRequest>;
    interface ArtifactRequestCidFieldEvent {
        field: '$.cid';
        value: Uint8Array;
    }
    interface ArtifactRequestLeavesFieldEvent {
        field: '$.leaves';
        value: boolean;
    }
    interface ArtifactRequestHaveFieldEvent {
        field: '$.have';
        value: Uint8Array;
    }
    function encode(obj: Partial<ArtifactRequest>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<ArtifactRequest>): ArtifactRequest;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<ArtifactRequest>): Generator<ArtifactRequestCidFieldEvent | ArtifactRequestLeavesFieldEvent | ArtifactRequestHaveFieldEvent>;
}
export interface ArtifactAnswer {
    refused?: Refusal;
}
export declare namespace ArtifactAnswer {
    const codec: () => Codec<ArtifactAnswer>;
    interface ArtifactAnswerRefusedCodeFieldEvent {
        field: '$.refused.code';
        value: string;
    }
    interface ArtifactAnswerRefusedReasonFieldEvent {
        field: '$.refused.reason';
        value: string;
    }
    interface ArtifactAnswerRefusedEnoughFieldEvent {
        field: '$.refused.enough';
        value: bigint;
    }
    function encode(obj: Partial<ArtifactAnswer>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<ArtifactAnswer>): ArtifactAnswer;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<ArtifactAnswer>): Generator<ArtifactAnswerRefusedCodeFieldEvent | ArtifactAnswerRefusedReasonFieldEvent | ArtifactAnswerRefusedEnoughFieldEvent>;
}
export interface EvidenceRequest {
    lease: Uint8Array;
    quote: Uint8Array;
    spec: Uint8Array;
    proof: Uint8Array;
    hasContent: boolean;
}
export declare namespace EvidenceRequest {
    const codec: () => Codec<EvidenceRequest>;
    interface EvidenceRequestLeaseFieldEvent {
        field: '$.lease';
        value: Uint8Array;
    }
    interface EvidenceRequestQuoteFieldEvent {
        field: '$.quote';
        value: Uint8Array;
    }
    interface EvidenceRequestSpecFieldEvent {
        field: '$.spec';
        value: Uint8Array;
    }
    interface EvidenceRequestProofFieldEvent {
        field: '$.proof';
        value: Uint8Array;
    }
    interface EvidenceRequestHasContentFieldEvent {
        field: '$.hasContent';
        value: boolean;
    }
    function encode(obj: Partial<EvidenceRequest>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<EvidenceRequest>): EvidenceRequest;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<EvidenceRequest>): Generator<EvidenceRequestLeaseFieldEvent | EvidenceRequestQuoteFieldEvent | EvidenceRequestSpecFieldEvent | EvidenceRequestProofFieldEvent | EvidenceRequestHasContentFieldEvent>;
}
export interface EvidenceAnswer {
    refused?: Refusal;
}
export declare namespace EvidenceAnswer {
    const codec: () => Codec<EvidenceAnswer>;
    interface EvidenceAnswerRefusedCodeFieldEvent {
        field: '$.refused.code';
        value: string;
    }
    interface EvidenceAnswerRefusedReasonFieldEvent {
        field: '$.refused.reason';
        value: string;
    }
    interface EvidenceAnswerRefusedEnoughFieldEvent {
        field: '$.refused.enough';
        value: bigint;
    }
    function encode(obj: Partial<EvidenceAnswer>): Uint8Array;
    function decode(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<EvidenceAnswer>): EvidenceAnswer;
    function stream(buf: Uint8Array | Uint8ArrayList, opts?: DecodeOptions<EvidenceAnswer>): Generator<EvidenceAnswerRefusedCodeFieldEvent | EvidenceAnswerRefusedReasonFieldEvent | EvidenceAnswerRefusedEnoughFieldEvent>;
}
