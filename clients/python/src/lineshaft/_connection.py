"""The gRPC channel to the server: address, credentials, deadlines and retries."""

from __future__ import annotations

import functools
import ipaddress
import logging
import os
import pathlib
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.message import Message

from lineshaft import errors
from lineshaft._fork import Calls

logger = logging.getLogger("lineshaft")

DEFAULT_ADDRESS = "127.0.0.1:7070"
BACKOFF_SECONDS_FIRST = 0.05
BACKOFF_SECONDS_MAX = 2.0
TOKEN_FILE_SECONDS = 10.0
"""A token file is read again after this time."""
_UNCLEAR_TRIES_MAX = 5
_PORT = re.compile(r":\d+$")
_SERVICE_CONFIG = '{"loadBalancingConfig":[{"round_robin":{}}],"healthCheckConfig":{"serviceName":""}}'

Response = TypeVar("Response", bound=Message)
Metadata = tuple[tuple[str, str], ...]


class Connection:
    """A channel that is opened on first use, and again after a fork."""

    def __init__(
        self,
        address: str | None,
        *,
        token: str | Callable[[], str] | None,
        tls: bool | None,
        ca: bytes | str | os.PathLike[str] | None,
        cert: bytes | str | os.PathLike[str] | None,
        key: bytes | str | os.PathLike[str] | None,
        timeout: float,
        user_agent: str,
    ) -> None:
        env = os.environ.get
        address = address or env("LINESHAFT_SERVER") or DEFAULT_ADDRESS
        ca = ca or env("LINESHAFT_TLS_CA")
        cert, key = cert or env("LINESHAFT_TLS_CERT"), key or env("LINESHAFT_TLS_KEY")
        address, scheme = _target(address)
        if (cert is None) != (key is None):
            raise ValueError("a client certificate needs both cert and key")
        self.address = address
        self.tls = tls if tls is not None else scheme == "https" or ca is not None or cert is not None
        if not self.tls and (scheme == "https" or ca is not None or cert is not None):
            raise ValueError(f"tls is False, but the address is {address!r} or ca or cert is set; remove one of them")
        self.timeout = timeout
        self._files = (_pem(ca), _pem(key), _pem(cert))
        self._token = _token_source(token)
        if self._token is not None and not self.tls and not _is_loopback(address):
            raise ValueError(f"a token would be sent to {address} without TLS; pass tls=True or ca=PATH")
        self._options = [
            ("grpc.service_config", _SERVICE_CONFIG),
            ("grpc.enable_retries", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", int(BACKOFF_SECONDS_MAX * 1000)),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.max_receive_message_length", 144 << 20),
            ("grpc.max_send_message_length", -1),
            ("grpc.primary_user_agent", user_agent),
            # Each client has a connection of its own, so that closing one ends its calls only.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._callables: dict[str, Any] = {}
        self._warned = 0.0
        self._closed = False
        self._calls = Calls(self._close_channel, self._forget_channel)

    def close(self) -> None:
        self._closed = True
        self._close_channel()

    def _close_channel(self) -> None:
        with self._lock:
            channel, self._channel, self._callables = self._channel, None, {}
        if channel is not None:
            channel.close()

    def _forget_channel(self) -> None:
        """In a forked process: a channel that is still open belongs to the parent."""
        self._lock = threading.Lock()
        if self._channel is not None:
            # Closing or freeing it here could disturb the connection of the parent.
            _channels_of_parents.append(self._channel)
        self._channel, self._callables = None, {}

    @property
    def forks(self) -> int:
        """Number of forks of this process so far."""
        return self._calls.forks

    def was_forked(self, error: errors.ServerError, forks: int) -> bool:
        """Whether a call that began after this number of forks was cancelled by another one. Then repeat it at once."""
        return error.code is grpc.StatusCode.CANCELLED and forks != self.forks

    def metadata(self) -> Metadata | None:
        """The credentials of a call."""
        return None if self._token is None else (("authorization", "Bearer " + self._token()),)

    def unary(self, method: str, response: type[Response], is_long: bool = False) -> Callable[..., Response]:
        """The call of a unary method. The request is a serialized message. `is_long`: it waits for something to happen."""

        def call(request: bytes, timeout: float, metadata: Metadata | None) -> Response:
            deadline = time.monotonic() + timeout
            while True:
                forks = self._calls.begin(is_long)
                try:
                    send = self._callable("unary_unary", method, response)
                    left = max(0.0, deadline - time.monotonic())
                    return cast(Response, send(request, timeout=left, metadata=metadata))
                except grpc.RpcError as error:
                    if not self.was_forked(errors.from_rpc_error(error), forks):
                        raise
                except ValueError:
                    if forks == self.forks:  # Otherwise a fork has just closed the channel.
                        raise
                finally:
                    self._calls.end(is_long)

        return call

    def future(self, method: str, response: type[Response]) -> Callable[..., Any]:
        """The same, but the call returns a future."""

        def call(request: bytes, timeout: float, metadata: Metadata | None) -> Any:
            def begin() -> Any:
                send: Any = self._callable("unary_unary", method, response)
                return send.future(request, timeout=timeout, metadata=metadata)

            return self._begin(begin, is_long=False)

        return call

    def server_stream(self, method: str, response: type[Response]) -> Callable[..., Any]:
        """The call of a method with a stream of responses."""
        return lambda request, metadata: self._begin(
            lambda: self._callable("unary_stream", method, response)(request, metadata=metadata), is_long=True
        )

    def client_stream(self, method: str, response: type[Response]) -> Callable[..., Response]:
        """The call of a method with a stream of requests. A fork may cancel it."""

        def call(requests: Iterator[bytes], metadata: Metadata | None) -> Response:
            while True:
                forks = self._calls.begin()
                try:
                    return cast(Response, self._callable("stream_unary", method, response)(requests, metadata=metadata))
                except ValueError:
                    if forks == self.forks:  # Otherwise a fork has just closed the channel.
                        raise
                finally:
                    self._calls.end()

        return call

    def bidirectional(self, method: str, response: type[Response]) -> Callable[..., Any]:
        """The call of a method with streams in both directions."""
        return lambda requests, metadata: self._begin(
            lambda: self._callable("stream_stream", method, response)(requests, metadata=metadata), is_long=True
        )

    def _begin(self, begin: Callable[[], Any], is_long: bool) -> Any:
        """Begins a call that goes on when this function returns."""
        while True:
            forks = self._calls.begin(is_long)
            is_over = True
            try:
                call = begin()
                is_over = not call.add_callback(functools.partial(self._calls.end, is_long))
                return call
            except ValueError:
                if forks == self.forks:  # Otherwise a fork has just closed the channel.
                    raise
            finally:
                if is_over:
                    self._calls.end(is_long)

    def _callable(self, kind: str, method: str, response: type[Message]) -> Callable[..., Any]:
        found = self._callables.get(method)
        if found is None:
            with self._lock:
                make = getattr(self._open(), kind)
                found = make("/lineshaft.v1." + method, response_deserializer=response.FromString)
                self._callables[method] = found
        return cast("Callable[..., Any]", found)

    def _open(self) -> grpc.Channel:
        if self._closed:
            raise errors.ClientClosed("the client is closed")
        if self._channel is None:
            _keep_grpc()
            if self.tls:
                ca, key, cert = self._files
                credentials = grpc.ssl_channel_credentials(ca, key, cert)
                self._channel = grpc.secure_channel(self.address, credentials, self._options)
            else:
                self._channel = grpc.insecure_channel(self.address, self._options)
        return self._channel

    def call(
        self, method: str, request: Message, response: type[Response], timeout: float | None = None, extra: float = 0.0
    ) -> Response:
        """Makes a call and repeats it while that is safe and time is left. `extra` is the time that the server may wait."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout) + extra
        return self.send(method, request.SerializeToString(), response, deadline, is_long=extra > 0)

    def send(
        self, method: str, request: bytes, response: type[Response], deadline: float, is_long: bool = False
    ) -> Response:
        """The same with a serialized request and a point of `time.monotonic()`."""
        backoff = Backoff()
        call = self.unary(method, response, is_long)
        while True:
            try:
                left = max(0.0, deadline - time.monotonic())
                return call(request, timeout=left, metadata=self.metadata())
            except grpc.RpcError as error:
                met = errors.from_rpc_error(error)
            if self._closed:
                raise errors.ClientClosed("the client was closed during the call")
            pause = backoff.pause(met)
            if pause is None or time.monotonic() + pause >= deadline:
                raise met
            self.warn(met)
            time.sleep(pause)

    def warn(self, error: errors.ServerError) -> None:
        """Logs that the server cannot be reached, at most every ten seconds."""
        now = time.monotonic()
        if error.code is grpc.StatusCode.UNAVAILABLE and now >= self._warned:
            self._warned = now + 10.0
            logger.warning("no server at %s, trying again: %s", self.address, error.message)


_channels_of_parents: list[grpc.Channel] = []


@functools.cache
def _keep_grpc() -> grpc.Channel:
    """A channel that never connects. With the last channel of a process, gRPC ends in a thread that a fork could interrupt."""
    return grpc.insecure_channel("127.0.0.1:1")


class Backoff:
    """The delays between the tries of a call."""

    def __init__(self) -> None:
        self._delay = BACKOFF_SECONDS_FIRST
        self._unclear = 0

    def reset(self) -> None:
        """After a success: the next delay is the first one."""
        self._delay = BACKOFF_SECONDS_FIRST
        self._unclear = 0

    def pause(self, error: errors.ServerError) -> float | None:
        """Seconds to wait before the next try; None if the call must not be repeated."""
        code = error.code
        if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED):
            self._unclear += 1
            if self._unclear > _UNCLEAR_TRIES_MAX:
                return None
        elif code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            if error.retry_after is None:
                return None
        elif code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            return None
        delay = self._delay * random.uniform(0.7, 1.3)
        self._delay = min(self._delay * 2, BACKOFF_SECONDS_MAX)
        # RetryInfo is the least time; the growing delay spreads clients that were refused together.
        return max(delay, error.retry_after or 0.0)


def _target(address: str) -> tuple[str, str]:
    """What gRPC connects to, and the scheme of the address."""
    if not isinstance(address, str):
        raise TypeError(f"address is {address!r}; it must be a string, such as {DEFAULT_ADDRESS!r}")
    scheme, _, rest = address.rpartition("://")
    has_port = _PORT.search(rest.rstrip("/")) is not None
    if scheme in ("http", "https"):
        rest = rest.rstrip("/")
        return rest if has_port else rest + (":443" if scheme == "https" else ":80"), scheme
    if scheme in ("", "dns", "ipv4", "ipv6") and not has_port and not address.startswith("unix"):
        # gRPC would take 443.
        raise ValueError(f"address is {address!r}; it has no port: write {address + ':7070'!r}")
    return address, scheme


def _pem(source: bytes | str | os.PathLike[str] | None) -> bytes | None:
    """PEM text as bytes, or the content of a file."""
    return source if source is None or isinstance(source, bytes) else pathlib.Path(source).read_bytes()


def _token_source(token: str | Callable[[], str] | None) -> Callable[[], str] | None:
    if callable(token):
        return token
    token = token or os.environ.get("LINESHAFT_TOKEN")
    if token:
        text = token.strip()
        return lambda: text
    path = os.environ.get("LINESHAFT_TOKEN_FILE")
    return _TokenFile(pathlib.Path(path)).read if path else None


class _TokenFile:
    """A token in a file, which can be replaced while the program runs."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._text = ""
        self._until = 0.0

    def read(self) -> str:
        if time.monotonic() >= self._until:
            self._text = self._path.read_text().strip()
            self._until = time.monotonic() + TOKEN_FILE_SECONDS
        return self._text


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]") or address
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or address.startswith("unix:")
