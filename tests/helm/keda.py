"""A minimal client of an external-push scaler: `keda.py TRIGGER` makes the same calls as KEDA. It prints one JSON line
with the first readings, and a second one when the target becomes active.

TRIGGER is a JSON document: the address, the host name of the server, the metadata, and the parameters from a
TriggerAuthentication. KEDA sends nothing else, in particular no token and no header.
"""

import json
import sys

import grpc

TIMEOUT = 60
SERVICE = "/externalscaler.ExternalScaler/"


def text(number, value):
    """Encodes a string or message field in protobuf format."""
    data = value if isinstance(value, bytes) else value.encode()
    return bytes([number << 3 | 2]) + varint(len(data)) + data


def varint(value):
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def fields(data):
    """Decodes a protobuf message: field number → last value, as an integer or as bytes."""
    found, at = {}, 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = number()
        if key & 7 == 0:
            found[key >> 3] = number()
        else:
            length = number() if key & 7 == 2 else 8
            found[key >> 3] = data[at:at + length]
            at += length
    return found


def connect(trigger):
    """Connects as KEDA does: with TLS if `enableTLS` is set or a CA or certificate is given."""
    given, options = trigger["parameters"], [("grpc.default_authority", trigger["authority"])]
    wanted = trigger["metadata"].get("enableTLS") == "true" or given.get("caCert") or given.get("tlsClientCert")
    if not wanted:
        return grpc.insecure_channel(trigger["address"], options)
    pem = {name: value.encode() for name, value in given.items()}
    credentials = grpc.ssl_channel_credentials(pem.get("caCert"), pem.get("tlsClientKey"), pem.get("tlsClientCert"))
    options.append(("grpc.ssl_target_name_override", trigger["authority"].split(":")[0]))
    return grpc.secure_channel(trigger["address"], credentials, options)


def main():
    trigger = json.loads(sys.argv[1])
    reference = text(1, "renderer") + text(2, "work")
    for key, value in trigger["metadata"].items():
        reference += text(3, text(1, key) + text(2, value))
    with connect(trigger) as channel:
        ask = lambda method, request: fields(channel.unary_unary(SERVICE + method)(request, timeout=TIMEOUT))
        active = channel.unary_stream(SERVICE + "StreamIsActive")(reference, timeout=TIMEOUT)
        try:
            next(channel.unary_stream(SERVICE + "StreamMetricSpec")(reference, timeout=TIMEOUT))
            changes = "OK"
        except grpc.RpcError as error:
            changes = error.code().name
        spec = fields(ask("GetMetricSpec", reference)[1])

        def reading():
            pushed = fields(next(active))
            measured = fields(ask("GetMetrics", text(1, reference) + text(2, spec[1]))[1])
            print(json.dumps({
                "pushed": bool(pushed.get(1)), "active": bool(ask("IsActive", reference).get(1)),
                "value": measured.get(2, 0), "target": spec[2], "changes": changes,
            }), flush=True)

        reading()
        reading()


if __name__ == "__main__":
    try:
        main()
    except grpc.RpcError as error:
        print(json.dumps({"refused": error.code().name}), flush=True)
