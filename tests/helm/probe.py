"""Calls grpc.health.v1 on a loopback port as the kubelet does: `probe.py PORT SERVICE` prints the status."""

import sys

import grpc

# Encoded responses of the protocol: an enum in field 1.
STATUS = {b"": "UNKNOWN", b"\x08\x01": "SERVING", b"\x08\x02": "NOT_SERVING", b"\x08\x03": "SERVICE_UNKNOWN"}


def main():
    port, service = sys.argv[1], sys.argv[2].encode()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            print(STATUS[check(b"\x0a" + bytes([len(service)]) + service, timeout=5)])
        except grpc.RpcError as error:
            print(error.code().name)


if __name__ == "__main__":
    main()
