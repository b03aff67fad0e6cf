"""A real HTTP server with a small network behind the v2 inference protocol, that counts what it answers and misbehaves
as it is told.
"""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import torch
from torch import nn

from robustbench_local.data.load import load_data

LENGTH = "Inference-Header-Content-Length"
KINDS = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "INT64": "<i8", "UINT8": "<u1"}


class Exact(nn.Module):
    """The same network in float64: what it answers does not depend, in float32, on how many images are in a batch."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.net(x.double())
        return answer.float()


def small_net(channels: int = 1, side: int = 28, classes: int = 10) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(channels * (side // 4) ** 2, classes))
    return Exact(net).eval()


def digit_net() -> nn.Module:
    """MNIST by the nearest mean of the training digits of a class, in pixels averaged four by four."""
    images, labels = load_data("mnist", split="train", n=1000, source="bundled")
    pooled = nn.functional.avg_pool2d(images, 4).flatten(1)
    means = torch.stack([pooled[labels == k].mean(0) for k in range(10)])
    net = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), last := nn.Linear(49, 10))
    with torch.no_grad():
        last.weight.copy_(means)
        last.bias.copy_(-means.square().sum(1) / 2)
    return Exact(net).eval()


@dataclass
class Fault:
    """What happens to a request instead of its answer, or to its answer.

    status, headers: instead of 200. body: instead of the answer. change: of the answer's JSON. cut: bytes that are
    sent of it. drip: seconds between its bytes. pause: seconds before it. close: the connection ends at once.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    change: Callable[[dict[str, Any]], object] | None = None
    cut: int | None = None
    drip: float = 0.0
    pause: float = 0.0
    close: bool = False


