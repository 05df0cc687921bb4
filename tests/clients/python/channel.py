"""A channel for long-running programs: load balancing, health checks, retries, TLS and a token."""

import pathlib

import grpc

SERVICE_CONFIG = pathlib.Path(__file__).with_name("service-config.json").read_text()


def connect(address, ca=None, token=None):
    """`dns:///lineshaft-headless:7070` connects to all servers of this name, `127.0.0.1:7070` to one.

    `ca` is the PEM text of the certificates to trust; without it the channel is not encrypted.
    """
    options = [
        ("grpc.service_config", SERVICE_CONFIG),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        ("grpc.keepalive_time_ms", 60_000),
    ]
    if ca is None:
        return grpc.insecure_channel(address, options)
    credentials = grpc.ssl_channel_credentials(ca)
    if token is not None:
        bearer = grpc.access_token_call_credentials(token)
        credentials = grpc.composite_channel_credentials(credentials, bearer)
    return grpc.secure_channel(address, credentials, options)
