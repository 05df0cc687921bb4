"""A channel for programs that stay: all servers, health checks, retries."""

import pathlib

import grpc

SERVICE_CONFIG = pathlib.Path(__file__).with_name("service-config.json").read_text()


def connect(address):
    """`dns:///lineshaft-headless:7070` finds all servers of that name; `127.0.0.1:7070` is one."""
    options = [
        ("grpc.service_config", SERVICE_CONFIG),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        ("grpc.keepalive_time_ms", 60_000),
    ]
    return grpc.insecure_channel(address, options)