@dataclass
class Served:
    """How the server is, which a test may change at any time, and what it saw.

    faults: by the number of the infer request, from 0. answered: how often each image was answered, by digest. keys:
    headers of every request. before: called with the images of each request before it is answered. shape: of the
    input that it announces.
    """

    net: nn.Module
    url: str = ""
    name: str = "net"
    shape: list[int] = field(default_factory=lambda: [-1, 1, 28, 28])
    classes: int = 10
    datatype: str = "FP32"
    output_datatype: str = "FP32"
    labels: bool = False
    names: list[str] | None = None
    binary: bool = True
    versions: list[str] = field(default_factory=lambda: ["1"])
    faults: Callable[[int], Fault | None] = lambda number: None
    before: Callable[[np.ndarray[Any, Any]], object] = lambda images: None
    requests: int = 0
    answered: Counter[str] = field(default_factory=Counter)
    transports: Counter[str] = field(default_factory=Counter)
    seen_headers: list[dict[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def images(self) -> int:
        """That were answered."""
        return sum(self.answered.values())

    def address(self, labels: bool = False) -> str:
        scheme, _, rest = self.url.partition("://")
        return f"{scheme}{'+labels' if labels else ''}://{rest}/v2/models/{self.name}"

    def server_metadata(self) -> dict[str, Any]:
        return {"name": "test", "version": "7", "extensions": ["binary_tensor_data"] if self.binary else []}

    def metadata(self) -> dict[str, Any]:
        one = {"name": "images", "datatype": self.datatype, "shape": self.shape}
        last = [] if self.labels else [self.classes]
        batch = [-1] if len(self.shape) in (2, 4) else []
        kind = "BYTES" if self.names else "INT64" if self.labels else self.output_datatype
        out = {"name": "scores", "datatype": kind, "shape": batch + last}
        return {"name": self.name, "versions": self.versions, "platform": "test", "inputs": [one], "outputs": [out]}

    def evaluated(self, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | list[str]:
        x = torch.from_numpy(images.astype(np.float32))
        if len(self.shape) == 4 and self.shape[3] in (1, 3):
            x = x.permute(0, 3, 1, 2)
        with torch.no_grad():
            scores = self.net(x)
        if self.names:
            return [self.names[label] for label in scores.argmax(1).tolist()]
        out = scores.argmax(1) if self.labels else scores
        answer: np.ndarray[Any, Any] = out.numpy().astype("<i8" if self.labels else KINDS[self.output_datatype])
        return answer


def digests(images: np.ndarray[Any, Any]) -> list[str]:
    return [hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest() for image in images]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else head and body of an answer are 40 ms apart
    served: Served

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        about = {"/v2": self.served.server_metadata, f"/v2/models/{self.served.name}": self.served.metadata}
        self.served.seen_headers.append(dict(self.headers))
        path = self.path.partition("/versions/")[0]
        if path in about:
            self._send(200, json.dumps(about[path]()).encode())
        else:
            self._send(404, b'{"error": "no such model"}')

    def do_POST(self) -> None:
        served = self.served
        body = self.rfile.read(int(self.headers["Content-Length"]))
        served.seen_headers.append(dict(self.headers))
        with served.lock:
            number, served.requests = served.requests, served.requests + 1
        head, images = self._images(body)
        served.before(images)
        fault = served.faults(number) or Fault()
        if fault.close:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        time.sleep(fault.pause)
        if fault.status != 200 or fault.body is not None:
            self._send(fault.status, fault.body or b'{"error": "not now"}', fault.headers)
            return
        with served.lock:
            served.answered.update(digests(images))
        self._answer(head, served.evaluated(images), fault)

    def _images(self, body: bytes) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
        length = int(self.headers.get(LENGTH, len(body)))
        head = json.loads(body[:length])
        (tensor,) = head["inputs"]
        kind = KINDS[tensor["datatype"]]
        assert tensor["datatype"] == self.served.datatype and tensor["name"] == "images"
        if "data" in tensor:
            values = np.asarray(tensor["data"], dtype=kind)
        else:
            raw = body[length:]
            assert len(raw) == tensor["parameters"]["binary_data_size"]
            values = np.frombuffer(raw, kind)
        self.served.transports["JSON" if "data" in tensor else "binary"] += 1
        shape = tensor["shape"]
        return head, values.reshape(shape if len(self.served.shape) in (2, 4) else [1, *shape])

    def _answer(self, head: dict[str, Any], answer: np.ndarray[Any, Any] | list[str], fault: Fault) -> None:
        (wanted,) = head["outputs"]
        about = self.served.metadata()["outputs"][0]
        shape = [len(answer)] if isinstance(answer, list) else list(answer.shape)
        if len(self.served.shape) not in (2, 4):
            shape = shape[1:]
        out: dict[str, Any] = {"name": about["name"], "datatype": about["datatype"], "shape": shape}
        raw, headers = b"", dict(fault.headers)
        if wanted.get("parameters", {}).get("binary_data"):
            if isinstance(answer, list):
                raw = b"".join(len(each).to_bytes(4, "little") + each.encode() for each in answer)
            else:
                raw = answer.tobytes()
            out["parameters"] = {"binary_data_size": len(raw)}
        else:
            out["data"] = answer if isinstance(answer, list) else answer.reshape(-1).tolist()
        reply: dict[str, Any] = {"model_name": "net", "model_version": "1", "id": head["id"], "outputs": [out]}
        if fault.change:
            fault.change(reply)
        text = json.dumps(reply).encode()
        if raw:
            headers[LENGTH] = str(len(text))
        self._send(200, text + raw, headers, fault)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, fault: Fault | None = None
    ) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        fault = fault or Fault()
        try:
            if fault.drip:
                for place in range(len(body)):
                    self.wfile.write(body[place : place + 1])
                    time.sleep(fault.drip)
            else:
                self.wfile.write(body[: fault.cut])
            self.wfile.flush()
            if fault.cut is not None:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
        except OSError:  # who asked went away
            self.close_connection = True


class _Server(ThreadingHTTPServer):
    """Whose connections end with it."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self.open: list[socket.socket] = []
        super().__init__(("127.0.0.1", 0), handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self.open.append(connection)
        return connection, address

    def hang_up(self) -> None:
        for connection in self.open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: object) -> None:
        pass


@contextmanager
def serving(net: nn.Module | None = None, tls: ssl.SSLContext | None = None, **how: Any) -> Iterator[Served]:
    """A server on a free port of this machine, for as long as the block lasts."""
    served = Served(net or small_net(), **how)
    handler = type("Handler", (_Handler,), {"served": served})
    server = _Server(handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    served.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        server.hang_up()
        thread.join()
