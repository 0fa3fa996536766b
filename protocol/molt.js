// Generated from molt.proto by `npm run proto`. Do not edit.
import { decodeMessage, encodeMessage, MaxLengthError, message, streamMessage } from 'protons-runtime';
import { alloc as uint8ArrayAlloc } from 'uint8arrays/alloc';
export var Signed;
(function (Signed) {
    let _codec;
    Signed.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.payload != null && obj.payload.byteLength > 0)) {
                    w.uint32(10);
                    w.bytes(obj.payload);
                }
                if ((obj.signature != null && obj.signature.byteLength > 0)) {
                    w.uint32(18);
                    w.bytes(obj.signature);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    payload: uint8ArrayAlloc(0),
                    signature: uint8ArrayAlloc(0)
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.payload = reader.bytes();
                            break;
                        }
                        case 2: {
                            obj.signature = reader.bytes();
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.payload`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 2: {
                            yield {
                                field: `${prefix}.signature`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, Signed.codec());
    }
    Signed.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, Signed.codec(), opts);
    }
    Signed.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, Signed.codec(), opts);
    }
    Signed.stream = stream;
})(Signed || (Signed = {}));
export var Payload;
(function (Payload) {
    let _codec;
    Payload.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.version != null && obj.version !== 0)) {
                    w.uint32(8);
                    w.uint32(obj.version);
                }
                if ((obj.kind != null && obj.kind !== 0)) {
                    w.uint32(16);
                    w.uint32(obj.kind);
                }
                if ((obj.network != null && obj.network.byteLength > 0)) {
                    w.uint32(26);
                    w.bytes(obj.network);
                }
                if ((obj.signer != null && obj.signer.byteLength > 0)) {
                    w.uint32(34);
                    w.bytes(obj.signer);
                }
                if ((obj.sequence != null && obj.sequence !== 0n)) {
                    w.uint32(41);
                    w.fixed64(obj.sequence);
                }
                if ((obj.issuedMs != null && obj.issuedMs !== 0n)) {
                    w.uint32(49);
                    w.fixed64(obj.issuedMs);
                }
                if ((obj.expiresMs != null && obj.expiresMs !== 0n)) {
                    w.uint32(57);
                    w.fixed64(obj.expiresMs);
                }
                if ((obj.body != null && obj.body.byteLength > 0)) {
                    w.uint32(66);
                    w.bytes(obj.body);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    version: 0,
                    kind: 0,
                    network: uint8ArrayAlloc(0),
                    signer: uint8ArrayAlloc(0),
                    sequence: 0n,
                    issuedMs: 0n,
                    expiresMs: 0n,
                    body: uint8ArrayAlloc(0)
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.version = reader.uint32();
                            break;
                        }
                        case 2: {
                            obj.kind = reader.uint32();
                            break;
                        }
                        case 3: {
                            obj.network = reader.bytes();
                            break;
                        }
                        case 4: {
                            obj.signer = reader.bytes();
                            break;
                        }
                        case 5: {
                            obj.sequence = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 6: {
                            obj.issuedMs = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 7: {
                            obj.expiresMs = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 8: {
                            obj.body = reader.bytes();
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.version`,
                                value: reader.uint32()
                            };
                            break;
                        }
                        case 2: {
                            yield {
                                field: `${prefix}.kind`,
                                value: reader.uint32()
                            };
                            break;
                        }
                        case 3: {
                            yield {
                                field: `${prefix}.network`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 4: {
                            yield {
                                field: `${prefix}.signer`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 5: {
                            yield {
                                field: `${prefix}.sequence`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 6: {
                            yield {
                                field: `${prefix}.issuedMs`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 7: {
                            yield {
                                field: `${prefix}.expiresMs`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 8: {
                            yield {
                                field: `${prefix}.body`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, Payload.codec());
    }
    Payload.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, Payload.codec(), opts);
    }
    Payload.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, Payload.codec(), opts);
    }
    Payload.stream = stream;
})(Payload || (Payload = {}));
export var Resources;
(function (Resources) {
    let _codec;
    Resources.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.cpuMillis != null && obj.cpuMillis !== 0)) {
                    w.uint32(8);
                    w.uint32(obj.cpuMillis);
                }
                if ((obj.memoryBytes != null && obj.memoryBytes !== 0n)) {
                    w.uint32(17);
                    w.fixed64(obj.memoryBytes);
                }
                if ((obj.diskBytes != null && obj.diskBytes !== 0n)) {
                    w.uint32(25);
                    w.fixed64(obj.diskBytes);
                }
                if (obj.gpus != null && obj.gpus.length > 0) {
                    for (const value of obj.gpus) {
                        w.uint32(34);
                        Gpus.codec().encode(value, w);
                    }
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    cpuMillis: 0,
                    memoryBytes: 0n,
                    diskBytes: 0n,
                    gpus: []
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.cpuMillis = reader.uint32();
                            break;
                        }
                        case 2: {
                            obj.memoryBytes = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 3: {
                            obj.diskBytes = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 4: {
                            if (opts.limits?.gpus != null && obj.gpus.length === opts.limits.gpus) {
                                throw new MaxLengthError('Decode error - repeated field "gpus" had too many elements');
                            }
                            obj.gpus.push(Gpus.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.gpus$
                            }));
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const obj = {
                    gpus: 0
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.cpuMillis`,
                                value: reader.uint32()
                            };
                            break;
                        }
                        case 2: {
                            yield {
                                field: `${prefix}.memoryBytes`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 3: {
                            yield {
                                field: `${prefix}.diskBytes`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 4: {
                            if (opts.limits?.gpus != null && obj.gpus === opts.limits.gpus) {
                                throw new MaxLengthError('Streaming decode error - repeated field "gpus" had too many elements');
                            }
                            for (const evt of Gpus.codec().stream(reader, reader.uint32(), `${prefix}.gpus[]`, {
                                limits: opts.limits?.gpus$
                            })) {
                                yield {
                                    ...evt,
                                    index: obj.gpus
                                };
                            }
                            obj.gpus++;
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, Resources.codec());
    }
    Resources.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, Resources.codec(), opts);
    }
    Resources.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, Resources.codec(), opts);
    }
    Resources.stream = stream;
})(Resources || (Resources = {}));
export var Gpus;
(function (Gpus) {
    let _codec;
    Gpus.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.count != null && obj.count !== 0)) {
                    w.uint32(8);
                    w.uint32(obj.count);
                }
                if ((obj.vramBytes != null && obj.vramBytes !== 0n)) {
                    w.uint32(17);
                    w.fixed64(obj.vramBytes);
                }
                if ((obj.model != null && obj.model !== '')) {
                    w.uint32(26);
                    w.string(obj.model);
                }
                if ((obj.computeCapability != null && obj.computeCapability !== 0)) {
                    w.uint32(32);
                    w.uint32(obj.computeCapability);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    count: 0,
                    vramBytes: 0n,
                    model: '',
                    computeCapability: 0
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.count = reader.uint32();
                            break;
                        }
                        case 2: {
                            obj.vramBytes = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 3: {
                            obj.model = reader.string();
                            break;
                        }
                        case 4: {
                            obj.computeCapability = reader.uint32();
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.count`,
                                value: reader.uint32()
                            };
                            break;
                        }
                        case 2: {
                            yield {
                                field: `${prefix}.vramBytes`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 3: {
                            yield {
                                field: `${prefix}.model`,
                                value: reader.string()
                            };
                            break;
                        }
                        case 4: {
                            yield {
                                field: `${prefix}.computeCapability`,
                                value: reader.uint32()
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, Gpus.codec());
    }
    Gpus.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, Gpus.codec(), opts);
    }
    Gpus.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, Gpus.codec(), opts);
    }
    Gpus.stream = stream;
})(Gpus || (Gpus = {}));
export var Offer;
(function (Offer) {
    let _codec;
    Offer.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.provider != null && obj.provider.byteLength > 0)) {
                    w.uint32(10);
                    w.bytes(obj.provider);
                }
                if (obj.free != null) {
                    w.uint32(18);
                    Resources.codec().encode(obj.free, w);
                }
                if (obj.runtimes != null && obj.runtimes.length > 0) {
                    for (const value of obj.runtimes) {
                        w.uint32(24);
                        w.uint32(value);
                    }
                }
                if (obj.prices != null) {
                    w.uint32(34);
                    Prices.codec().encode(obj.prices, w);
                }
                if ((obj.speed != null && obj.speed !== 0)) {
                    w.uint32(40);
                    w.uint32(obj.speed);
                }
                if ((obj.speedMeasuredMs != null && obj.speedMeasuredMs !== 0n)) {
                    w.uint32(49);
                    w.fixed64(obj.speedMeasuredMs);
                }
                if ((obj.region != null && obj.region !== '')) {
                    w.uint32(58);
                    w.string(obj.region);
                }
                if ((obj.durationSecondsMax != null && obj.durationSecondsMax !== 0)) {
                    w.uint32(64);
                    w.uint32(obj.durationSecondsMax);
                }
                if (obj.warm != null && obj.warm.length > 0) {
                    for (const value of obj.warm) {
                        w.uint32(74);
                        w.bytes(value);
                    }
                }
                if (obj.addresses != null && obj.addresses.length > 0) {
                    for (const value of obj.addresses) {
                        w.uint32(82);
                        w.bytes(value);
                    }
                }
                if ((obj.revoked != null && obj.revoked !== false)) {
                    w.uint32(88);
                    w.bool(obj.revoked);
                }
                if (obj.features != null && obj.features.length > 0) {
                    for (const value of obj.features) {
                        w.uint32(96);
                        w.uint32(value);
                    }
                }
                if ((obj.hardwareTier != null && obj.hardwareTier !== 0)) {
                    w.uint32(104);
                    w.uint32(obj.hardwareTier);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    provider: uint8ArrayAlloc(0),
                    runtimes: [],
                    speed: 0,
                    speedMeasuredMs: 0n,
                    region: '',
                    durationSecondsMax: 0,
                    warm: [],
                    addresses: [],
                    revoked: false,
                    features: [],
                    hardwareTier: 0
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.provider = reader.bytes();
                            break;
                        }
                        case 2: {
                            obj.free = Resources.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.free
                            });
                            break;
                        }
                        case 3: {
                            if (opts.limits?.runtimes != null && obj.runtimes.length === opts.limits.runtimes) {
                                throw new MaxLengthError('Decode error - repeated field "runtimes" had too many elements');
                            }
                            obj.runtimes.push(reader.uint32());
                            break;
                        }
                        case 4: {
                            obj.prices = Prices.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.prices
                            });
                            break;
                        }
                        case 5: {
                            obj.speed = reader.uint32();
                            break;
                        }
                        case 6: {
                            obj.speedMeasuredMs = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 7: {
                            obj.region = reader.string();
                            break;
                        }
                        case 8: {
                            obj.durationSecondsMax = reader.uint32();
                            break;
                        }
                        case 9: {
                            if (opts.limits?.warm != null && obj.warm.length === opts.limits.warm) {
                                throw new MaxLengthError('Decode error - repeated field "warm" had too many elements');
                            }
                            obj.warm.push(reader.bytes());
                            break;
                        }
                        case 10: {
                            if (opts.limits?.addresses != null && obj.addresses.length === opts.limits.addresses) {
                                throw new MaxLengthError('Decode error - repeated field "addresses" had too many elements');
                            }
                            obj.addresses.push(reader.bytes());
                            break;
                        }
                        case 11: {
                            obj.revoked = reader.bool();
                            break;
                        }
                        case 12: {
                            if (opts.limits?.features != null && obj.features.length === opts.limits.features) {
                                throw new MaxLengthError('Decode error - repeated field "features" had too many elements');
                            }
                            obj.features.push(reader.uint32());
                            break;
                        }
                        case 13: {
                            obj.hardwareTier = reader.uint32();
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const obj = {
                    runtimes: 0,
                    warm: 0,
                    addresses: 0,
                    features: 0
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.provider`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 2: {
                            yield* Resources.codec().stream(reader, reader.uint32(), `${prefix}.free`, {
                                limits: opts.limits?.free
                            });
                            break;
                        }
                        case 3: {
                            if (opts.limits?.runtimes != null && obj.runtimes === opts.limits.runtimes) {
                                throw new MaxLengthError('Streaming decode error - repeated field "runtimes" had too many elements');
                            }
                            yield {
                                field: `${prefix}.runtimes[]`,
                                index: obj.runtimes,
                                value: reader.uint32()
                            };
                            obj.runtimes++;
                            break;
                        }
                        case 4: {
                            yield* Prices.codec().stream(reader, reader.uint32(), `${prefix}.prices`, {
                                limits: opts.limits?.prices
                            });
                            break;
                        }
                        case 5: {
                            yield {
                                field: `${prefix}.speed`,
                                value: reader.uint32()
                            };
                            break;
                        }
                        case 6: {
                            yield {
                                field: `${prefix}.speedMeasuredMs`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 7: {
                            yield {
                                field: `${prefix}.region`,
                                value: reader.string()
                            };
                            break;
                        }
                        case 8: {
                            yield {
                                field: `${prefix}.durationSecondsMax`,
                                value: reader.uint32()
                            };
                            break;
                        }
                        case 9: {
                            if (opts.limits?.warm != null && obj.warm === opts.limits.warm) {
                                throw new MaxLengthError('Streaming decode error - repeated field "warm" had too many elements');
                            }
                            yield {
                                field: `${prefix}.warm[]`,
                                index: obj.warm,
                                value: reader.bytes()
                            };
                            obj.warm++;
                            break;
                        }
                        case 10: {
                            if (opts.limits?.addresses != null && obj.addresses === opts.limits.addresses) {
                                throw new MaxLengthError('Streaming decode error - repeated field "addresses" had too many elements');
                            }
                            yield {
                                field: `${prefix}.addresses[]`,
                                index: obj.addresses,
                                value: reader.bytes()
                            };
                            obj.addresses++;
                            break;
                        }
                        case 11: {
                            yield {
                                field: `${prefix}.revoked`,
                                value: reader.bool()
                            };
                            break;
                        }
                        case 12: {
                            if (opts.limits?.features != null && obj.features === opts.limits.features) {
                                throw new MaxLengthError('Streaming decode error - repeated field "features" had too many elements');
                            }
                            yield {
                                field: `${prefix}.features[]`,
                                index: obj.features,
                                value: reader.uint32()
                            };
                            obj.features++;
                            break;
                        }
                        case 13: {
                            yield {
                                field: `${prefix}.hardwareTier`,
                                value: reader.uint32()
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, Offer.codec());
    }
    Offer.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, Offer.codec(), opts);
    }
    Offer.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, Offer.codec(), opts);
    }
    Offer.stream = stream;
})(Offer || (Offer = {}));
export var Prices;
(function (Prices) {
    let _codec;
    Prices.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.base != null && obj.base !== 0n)) {
                    w.uint32(9);
                    w.fixed64(obj.base);
                }
                if ((obj.cpu != null && obj.cpu !== 0n)) {
                    w.uint32(17);
                    w.fixed64(obj.cpu);
                }
                if ((obj.memory != null && obj.memory !== 0n)) {
                    w.uint32(25);
                    w.fixed64(obj.memory);
                }
                if ((obj.gpu != null && obj.gpu !== 0n)) {
                    w.uint32(33);
                    w.fixed64(obj.gpu);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    base: 0n,
                    cpu: 0n,
                    memory: 0n,
                    gpu: 0n
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.base = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 2: {
                            obj.cpu = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 3: {
                            obj.memory = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 4: {
                            obj.gpu = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.base`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 2: {
                            yield {
                                field: `${prefix}.cpu`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 3: {
                            yield {
                                field: `${prefix}.memory`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 4: {
                            yield {
                                field: `${prefix}.gpu`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, Prices.codec());
    }
    Prices.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, Prices.codec(), opts);
    }
    Prices.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, Prices.codec(), opts);
    }
    Prices.stream = stream;
})(Prices || (Prices = {}));
export var Bid;
(function (Bid) {
    let _codec;
    Bid.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if (obj.need != null) {
                    w.uint32(10);
                    Resources.codec().encode(obj.need, w);
                }
                if ((obj.runtime != null && obj.runtime !== 0)) {
                    w.uint32(16);
                    w.uint32(obj.runtime);
                }
                if ((obj.durationSecondsMax != null && obj.durationSecondsMax !== 0)) {
                    w.uint32(24);
                    w.uint32(obj.durationSecondsMax);
                }
                if ((obj.pricePerSecondMax != null && obj.pricePerSecondMax !== 0n)) {
                    w.uint32(33);
                    w.fixed64(obj.pricePerSecondMax);
                }
                if ((obj.stakeMin != null && obj.stakeMin !== 0n)) {
                    w.uint32(41);
                    w.fixed64(obj.stakeMin);
                }
                if ((obj.reserveMin != null && obj.reserveMin !== 0n)) {
                    w.uint32(49);
                    w.fixed64(obj.reserveMin);
                }
                if ((obj.region != null && obj.region !== '')) {
                    w.uint32(58);
                    w.string(obj.region);
                }
                if ((obj.distanceMax != null && obj.distanceMax !== 0n)) {
                    w.uint32(65);
                    w.fixed64(obj.distanceMax);
                }
                if ((obj.quotesWanted != null && obj.quotesWanted !== 0)) {
                    w.uint32(72);
                    w.uint32(obj.quotesWanted);
                }
                if ((obj.warm != null && obj.warm.byteLength > 0)) {
                    w.uint32(82);
                    w.bytes(obj.warm);
                }
                if (obj.addresses != null && obj.addresses.length > 0) {
                    for (const value of obj.addresses) {
                        w.uint32(90);
                        w.bytes(value);
                    }
                }
                if (obj.features != null && obj.features.length > 0) {
                    for (const value of obj.features) {
                        w.uint32(96);
                        w.uint32(value);
                    }
                }
                if ((obj.finishByMs != null && obj.finishByMs !== 0n)) {
                    w.uint32(105);
                    w.fixed64(obj.finishByMs);
                }
                if ((obj.startByMs != null && obj.startByMs !== 0n)) {
                    w.uint32(113);
                    w.fixed64(obj.startByMs);
                }
                if ((obj.budget != null && obj.budget.byteLength > 0)) {
                    w.uint32(122);
                    w.bytes(obj.budget);
                }
                if ((obj.windowMs != null && obj.windowMs !== 0n)) {
                    w.uint32(129);
                    w.fixed64(obj.windowMs);
                }
                if (obj.near != null && obj.near.length > 0) {
                    for (const value of obj.near) {
                        w.uint32(138);
                        w.bytes(value);
                    }
                }
                if ((obj.hardwareTier != null && obj.hardwareTier !== 0)) {
                    w.uint32(144);
                    w.uint32(obj.hardwareTier);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    runtime: 0,
                    durationSecondsMax: 0,
                    pricePerSecondMax: 0n,
                    stakeMin: 0n,
                    reserveMin: 0n,
                    region: '',
                    distanceMax: 0n,
                    quotesWanted: 0,
                    warm: uint8ArrayAlloc(0),
                    addresses: [],
                    features: [],
                    finishByMs: 0n,
                    startByMs: 0n,
                    budget: uint8ArrayAlloc(0),
                    windowMs: 0n,
                    near: [],
                    hardwareTier: 0
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.need = Resources.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.need
                            });
                            break;
                        }
                        case 2: {
                            obj.runtime = reader.uint32();
                            break;
                        }
                        case 3: {
                            obj.durationSecondsMax = reader.uint32();
                            break;
                        }
                        case 4: {
                            obj.pricePerSecondMax = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 5: {
                            obj.stakeMin = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 6: {
                            obj.reserveMin = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 7: {
                            obj.region = reader.string();
                            break;
                        }
                        case 8: {
                            obj.distanceMax = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 9: {
                            obj.quotesWanted = reader.uint32();
                            break;
                        }
                        case 10: {
                            obj.warm = reader.bytes();
                            break;
                        }
                        case 11: {
                            if (opts.limits?.addresses != null && obj.addresses.length === opts.limits.addresses) {
                                throw new MaxLengthError('Decode error - repeated field "addresses" had too many elements');
                            }
                            obj.addresses.push(reader.bytes());
                            break;
                        }
                        case 12: {
                            if (opts.limits?.features != null && obj.features.length === opts.limits.features) {
                                throw new MaxLengthError('Decode error - repeated field "features" had too many elements');
                            }
                            obj.features.push(reader.uint32());
                            break;
                        }
                        case 13: {
                            obj.finishByMs = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 14: {
                            obj.startByMs = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 15: {
                            obj.budget = reader.bytes();
                            break;
                        }
                        case 16: {
                            obj.windowMs = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 17: {
                            if (opts.limits?.near != null && obj.near.length === opts.limits.near) {
                                throw new MaxLengthError('Decode error - repeated field "near" had too many elements');
                            }
                            obj.near.push(reader.bytes());
                            break;
                        }
                        case 18: {
                            obj.hardwareTier = reader.uint32();
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const obj = {
                    addresses: 0,
                    features: 0,
                    near: 0
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield* Resources.codec().stream(reader, reader.uint32(), `${prefix}.need`, {
                                limits: opts.limits?.need
                            });
                            break;
                        }
                        case 2: {
                            yield {
                                field: `${prefix}.runtime`,
                                value: reader.uint32()
                            };
                            break;
                        }
                        case 3: {
                            yield {
                                field: `${prefix}.durationSecondsMax`,
                                value: reader.uint32()
                            };
                            break;
                        }
                        case 4: {
                            yield {
                                field: `${prefix}.pricePerSecondMax`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 5: {
                            yield {
                                field: `${prefix}.stakeMin`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 6: {
                            yield {
                                field: `${prefix}.reserveMin`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 7: {
                            yield {
                                field: `${prefix}.region`,
                                value: reader.string()
                            };
                            break;
                        }
                        case 8: {
                            yield {
                                field: `${prefix}.distanceMax`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 9: {
                            yield {
                                field: `${prefix}.quotesWanted`,
                                value: reader.uint32()
                            };
                            break;
                        }
                        case 10: {
                            yield {
                                field: `${prefix}.warm`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 11: {
                            if (opts.limits?.addresses != null && obj.addresses === opts.limits.addresses) {
                                throw new MaxLengthError('Streaming decode error - repeated field "addresses" had too many elements');
                            }
                            yield {
                                field: `${prefix}.addresses[]`,
                                index: obj.addresses,
                                value: reader.bytes()
                            };
                            obj.addresses++;
                            break;
                        }
                        case 12: {
                            if (opts.limits?.features != null && obj.features === opts.limits.features) {
                                throw new MaxLengthError('Streaming decode error - repeated field "features" had too many elements');
                            }
                            yield {
                                field: `${prefix}.features[]`,
                                index: obj.features,
                                value: reader.uint32()
                            };
                            obj.features++;
                            break;
                        }
                        case 13: {
                            yield {
                                field: `${prefix}.finishByMs`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 14: {
                            yield {
                                field: `${prefix}.startByMs`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 15: {
                            yield {
                                field: `${prefix}.budget`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 16: {
                            yield {
                                field: `${prefix}.windowMs`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 17: {
                            if (opts.limits?.near != null && obj.near === opts.limits.near) {
                                throw new MaxLengthError('Streaming decode error - repeated field "near" had too many elements');
                            }
                            yield {
                                field: `${prefix}.near[]`,
                                index: obj.near,
                                value: reader.bytes()
                            };
                            obj.near++;
                            break;
                        }
                        case 18: {
                            yield {
                                field: `${prefix}.hardwareTier`,
                                value: reader.uint32()
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, Bid.codec());
    }
    Bid.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, Bid.codec(), opts);
    }
    Bid.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, Bid.codec(), opts);
    }
    Bid.stream = stream;
})(Bid || (Bid = {}));
export var Quote;
(function (Quote) {
    let _codec;
    Quote.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.bid != null && obj.bid.byteLength > 0)) {
                    w.uint32(10);
                    w.bytes(obj.bid);
                }
                if ((obj.provider != null && obj.provider.byteLength > 0)) {
                    w.uint32(18);
                    w.bytes(obj.provider);
                }
                if ((obj.pricePerSecond != null && obj.pricePerSecond !== 0n)) {
                    w.uint32(25);
                    w.fixed64(obj.pricePerSecond);
                }
                if ((obj.amount != null && obj.amount !== 0n)) {
                    w.uint32(33);
                    w.fixed64(obj.amount);
                }
                if ((obj.reserve != null && obj.reserve !== 0n)) {
                    w.uint32(41);
                    w.fixed64(obj.reserve);
                }
                if ((obj.openBeforeMs != null && obj.openBeforeMs !== 0n)) {
                    w.uint32(49);
                    w.fixed64(obj.openBeforeMs);
                }
                if ((obj.finishByMs != null && obj.finishByMs !== 0n)) {
                    w.uint32(57);
                    w.fixed64(obj.finishByMs);
                }
                if ((obj.graceMs != null && obj.graceMs !== 0n)) {
                    w.uint32(65);
                    w.fixed64(obj.graceMs);
                }
                if ((obj.windowMs != null && obj.windowMs !== 0n)) {
                    w.uint32(73);
                    w.fixed64(obj.windowMs);
                }
                if ((obj.speed != null && obj.speed !== 0)) {
                    w.uint32(80);
                    w.uint32(obj.speed);
                }
                if ((obj.warm != null && obj.warm !== false)) {
                    w.uint32(88);
                    w.bool(obj.warm);
                }
                if ((obj.startByMs != null && obj.startByMs !== 0n)) {
                    w.uint32(97);
                    w.fixed64(obj.startByMs);
                }
                if (obj.near != null && obj.near.length > 0) {
                    for (const value of obj.near) {
                        w.uint32(106);
                        w.bytes(value);
                    }
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    bid: uint8ArrayAlloc(0),
                    provider: uint8ArrayAlloc(0),
                    pricePerSecond: 0n,
                    amount: 0n,
                    reserve: 0n,
                    openBeforeMs: 0n,
                    finishByMs: 0n,
                    graceMs: 0n,
                    windowMs: 0n,
                    speed: 0,
                    warm: false,
                    startByMs: 0n,
                    near: []
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.bid = reader.bytes();
                            break;
                        }
                        case 2: {
                            obj.provider = reader.bytes();
                            break;
                        }
                        case 3: {
                            obj.pricePerSecond = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 4: {
                            obj.amount = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 5: {
                            obj.reserve = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 6: {
                            obj.openBeforeMs = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 7: {
                            obj.finishByMs = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 8: {
                            obj.graceMs = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 9: {
                            obj.windowMs = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 10: {
                            obj.speed = reader.uint32();
                            break;
                        }
                        case 11: {
                            obj.warm = reader.bool();
                            break;
                        }
                        case 12: {
                            obj.startByMs = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 13: {
                            if (opts.limits?.near != null && obj.near.length === opts.limits.near) {
                                throw new MaxLengthError('Decode error - repeated field "near" had too many elements');
                            }
                            obj.near.push(reader.bytes());
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const obj = {
                    near: 0
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.bid`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 2: {
                            yield {
                                field: `${prefix}.provider`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 3: {
                            yield {
                                field: `${prefix}.pricePerSecond`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 4: {
                            yield {
                                field: `${prefix}.amount`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 5: {
                            yield {
                                field: `${prefix}.reserve`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 6: {
                            yield {
                                field: `${prefix}.openBeforeMs`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 7: {
                            yield {
                                field: `${prefix}.finishByMs`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 8: {
                            yield {
                                field: `${prefix}.graceMs`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 9: {
                            yield {
                                field: `${prefix}.windowMs`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 10: {
                            yield {
                                field: `${prefix}.speed`,
                                value: reader.uint32()
                            };
                            break;
                        }
                        case 11: {
                            yield {
                                field: `${prefix}.warm`,
                                value: reader.bool()
                            };
                            break;
                        }
                        case 12: {
                            yield {
                                field: `${prefix}.startByMs`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 13: {
                            if (opts.limits?.near != null && obj.near === opts.limits.near) {
                                throw new MaxLengthError('Streaming decode error - repeated field "near" had too many elements');
                            }
                            yield {
                                field: `${prefix}.near[]`,
                                index: obj.near,
                                value: reader.bytes()
                            };
                            obj.near++;
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, Quote.codec());
    }
    Quote.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, Quote.codec(), opts);
    }
    Quote.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, Quote.codec(), opts);
    }
    Quote.stream = stream;
})(Quote || (Quote = {}));
export var BidAnswer;
(function (BidAnswer) {
    let _codec;
    BidAnswer.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                obj = { ...obj };
                if (obj.declined != null) {
                    obj.quote = undefined;
                }
                if (obj.quote != null) {
                    obj.declined = undefined;
                }
                if (obj.quote != null) {
                    w.uint32(10);
                    w.bytes(obj.quote);
                }
                if (obj.declined != null) {
                    w.uint32(18);
                    Refusal.codec().encode(obj.declined, w);
                }
                if ((obj.bid != null && obj.bid.byteLength > 0)) {
                    w.uint32(26);
                    w.bytes(obj.bid);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    bid: uint8ArrayAlloc(0)
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.quote = reader.bytes();
                            break;
                        }
                        case 2: {
                            obj.declined = Refusal.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.declined
                            });
                            break;
                        }
                        case 3: {
                            obj.bid = reader.bytes();
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                if (obj.declined != null) {
                    delete obj.quote;
                }
                if (obj.quote != null) {
                    delete obj.declined;
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.quote`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 2: {
                            yield* Refusal.codec().stream(reader, reader.uint32(), `${prefix}.declined`, {
                                limits: opts.limits?.declined
                            });
                            break;
                        }
                        case 3: {
                            yield {
                                field: `${prefix}.bid`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, BidAnswer.codec());
    }
    BidAnswer.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, BidAnswer.codec(), opts);
    }
    BidAnswer.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, BidAnswer.codec(), opts);
    }
    BidAnswer.stream = stream;
})(BidAnswer || (BidAnswer = {}));
export var LetGo;
(function (LetGo) {
    let _codec;
    LetGo.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.bid != null && obj.bid.byteLength > 0)) {
                    w.uint32(10);
                    w.bytes(obj.bid);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    bid: uint8ArrayAlloc(0)
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.bid = reader.bytes();
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.bid`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, LetGo.codec());
    }
    LetGo.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, LetGo.codec(), opts);
    }
    LetGo.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, LetGo.codec(), opts);
    }
    LetGo.stream = stream;
})(LetGo || (LetGo = {}));
export var Refusal;
(function (Refusal) {
    let _codec;
    Refusal.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.code != null && obj.code !== '')) {
                    w.uint32(10);
                    w.string(obj.code);
                }
                if ((obj.reason != null && obj.reason !== '')) {
                    w.uint32(18);
                    w.string(obj.reason);
                }
                if ((obj.enough != null && obj.enough !== 0n)) {
                    w.uint32(25);
                    w.fixed64(obj.enough);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    code: '',
                    reason: '',
                    enough: 0n
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.code = reader.string();
                            break;
                        }
                        case 2: {
                            obj.reason = reader.string();
                            break;
                        }
                        case 3: {
                            obj.enough = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.code`,
                                value: reader.string()
                            };
                            break;
                        }
                        case 2: {
                            yield {
                                field: `${prefix}.reason`,
                                value: reader.string()
                            };
                            break;
                        }
                        case 3: {
                            yield {
                                field: `${prefix}.enough`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, Refusal.codec());
    }
    Refusal.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, Refusal.codec(), opts);
    }
    Refusal.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, Refusal.codec(), opts);
    }
    Refusal.stream = stream;
})(Refusal || (Refusal = {}));
export var LeaseRequest;
(function (LeaseRequest) {
    let _codec;
    LeaseRequest.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                obj = { ...obj };
                if (obj.cancel != null) {
                    obj.settle = undefined;
                    obj.attach = undefined;
                    obj.submit = undefined;
                    obj.accept = undefined;
                }
                if (obj.settle != null) {
                    obj.cancel = undefined;
                    obj.attach = undefined;
                    obj.submit = undefined;
                    obj.accept = undefined;
                }
                if (obj.attach != null) {
                    obj.cancel = undefined;
                    obj.settle = undefined;
                    obj.submit = undefined;
                    obj.accept = undefined;
                }
                if (obj.submit != null) {
                    obj.cancel = undefined;
                    obj.settle = undefined;
                    obj.attach = undefined;
                    obj.accept = undefined;
                }
                if (obj.accept != null) {
                    obj.cancel = undefined;
                    obj.settle = undefined;
                    obj.attach = undefined;
                    obj.submit = undefined;
                }
                if (obj.accept != null) {
                    w.uint32(10);
                    Accept.codec().encode(obj.accept, w);
                }
                if (obj.submit != null) {
                    w.uint32(18);
                    Submit.codec().encode(obj.submit, w);
                }
                if (obj.attach != null) {
                    w.uint32(26);
                    Attach.codec().encode(obj.attach, w);
                }
                if (obj.settle != null) {
                    w.uint32(34);
                    SettleRequest.codec().encode(obj.settle, w);
                }
                if (obj.cancel != null) {
                    w.uint32(42);
                    CancelRequest.codec().encode(obj.cancel, w);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {};
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.accept = Accept.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.accept
                            });
                            break;
                        }
                        case 2: {
                            obj.submit = Submit.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.submit
                            });
                            break;
                        }
                        case 3: {
                            obj.attach = Attach.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.attach
                            });
                            break;
                        }
                        case 4: {
                            obj.settle = SettleRequest.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.settle
                            });
                            break;
                        }
                        case 5: {
                            obj.cancel = CancelRequest.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.cancel
                            });
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                if (obj.cancel != null) {
                    delete obj.settle;
                    delete obj.attach;
                    delete obj.submit;
                    delete obj.accept;
                }
                if (obj.settle != null) {
                    delete obj.cancel;
                    delete obj.attach;
                    delete obj.submit;
                    delete obj.accept;
                }
                if (obj.attach != null) {
                    delete obj.cancel;
                    delete obj.settle;
                    delete obj.submit;
                    delete obj.accept;
                }
                if (obj.submit != null) {
                    delete obj.cancel;
                    delete obj.settle;
                    delete obj.attach;
                    delete obj.accept;
                }
                if (obj.accept != null) {
                    delete obj.cancel;
                    delete obj.settle;
                    delete obj.attach;
                    delete obj.submit;
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield* Accept.codec().stream(reader, reader.uint32(), `${prefix}.accept`, {
                                limits: opts.limits?.accept
                            });
                            break;
                        }
                        case 2: {
                            yield* Submit.codec().stream(reader, reader.uint32(), `${prefix}.submit`, {
                                limits: opts.limits?.submit
                            });
                            break;
                        }
                        case 3: {
                            yield* Attach.codec().stream(reader, reader.uint32(), `${prefix}.attach`, {
                                limits: opts.limits?.attach
                            });
                            break;
                        }
                        case 4: {
                            yield* SettleRequest.codec().stream(reader, reader.uint32(), `${prefix}.settle`, {
                                limits: opts.limits?.settle
                            });
                            break;
                        }
                        case 5: {
                            yield* CancelRequest.codec().stream(reader, reader.uint32(), `${prefix}.cancel`, {
                                limits: opts.limits?.cancel
                            });
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, LeaseRequest.codec());
    }
    LeaseRequest.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, LeaseRequest.codec(), opts);
    }
    LeaseRequest.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, LeaseRequest.codec(), opts);
    }
    LeaseRequest.stream = stream;
})(LeaseRequest || (LeaseRequest = {}));
export var Accept;
(function (Accept) {
    let _codec;
    Accept.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.quote != null && obj.quote.byteLength > 0)) {
                    w.uint32(10);
                    w.bytes(obj.quote);
                }
                if ((obj.specDigest != null && obj.specDigest.byteLength > 0)) {
                    w.uint32(18);
                    w.bytes(obj.specDigest);
                }
                if ((obj.budget != null && obj.budget.byteLength > 0)) {
                    w.uint32(26);
                    w.bytes(obj.budget);
                }
                if ((obj.blockhash != null && obj.blockhash.byteLength > 0)) {
                    w.uint32(34);
                    w.bytes(obj.blockhash);
                }
                if ((obj.message != null && obj.message.byteLength > 0)) {
                    w.uint32(42);
                    w.bytes(obj.message);
                }
                if (obj.egress != null && obj.egress.length > 0) {
                    for (const value of obj.egress) {
                        w.uint32(50);
                        w.string(value);
                    }
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    quote: uint8ArrayAlloc(0),
                    specDigest: uint8ArrayAlloc(0),
                    budget: uint8ArrayAlloc(0),
                    blockhash: uint8ArrayAlloc(0),
                    message: uint8ArrayAlloc(0),
                    egress: []
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.quote = reader.bytes();
                            break;
                        }
                        case 2: {
                            obj.specDigest = reader.bytes();
                            break;
                        }
                        case 3: {
                            obj.budget = reader.bytes();
                            break;
                        }
                        case 4: {
                            obj.blockhash = reader.bytes();
                            break;
                        }
                        case 5: {
                            obj.message = reader.bytes();
                            break;
                        }
                        case 6: {
                            if (opts.limits?.egress != null && obj.egress.length === opts.limits.egress) {
                                throw new MaxLengthError('Decode error - repeated field "egress" had too many elements');
                            }
                            obj.egress.push(reader.string());
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const obj = {
                    egress: 0
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.quote`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 2: {
                            yield {
                                field: `${prefix}.specDigest`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 3: {
                            yield {
                                field: `${prefix}.budget`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 4: {
                            yield {
                                field: `${prefix}.blockhash`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 5: {
                            yield {
                                field: `${prefix}.message`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 6: {
                            if (opts.limits?.egress != null && obj.egress === opts.limits.egress) {
                                throw new MaxLengthError('Streaming decode error - repeated field "egress" had too many elements');
                            }
                            yield {
                                field: `${prefix}.egress[]`,
                                index: obj.egress,
                                value: reader.string()
                            };
                            obj.egress++;
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, Accept.codec());
    }
    Accept.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, Accept.codec(), opts);
    }
    Accept.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, Accept.codec(), opts);
    }
    Accept.stream = stream;
})(Accept || (Accept = {}));
export var Submit;
(function (Submit) {
    let _codec;
    Submit.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.lease != null && obj.lease.byteLength > 0)) {
                    w.uint32(10);
                    w.bytes(obj.lease);
                }
                if ((obj.spec != null && obj.spec.byteLength > 0)) {
                    w.uint32(18);
                    w.bytes(obj.spec);
                }
                if ((obj.transaction != null && obj.transaction.byteLength > 0)) {
                    w.uint32(26);
                    w.bytes(obj.transaction);
                }
                if (obj.secrets != null && obj.secrets.length > 0) {
                    for (const value of obj.secrets) {
                        w.uint32(34);
                        Secret.codec().encode(value, w);
                    }
                }
                if (obj.registry != null) {
                    w.uint32(42);
                    RegistryLogin.codec().encode(obj.registry, w);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    lease: uint8ArrayAlloc(0),
                    spec: uint8ArrayAlloc(0),
                    transaction: uint8ArrayAlloc(0),
                    secrets: []
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.lease = reader.bytes();
                            break;
                        }
                        case 2: {
                            obj.spec = reader.bytes();
                            break;
                        }
                        case 3: {
                            obj.transaction = reader.bytes();
                            break;
                        }
                        case 4: {
                            if (opts.limits?.secrets != null && obj.secrets.length === opts.limits.secrets) {
                                throw new MaxLengthError('Decode error - repeated field "secrets" had too many elements');
                            }
                            obj.secrets.push(Secret.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.secrets$
                            }));
                            break;
                        }
                        case 5: {
                            obj.registry = RegistryLogin.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.registry
                            });
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const obj = {
                    secrets: 0
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.lease`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 2: {
                            yield {
                                field: `${prefix}.spec`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 3: {
                            yield {
                                field: `${prefix}.transaction`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 4: {
                            if (opts.limits?.secrets != null && obj.secrets === opts.limits.secrets) {
                                throw new MaxLengthError('Streaming decode error - repeated field "secrets" had too many elements');
                            }
                            for (const evt of Secret.codec().stream(reader, reader.uint32(), `${prefix}.secrets[]`, {
                                limits: opts.limits?.secrets$
                            })) {
                                yield {
                                    ...evt,
                                    index: obj.secrets
                                };
                            }
                            obj.secrets++;
                            break;
                        }
                        case 5: {
                            yield* RegistryLogin.codec().stream(reader, reader.uint32(), `${prefix}.registry`, {
                                limits: opts.limits?.registry
                            });
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, Submit.codec());
    }
    Submit.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, Submit.codec(), opts);
    }
    Submit.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, Submit.codec(), opts);
    }
    Submit.stream = stream;
})(Submit || (Submit = {}));
export var RegistryLogin;
(function (RegistryLogin) {
    let _codec;
    RegistryLogin.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.username != null && obj.username !== '')) {
                    w.uint32(10);
                    w.string(obj.username);
                }
                if ((obj.password != null && obj.password !== '')) {
                    w.uint32(18);
                    w.string(obj.password);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    username: '',
                    password: ''
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.username = reader.string();
                            break;
                        }
                        case 2: {
                            obj.password = reader.string();
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.username`,
                                value: reader.string()
                            };
                            break;
                        }
                        case 2: {
                            yield {
                                field: `${prefix}.password`,
                                value: reader.string()
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, RegistryLogin.codec());
    }
    RegistryLogin.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, RegistryLogin.codec(), opts);
    }
    RegistryLogin.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, RegistryLogin.codec(), opts);
    }
    RegistryLogin.stream = stream;
})(RegistryLogin || (RegistryLogin = {}));
export var Secret;
(function (Secret) {
    let _codec;
    Secret.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.name != null && obj.name !== '')) {
                    w.uint32(10);
                    w.string(obj.name);
                }
                if ((obj.value != null && obj.value.byteLength > 0)) {
                    w.uint32(18);
                    w.bytes(obj.value);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    name: '',
                    value: uint8ArrayAlloc(0)
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.name = reader.string();
                            break;
                        }
                        case 2: {
                            obj.value = reader.bytes();
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.name`,
                                value: reader.string()
                            };
                            break;
                        }
                        case 2: {
                            yield {
                                field: `${prefix}.value`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, Secret.codec());
    }
    Secret.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, Secret.codec(), opts);
    }
    Secret.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, Secret.codec(), opts);
    }
    Secret.stream = stream;
})(Secret || (Secret = {}));
export var Attach;
(function (Attach) {
    let _codec;
    Attach.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.lease != null && obj.lease.byteLength > 0)) {
                    w.uint32(10);
                    w.bytes(obj.lease);
                }
                if ((obj.fromSequence != null && obj.fromSequence !== 0n)) {
                    w.uint32(17);
                    w.fixed64(obj.fromSequence);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    lease: uint8ArrayAlloc(0),
                    fromSequence: 0n
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.lease = reader.bytes();
                            break;
                        }
                        case 2: {
                            obj.fromSequence = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.lease`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 2: {
                            yield {
                                field: `${prefix}.fromSequence`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, Attach.codec());
    }
    Attach.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, Attach.codec(), opts);
    }
    Attach.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, Attach.codec(), opts);
    }
    Attach.stream = stream;
})(Attach || (Attach = {}));
export var SettleRequest;
(function (SettleRequest) {
    let _codec;
    SettleRequest.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.lease != null && obj.lease.byteLength > 0)) {
                    w.uint32(10);
                    w.bytes(obj.lease);
                }
                if ((obj.amount != null && obj.amount !== 0n)) {
                    w.uint32(17);
                    w.fixed64(obj.amount);
                }
                if ((obj.blockhash != null && obj.blockhash.byteLength > 0)) {
                    w.uint32(26);
                    w.bytes(obj.blockhash);
                }
                if ((obj.delegateSignature != null && obj.delegateSignature.byteLength > 0)) {
                    w.uint32(34);
                    w.bytes(obj.delegateSignature);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    lease: uint8ArrayAlloc(0),
                    amount: 0n,
                    blockhash: uint8ArrayAlloc(0),
                    delegateSignature: uint8ArrayAlloc(0)
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.lease = reader.bytes();
                            break;
                        }
                        case 2: {
                            obj.amount = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 3: {
                            obj.blockhash = reader.bytes();
                            break;
                        }
                        case 4: {
                            obj.delegateSignature = reader.bytes();
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.lease`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 2: {
                            yield {
                                field: `${prefix}.amount`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 3: {
                            yield {
                                field: `${prefix}.blockhash`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 4: {
                            yield {
                                field: `${prefix}.delegateSignature`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, SettleRequest.codec());
    }
    SettleRequest.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, SettleRequest.codec(), opts);
    }
    SettleRequest.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, SettleRequest.codec(), opts);
    }
    SettleRequest.stream = stream;
})(SettleRequest || (SettleRequest = {}));
export var CancelRequest;
(function (CancelRequest) {
    let _codec;
    CancelRequest.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.lease != null && obj.lease.byteLength > 0)) {
                    w.uint32(10);
                    w.bytes(obj.lease);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    lease: uint8ArrayAlloc(0)
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.lease = reader.bytes();
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.lease`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, CancelRequest.codec());
    }
    CancelRequest.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, CancelRequest.codec(), opts);
    }
    CancelRequest.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, CancelRequest.codec(), opts);
    }
    CancelRequest.stream = stream;
})(CancelRequest || (CancelRequest = {}));
export var LeaseResponse;
(function (LeaseResponse) {
    let _codec;
    LeaseResponse.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                obj = { ...obj };
                if (obj.heartbeat != null) {
                    obj.settleSigned = undefined;
                    obj.event = undefined;
                    obj.refused = undefined;
                    obj.accepted = undefined;
                }
                if (obj.settleSigned != null) {
                    obj.heartbeat = undefined;
                    obj.event = undefined;
                    obj.refused = undefined;
                    obj.accepted = undefined;
                }
                if (obj.event != null) {
                    obj.heartbeat = undefined;
                    obj.settleSigned = undefined;
                    obj.refused = undefined;
                    obj.accepted = undefined;
                }
                if (obj.refused != null) {
                    obj.heartbeat = undefined;
                    obj.settleSigned = undefined;
                    obj.event = undefined;
                    obj.accepted = undefined;
                }
                if (obj.accepted != null) {
                    obj.heartbeat = undefined;
                    obj.settleSigned = undefined;
                    obj.event = undefined;
                    obj.refused = undefined;
                }
                if (obj.accepted != null) {
                    w.uint32(10);
                    Accepted.codec().encode(obj.accepted, w);
                }
                if (obj.refused != null) {
                    w.uint32(18);
                    Refusal.codec().encode(obj.refused, w);
                }
                if (obj.event != null) {
                    w.uint32(26);
                    JobEvent.codec().encode(obj.event, w);
                }
                if (obj.settleSigned != null) {
                    w.uint32(34);
                    SettleSigned.codec().encode(obj.settleSigned, w);
                }
                if (obj.heartbeat != null) {
                    w.uint32(42);
                    Heartbeat.codec().encode(obj.heartbeat, w);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {};
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.accepted = Accepted.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.accepted
                            });
                            break;
                        }
                        case 2: {
                            obj.refused = Refusal.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.refused
                            });
                            break;
                        }
                        case 3: {
                            obj.event = JobEvent.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.event
                            });
                            break;
                        }
                        case 4: {
                            obj.settleSigned = SettleSigned.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.settleSigned
                            });
                            break;
                        }
                        case 5: {
                            obj.heartbeat = Heartbeat.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.heartbeat
                            });
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                if (obj.heartbeat != null) {
                    delete obj.settleSigned;
                    delete obj.event;
                    delete obj.refused;
                    delete obj.accepted;
                }
                if (obj.settleSigned != null) {
                    delete obj.heartbeat;
                    delete obj.event;
                    delete obj.refused;
                    delete obj.accepted;
                }
                if (obj.event != null) {
                    delete obj.heartbeat;
                    delete obj.settleSigned;
                    delete obj.refused;
                    delete obj.accepted;
                }
                if (obj.refused != null) {
                    delete obj.heartbeat;
                    delete obj.settleSigned;
                    delete obj.event;
                    delete obj.accepted;
                }
                if (obj.accepted != null) {
                    delete obj.heartbeat;
                    delete obj.settleSigned;
                    delete obj.event;
                    delete obj.refused;
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield* Accepted.codec().stream(reader, reader.uint32(), `${prefix}.accepted`, {
                                limits: opts.limits?.accepted
                            });
                            break;
                        }
                        case 2: {
                            yield* Refusal.codec().stream(reader, reader.uint32(), `${prefix}.refused`, {
                                limits: opts.limits?.refused
                            });
                            break;
                        }
                        case 3: {
                            yield* JobEvent.codec().stream(reader, reader.uint32(), `${prefix}.event`, {
                                limits: opts.limits?.event
                            });
                            break;
                        }
                        case 4: {
                            yield* SettleSigned.codec().stream(reader, reader.uint32(), `${prefix}.settleSigned`, {
                                limits: opts.limits?.settleSigned
                            });
                            break;
                        }
                        case 5: {
                            yield* Heartbeat.codec().stream(reader, reader.uint32(), `${prefix}.heartbeat`, {
                                limits: opts.limits?.heartbeat
                            });
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, LeaseResponse.codec());
    }
    LeaseResponse.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, LeaseResponse.codec(), opts);
    }
    LeaseResponse.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, LeaseResponse.codec(), opts);
    }
    LeaseResponse.stream = stream;
})(LeaseResponse || (LeaseResponse = {}));
export var Accepted;
(function (Accepted) {
    let _codec;
    Accepted.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.lease != null && obj.lease.byteLength > 0)) {
                    w.uint32(10);
                    w.bytes(obj.lease);
                }
                if ((obj.operatorSignature != null && obj.operatorSignature.byteLength > 0)) {
                    w.uint32(18);
                    w.bytes(obj.operatorSignature);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    lease: uint8ArrayAlloc(0),
                    operatorSignature: uint8ArrayAlloc(0)
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.lease = reader.bytes();
                            break;
                        }
                        case 2: {
                            obj.operatorSignature = reader.bytes();
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.lease`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 2: {
                            yield {
                                field: `${prefix}.operatorSignature`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, Accepted.codec());
    }
    Accepted.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, Accepted.codec(), opts);
    }
    Accepted.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, Accepted.codec(), opts);
    }
    Accepted.stream = stream;
})(Accepted || (Accepted = {}));
export var SettleSigned;
(function (SettleSigned) {
    let _codec;
    SettleSigned.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.operatorSignature != null && obj.operatorSignature.byteLength > 0)) {
                    w.uint32(10);
                    w.bytes(obj.operatorSignature);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    operatorSignature: uint8ArrayAlloc(0)
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.operatorSignature = reader.bytes();
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.operatorSignature`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, SettleSigned.codec());
    }
    SettleSigned.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, SettleSigned.codec(), opts);
    }
    SettleSigned.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, SettleSigned.codec(), opts);
    }
    SettleSigned.stream = stream;
})(SettleSigned || (SettleSigned = {}));
export var Heartbeat;
(function (Heartbeat) {
    let _codec;
    Heartbeat.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.nextSequence != null && obj.nextSequence !== 0n)) {
                    w.uint32(9);
                    w.fixed64(obj.nextSequence);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    nextSequence: 0n
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.nextSequence = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.nextSequence`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, Heartbeat.codec());
    }
    Heartbeat.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, Heartbeat.codec(), opts);
    }
    Heartbeat.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, Heartbeat.codec(), opts);
    }
    Heartbeat.stream = stream;
})(Heartbeat || (Heartbeat = {}));
export var JobEvent;
(function (JobEvent) {
    let _codec;
    JobEvent.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                obj = { ...obj };
                if (obj.ready != null) {
                    obj.closed = undefined;
                    obj.failed = undefined;
                    obj.proof = undefined;
                    obj.usage = undefined;
                    obj.log = undefined;
                    obj.phase = undefined;
                }
                if (obj.closed != null) {
                    obj.ready = undefined;
                    obj.failed = undefined;
                    obj.proof = undefined;
                    obj.usage = undefined;
                    obj.log = undefined;
                    obj.phase = undefined;
                }
                if (obj.failed != null) {
                    obj.ready = undefined;
                    obj.closed = undefined;
                    obj.proof = undefined;
                    obj.usage = undefined;
                    obj.log = undefined;
                    obj.phase = undefined;
                }
                if (obj.proof != null) {
                    obj.ready = undefined;
                    obj.closed = undefined;
                    obj.failed = undefined;
                    obj.usage = undefined;
                    obj.log = undefined;
                    obj.phase = undefined;
                }
                if (obj.usage != null) {
                    obj.ready = undefined;
                    obj.closed = undefined;
                    obj.failed = undefined;
                    obj.proof = undefined;
                    obj.log = undefined;
                    obj.phase = undefined;
                }
                if (obj.log != null) {
                    obj.ready = undefined;
                    obj.closed = undefined;
                    obj.failed = undefined;
                    obj.proof = undefined;
                    obj.usage = undefined;
                    obj.phase = undefined;
                }
                if (obj.phase != null) {
                    obj.ready = undefined;
                    obj.closed = undefined;
                    obj.failed = undefined;
                    obj.proof = undefined;
                    obj.usage = undefined;
                    obj.log = undefined;
                }
                if ((obj.sequence != null && obj.sequence !== 0n)) {
                    w.uint32(9);
                    w.fixed64(obj.sequence);
                }
                if ((obj.atMs != null && obj.atMs !== 0n)) {
                    w.uint32(17);
                    w.fixed64(obj.atMs);
                }
                if ((obj.attempt != null && obj.attempt !== 0)) {
                    w.uint32(24);
                    w.uint32(obj.attempt);
                }
                if (obj.phase != null) {
                    w.uint32(34);
                    PhaseEvent.codec().encode(obj.phase, w);
                }
                if (obj.log != null) {
                    w.uint32(42);
                    LogEvent.codec().encode(obj.log, w);
                }
                if (obj.usage != null) {
                    w.uint32(50);
                    UsageEvent.codec().encode(obj.usage, w);
                }
                if (obj.proof != null) {
                    w.uint32(58);
                    ProofEvent.codec().encode(obj.proof, w);
                }
                if (obj.failed != null) {
                    w.uint32(66);
                    Refusal.codec().encode(obj.failed, w);
                }
                if (obj.closed != null) {
                    w.uint32(74);
                    ClosedEvent.codec().encode(obj.closed, w);
                }
                if (obj.ready != null) {
                    w.uint32(82);
                    ReadyEvent.codec().encode(obj.ready, w);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    sequence: 0n,
                    atMs: 0n,
                    attempt: 0
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.sequence = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 2: {
                            obj.atMs = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 3: {
                            obj.attempt = reader.uint32();
                            break;
                        }
                        case 4: {
                            obj.phase = PhaseEvent.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.phase
                            });
                            break;
                        }
                        case 5: {
                            obj.log = LogEvent.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.log
                            });
                            break;
                        }
                        case 6: {
                            obj.usage = UsageEvent.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.usage
                            });
                            break;
                        }
                        case 7: {
                            obj.proof = ProofEvent.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.proof
                            });
                            break;
                        }
                        case 8: {
                            obj.failed = Refusal.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.failed
                            });
                            break;
                        }
                        case 9: {
                            obj.closed = ClosedEvent.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.closed
                            });
                            break;
                        }
                        case 10: {
                            obj.ready = ReadyEvent.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.ready
                            });
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                if (obj.ready != null) {
                    delete obj.closed;
                    delete obj.failed;
                    delete obj.proof;
                    delete obj.usage;
                    delete obj.log;
                    delete obj.phase;
                }
                if (obj.closed != null) {
                    delete obj.ready;
                    delete obj.failed;
                    delete obj.proof;
                    delete obj.usage;
                    delete obj.log;
                    delete obj.phase;
                }
                if (obj.failed != null) {
                    delete obj.ready;
                    delete obj.closed;
                    delete obj.proof;
                    delete obj.usage;
                    delete obj.log;
                    delete obj.phase;
                }
                if (obj.proof != null) {
                    delete obj.ready;
                    delete obj.closed;
                    delete obj.failed;
                    delete obj.usage;
                    delete obj.log;
                    delete obj.phase;
                }
                if (obj.usage != null) {
                    delete obj.ready;
                    delete obj.closed;
                    delete obj.failed;
                    delete obj.proof;
                    delete obj.log;
                    delete obj.phase;
                }
                if (obj.log != null) {
                    delete obj.ready;
                    delete obj.closed;
                    delete obj.failed;
                    delete obj.proof;
                    delete obj.usage;
                    delete obj.phase;
                }
                if (obj.phase != null) {
                    delete obj.ready;
                    delete obj.closed;
                    delete obj.failed;
                    delete obj.proof;
                    delete obj.usage;
                    delete obj.log;
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.sequence`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 2: {
                            yield {
                                field: `${prefix}.atMs`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 3: {
                            yield {
                                field: `${prefix}.attempt`,
                                value: reader.uint32()
                            };
                            break;
                        }
                        case 4: {
                            yield* PhaseEvent.codec().stream(reader, reader.uint32(), `${prefix}.phase`, {
                                limits: opts.limits?.phase
                            });
                            break;
                        }
                        case 5: {
                            yield* LogEvent.codec().stream(reader, reader.uint32(), `${prefix}.log`, {
                                limits: opts.limits?.log
                            });
                            break;
                        }
                        case 6: {
                            yield* UsageEvent.codec().stream(reader, reader.uint32(), `${prefix}.usage`, {
                                limits: opts.limits?.usage
                            });
                            break;
                        }
                        case 7: {
                            yield* ProofEvent.codec().stream(reader, reader.uint32(), `${prefix}.proof`, {
                                limits: opts.limits?.proof
                            });
                            break;
                        }
                        case 8: {
                            yield* Refusal.codec().stream(reader, reader.uint32(), `${prefix}.failed`, {
                                limits: opts.limits?.failed
                            });
                            break;
                        }
                        case 9: {
                            yield* ClosedEvent.codec().stream(reader, reader.uint32(), `${prefix}.closed`, {
                                limits: opts.limits?.closed
                            });
                            break;
                        }
                        case 10: {
                            yield* ReadyEvent.codec().stream(reader, reader.uint32(), `${prefix}.ready`, {
                                limits: opts.limits?.ready
                            });
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, JobEvent.codec());
    }
    JobEvent.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, JobEvent.codec(), opts);
    }
    JobEvent.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, JobEvent.codec(), opts);
    }
    JobEvent.stream = stream;
})(JobEvent || (JobEvent = {}));
export var PhaseEvent;
(function (PhaseEvent) {
    let _codec;
    PhaseEvent.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.phase != null && obj.phase !== '')) {
                    w.uint32(10);
                    w.string(obj.phase);
                }
                if ((obj.detail != null && obj.detail !== '')) {
                    w.uint32(18);
                    w.string(obj.detail);
                }
                if ((obj.bytesDone != null && obj.bytesDone !== 0n)) {
                    w.uint32(25);
                    w.fixed64(obj.bytesDone);
                }
                if ((obj.bytesTotal != null && obj.bytesTotal !== 0n)) {
                    w.uint32(33);
                    w.fixed64(obj.bytesTotal);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    phase: '',
                    detail: '',
                    bytesDone: 0n,
                    bytesTotal: 0n
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.phase = reader.string();
                            break;
                        }
                        case 2: {
                            obj.detail = reader.string();
                            break;
                        }
                        case 3: {
                            obj.bytesDone = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 4: {
                            obj.bytesTotal = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.phase`,
                                value: reader.string()
                            };
                            break;
                        }
                        case 2: {
                            yield {
                                field: `${prefix}.detail`,
                                value: reader.string()
                            };
                            break;
                        }
                        case 3: {
                            yield {
                                field: `${prefix}.bytesDone`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 4: {
                            yield {
                                field: `${prefix}.bytesTotal`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, PhaseEvent.codec());
    }
    PhaseEvent.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, PhaseEvent.codec(), opts);
    }
    PhaseEvent.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, PhaseEvent.codec(), opts);
    }
    PhaseEvent.stream = stream;
})(PhaseEvent || (PhaseEvent = {}));
export var LogEvent;
(function (LogEvent) {
    let _codec;
    LogEvent.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.stream != null && obj.stream !== 0)) {
                    w.uint32(8);
                    w.uint32(obj.stream);
                }
                if ((obj.bytes != null && obj.bytes.byteLength > 0)) {
                    w.uint32(18);
                    w.bytes(obj.bytes);
                }
                if ((obj.offset != null && obj.offset !== 0n)) {
                    w.uint32(25);
                    w.fixed64(obj.offset);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    stream: 0,
                    bytes: uint8ArrayAlloc(0),
                    offset: 0n
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.stream = reader.uint32();
                            break;
                        }
                        case 2: {
                            obj.bytes = reader.bytes();
                            break;
                        }
                        case 3: {
                            obj.offset = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.stream`,
                                value: reader.uint32()
                            };
                            break;
                        }
                        case 2: {
                            yield {
                                field: `${prefix}.bytes`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 3: {
                            yield {
                                field: `${prefix}.offset`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, LogEvent.codec());
    }
    LogEvent.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, LogEvent.codec(), opts);
    }
    LogEvent.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, LogEvent.codec(), opts);
    }
    LogEvent.stream = stream;
})(LogEvent || (LogEvent = {}));
export var UsageEvent;
(function (UsageEvent) {
    let _codec;
    UsageEvent.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.elapsedMs != null && obj.elapsedMs !== 0n)) {
                    w.uint32(9);
                    w.fixed64(obj.elapsedMs);
                }
                if ((obj.cpuMs != null && obj.cpuMs !== 0n)) {
                    w.uint32(17);
                    w.fixed64(obj.cpuMs);
                }
                if ((obj.memoryBytes != null && obj.memoryBytes !== 0n)) {
                    w.uint32(25);
                    w.fixed64(obj.memoryBytes);
                }
                if ((obj.networkRxBytes != null && obj.networkRxBytes !== 0n)) {
                    w.uint32(33);
                    w.fixed64(obj.networkRxBytes);
                }
                if ((obj.networkTxBytes != null && obj.networkTxBytes !== 0n)) {
                    w.uint32(41);
                    w.fixed64(obj.networkTxBytes);
                }
                if ((obj.blockReadBytes != null && obj.blockReadBytes !== 0n)) {
                    w.uint32(49);
                    w.fixed64(obj.blockReadBytes);
                }
                if ((obj.blockWriteBytes != null && obj.blockWriteBytes !== 0n)) {
                    w.uint32(57);
                    w.fixed64(obj.blockWriteBytes);
                }
                if ((obj.gpuPercent != null && obj.gpuPercent !== 0)) {
                    w.uint32(64);
                    w.uint32(obj.gpuPercent);
                }
                if ((obj.gpuMemoryBytes != null && obj.gpuMemoryBytes !== 0n)) {
                    w.uint32(73);
                    w.fixed64(obj.gpuMemoryBytes);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    elapsedMs: 0n,
                    cpuMs: 0n,
                    memoryBytes: 0n,
                    networkRxBytes: 0n,
                    networkTxBytes: 0n,
                    blockReadBytes: 0n,
                    blockWriteBytes: 0n,
                    gpuPercent: 0,
                    gpuMemoryBytes: 0n
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.elapsedMs = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 2: {
                            obj.cpuMs = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 3: {
                            obj.memoryBytes = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 4: {
                            obj.networkRxBytes = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 5: {
                            obj.networkTxBytes = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 6: {
                            obj.blockReadBytes = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 7: {
                            obj.blockWriteBytes = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        case 8: {
                            obj.gpuPercent = reader.uint32();
                            break;
                        }
                        case 9: {
                            obj.gpuMemoryBytes = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.elapsedMs`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 2: {
                            yield {
                                field: `${prefix}.cpuMs`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 3: {
                            yield {
                                field: `${prefix}.memoryBytes`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 4: {
                            yield {
                                field: `${prefix}.networkRxBytes`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 5: {
                            yield {
                                field: `${prefix}.networkTxBytes`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 6: {
                            yield {
                                field: `${prefix}.blockReadBytes`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 7: {
                            yield {
                                field: `${prefix}.blockWriteBytes`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        case 8: {
                            yield {
                                field: `${prefix}.gpuPercent`,
                                value: reader.uint32()
                            };
                            break;
                        }
                        case 9: {
                            yield {
                                field: `${prefix}.gpuMemoryBytes`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, UsageEvent.codec());
    }
    UsageEvent.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, UsageEvent.codec(), opts);
    }
    UsageEvent.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, UsageEvent.codec(), opts);
    }
    UsageEvent.stream = stream;
})(UsageEvent || (UsageEvent = {}));
export var ProofEvent;
(function (ProofEvent) {
    let _codec;
    ProofEvent.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.envelope != null && obj.envelope.byteLength > 0)) {
                    w.uint32(10);
                    w.bytes(obj.envelope);
                }
                if ((obj.commit != null && obj.commit.byteLength > 0)) {
                    w.uint32(18);
                    w.bytes(obj.commit);
                }
                if ((obj.commitSignature != null && obj.commitSignature.byteLength > 0)) {
                    w.uint32(26);
                    w.bytes(obj.commitSignature);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    envelope: uint8ArrayAlloc(0),
                    commit: uint8ArrayAlloc(0),
                    commitSignature: uint8ArrayAlloc(0)
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.envelope = reader.bytes();
                            break;
                        }
                        case 2: {
                            obj.commit = reader.bytes();
                            break;
                        }
                        case 3: {
                            obj.commitSignature = reader.bytes();
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.envelope`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 2: {
                            yield {
                                field: `${prefix}.commit`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 3: {
                            yield {
                                field: `${prefix}.commitSignature`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, ProofEvent.codec());
    }
    ProofEvent.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, ProofEvent.codec(), opts);
    }
    ProofEvent.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, ProofEvent.codec(), opts);
    }
    ProofEvent.stream = stream;
})(ProofEvent || (ProofEvent = {}));
export var ClosedEvent;
(function (ClosedEvent) {
    let _codec;
    ClosedEvent.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.state != null && obj.state !== '')) {
                    w.uint32(10);
                    w.string(obj.state);
                }
                if ((obj.paid != null && obj.paid !== 0n)) {
                    w.uint32(17);
                    w.fixed64(obj.paid);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    state: '',
                    paid: 0n
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.state = reader.string();
                            break;
                        }
                        case 2: {
                            obj.paid = BigInt.asUintN(64, reader.fixed64());
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.state`,
                                value: reader.string()
                            };
                            break;
                        }
                        case 2: {
                            yield {
                                field: `${prefix}.paid`,
                                value: BigInt.asUintN(64, reader.fixed64())
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, ClosedEvent.codec());
    }
    ClosedEvent.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, ClosedEvent.codec(), opts);
    }
    ClosedEvent.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, ClosedEvent.codec(), opts);
    }
    ClosedEvent.stream = stream;
})(ClosedEvent || (ClosedEvent = {}));
export var ReadyEvent;
(function (ReadyEvent) {
    let _codec;
    ReadyEvent.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.service != null && obj.service !== '')) {
                    w.uint32(10);
                    w.string(obj.service);
                }
                if ((obj.ready != null && obj.ready !== false)) {
                    w.uint32(16);
                    w.bool(obj.ready);
                }
                if ((obj.reason != null && obj.reason !== '')) {
                    w.uint32(26);
                    w.string(obj.reason);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    service: '',
                    ready: false,
                    reason: ''
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.service = reader.string();
                            break;
                        }
                        case 2: {
                            obj.ready = reader.bool();
                            break;
                        }
                        case 3: {
                            obj.reason = reader.string();
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.service`,
                                value: reader.string()
                            };
                            break;
                        }
                        case 2: {
                            yield {
                                field: `${prefix}.ready`,
                                value: reader.bool()
                            };
                            break;
                        }
                        case 3: {
                            yield {
                                field: `${prefix}.reason`,
                                value: reader.string()
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, ReadyEvent.codec());
    }
    ReadyEvent.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, ReadyEvent.codec(), opts);
    }
    ReadyEvent.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, ReadyEvent.codec(), opts);
    }
    ReadyEvent.stream = stream;
})(ReadyEvent || (ReadyEvent = {}));
export var ForwardRequest;
(function (ForwardRequest) {
    let _codec;
    ForwardRequest.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.lease != null && obj.lease.byteLength > 0)) {
                    w.uint32(10);
                    w.bytes(obj.lease);
                }
                if ((obj.port != null && obj.port !== 0)) {
                    w.uint32(16);
                    w.uint32(obj.port);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    lease: uint8ArrayAlloc(0),
                    port: 0
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.lease = reader.bytes();
                            break;
                        }
                        case 2: {
                            obj.port = reader.uint32();
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.lease`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 2: {
                            yield {
                                field: `${prefix}.port`,
                                value: reader.uint32()
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, ForwardRequest.codec());
    }
    ForwardRequest.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, ForwardRequest.codec(), opts);
    }
    ForwardRequest.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, ForwardRequest.codec(), opts);
    }
    ForwardRequest.stream = stream;
})(ForwardRequest || (ForwardRequest = {}));
export var ForwardAnswer;
(function (ForwardAnswer) {
    let _codec;
    ForwardAnswer.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if (obj.refused != null) {
                    w.uint32(10);
                    Refusal.codec().encode(obj.refused, w);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {};
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.refused = Refusal.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.refused
                            });
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield* Refusal.codec().stream(reader, reader.uint32(), `${prefix}.refused`, {
                                limits: opts.limits?.refused
                            });
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, ForwardAnswer.codec());
    }
    ForwardAnswer.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, ForwardAnswer.codec(), opts);
    }
    ForwardAnswer.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, ForwardAnswer.codec(), opts);
    }
    ForwardAnswer.stream = stream;
})(ForwardAnswer || (ForwardAnswer = {}));
export var OffersRequest;
(function (OffersRequest) {
    let _codec;
    OffersRequest.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.resourceClass != null && obj.resourceClass !== '')) {
                    w.uint32(10);
                    w.string(obj.resourceClass);
                }
                if ((obj.region != null && obj.region !== '')) {
                    w.uint32(18);
                    w.string(obj.region);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    resourceClass: '',
                    region: ''
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.resourceClass = reader.string();
                            break;
                        }
                        case 2: {
                            obj.region = reader.string();
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.resourceClass`,
                                value: reader.string()
                            };
                            break;
                        }
                        case 2: {
                            yield {
                                field: `${prefix}.region`,
                                value: reader.string()
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, OffersRequest.codec());
    }
    OffersRequest.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, OffersRequest.codec(), opts);
    }
    OffersRequest.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, OffersRequest.codec(), opts);
    }
    OffersRequest.stream = stream;
})(OffersRequest || (OffersRequest = {}));
export var ArtifactRequest;
(function (ArtifactRequest) {
    let _codec;
    ArtifactRequest.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.cid != null && obj.cid.byteLength > 0)) {
                    w.uint32(10);
                    w.bytes(obj.cid);
                }
                if ((obj.leaves != null && obj.leaves !== false)) {
                    w.uint32(16);
                    w.bool(obj.leaves);
                }
                if ((obj.have != null && obj.have.byteLength > 0)) {
                    w.uint32(26);
                    w.bytes(obj.have);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    cid: uint8ArrayAlloc(0),
                    leaves: false,
                    have: uint8ArrayAlloc(0)
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.cid = reader.bytes();
                            break;
                        }
                        case 2: {
                            obj.leaves = reader.bool();
                            break;
                        }
                        case 3: {
                            obj.have = reader.bytes();
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.cid`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 2: {
                            yield {
                                field: `${prefix}.leaves`,
                                value: reader.bool()
                            };
                            break;
                        }
                        case 3: {
                            yield {
                                field: `${prefix}.have`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, ArtifactRequest.codec());
    }
    ArtifactRequest.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, ArtifactRequest.codec(), opts);
    }
    ArtifactRequest.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, ArtifactRequest.codec(), opts);
    }
    ArtifactRequest.stream = stream;
})(ArtifactRequest || (ArtifactRequest = {}));
export var ArtifactAnswer;
(function (ArtifactAnswer) {
    let _codec;
    ArtifactAnswer.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if (obj.refused != null) {
                    w.uint32(10);
                    Refusal.codec().encode(obj.refused, w);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {};
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.refused = Refusal.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.refused
                            });
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield* Refusal.codec().stream(reader, reader.uint32(), `${prefix}.refused`, {
                                limits: opts.limits?.refused
                            });
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, ArtifactAnswer.codec());
    }
    ArtifactAnswer.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, ArtifactAnswer.codec(), opts);
    }
    ArtifactAnswer.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, ArtifactAnswer.codec(), opts);
    }
    ArtifactAnswer.stream = stream;
})(ArtifactAnswer || (ArtifactAnswer = {}));
export var EvidenceRequest;
(function (EvidenceRequest) {
    let _codec;
    EvidenceRequest.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if ((obj.lease != null && obj.lease.byteLength > 0)) {
                    w.uint32(10);
                    w.bytes(obj.lease);
                }
                if ((obj.quote != null && obj.quote.byteLength > 0)) {
                    w.uint32(18);
                    w.bytes(obj.quote);
                }
                if ((obj.spec != null && obj.spec.byteLength > 0)) {
                    w.uint32(26);
                    w.bytes(obj.spec);
                }
                if ((obj.proof != null && obj.proof.byteLength > 0)) {
                    w.uint32(34);
                    w.bytes(obj.proof);
                }
                if ((obj.hasContent != null && obj.hasContent !== false)) {
                    w.uint32(40);
                    w.bool(obj.hasContent);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {
                    lease: uint8ArrayAlloc(0),
                    quote: uint8ArrayAlloc(0),
                    spec: uint8ArrayAlloc(0),
                    proof: uint8ArrayAlloc(0),
                    hasContent: false
                };
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.lease = reader.bytes();
                            break;
                        }
                        case 2: {
                            obj.quote = reader.bytes();
                            break;
                        }
                        case 3: {
                            obj.spec = reader.bytes();
                            break;
                        }
                        case 4: {
                            obj.proof = reader.bytes();
                            break;
                        }
                        case 5: {
                            obj.hasContent = reader.bool();
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield {
                                field: `${prefix}.lease`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 2: {
                            yield {
                                field: `${prefix}.quote`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 3: {
                            yield {
                                field: `${prefix}.spec`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 4: {
                            yield {
                                field: `${prefix}.proof`,
                                value: reader.bytes()
                            };
                            break;
                        }
                        case 5: {
                            yield {
                                field: `${prefix}.hasContent`,
                                value: reader.bool()
                            };
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, EvidenceRequest.codec());
    }
    EvidenceRequest.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, EvidenceRequest.codec(), opts);
    }
    EvidenceRequest.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, EvidenceRequest.codec(), opts);
    }
    EvidenceRequest.stream = stream;
})(EvidenceRequest || (EvidenceRequest = {}));
export var EvidenceAnswer;
(function (EvidenceAnswer) {
    let _codec;
    EvidenceAnswer.codec = () => {
        if (_codec == null) {
            _codec = message((obj, w, opts = {}) => {
                if (opts.lengthDelimited !== false) {
                    w.fork();
                }
                if (obj.refused != null) {
                    w.uint32(10);
                    Refusal.codec().encode(obj.refused, w);
                }
                if (opts.lengthDelimited !== false) {
                    w.ldelim();
                }
            }, (reader, length, opts = {}) => {
                const obj = {};
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            obj.refused = Refusal.codec().decode(reader, reader.uint32(), {
                                limits: opts.limits?.refused
                            });
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
                return obj;
            }, function* (reader, length, prefix, opts = {}) {
                const end = length == null ? reader.len : reader.pos + length;
                while (reader.pos < end) {
                    const tag = reader.uint32();
                    switch (tag >>> 3) {
                        case 1: {
                            yield* Refusal.codec().stream(reader, reader.uint32(), `${prefix}.refused`, {
                                limits: opts.limits?.refused
                            });
                            break;
                        }
                        default: {
                            reader.skipType(tag & 7);
                            break;
                        }
                    }
                }
            });
        }
        return _codec;
    };
    function encode(obj) {
        return encodeMessage(obj, EvidenceAnswer.codec());
    }
    EvidenceAnswer.encode = encode;
    function decode(buf, opts) {
        return decodeMessage(buf, EvidenceAnswer.codec(), opts);
    }
    EvidenceAnswer.decode = decode;
    function stream(buf, opts) {
        return streamMessage(buf, EvidenceAnswer.codec(), opts);
    }
    EvidenceAnswer.stream = stream;
})(EvidenceAnswer || (EvidenceAnswer = {}));
