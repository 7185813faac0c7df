"""One version of the weights as it is sent: cast, laid out in buckets, digested; on the GPU, the host, or both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

from rayzero.learner.broadcast.delta import Delta, words_of
from rayzero.learner.broadcast.gpu_memory import mappable_memory
from rayzero.learner.broadcast.shared_memory import SharedBuffer
from rayzero.services.schema.broadcast.digest import LANES, Fingerprints, digest, fingerprint_text
from rayzero.services.schema.broadcast.wire import Extent, SharedBufferName, plan_buckets
from rayzero.services.schema.weights import TensorSpec, WeightManifest

Placed = tuple[str, torch.Size, Extent]


class SendBuffer:
    """Kept from version to version: fresh pages would cost more than the copy."""

    def __init__(self, dtype: torch.dtype, bucket_bytes: int, makes_deltas: bool = False) -> None:
        self._dtype, self._bucket_bytes, self._makes_deltas = dtype, bucket_bytes, makes_deltas
        self._delta: Delta | None = None
        self._host = SharedBuffer(0)
        self._device: torch.Tensor | None = None
        self._host_is_current = False
        self._placed: list[Placed] = []
        self._bucket_sizes: tuple[int, ...] = ()
        self._fingerprints: Fingerprints | None = None
        self.policy_version: int | None = None
        """Of what it holds; None: nothing yet."""
        self._content: str | None = None
        """The same, told from a version of that number that a learner before this one made."""

    def fill(
        self,
        tensors: Iterable[tuple[str, torch.Tensor]],
        policy_version: int,
        adapter_scaling: float | None = None,
    ) -> WeightManifest:
        """Copy `tensors` (any dtype, all on one device) in, in order."""
        named = list(tensors)
        extents, self._bucket_sizes = plan_buckets(
            [tensor.numel() * self._dtype.itemsize for _, tensor in named], self._bucket_bytes
        )
        before = self._placed
        self._placed = [(name, tensor.shape, extent) for (name, tensor), extent in zip(named, extents, strict=True)]
        device = named[0][1].device
        self._make_room(sum(self._bucket_sizes), device)
        if self._delta is not None:
            is_next = before == self._placed and adapter_scaling is None
            self._delta.begin(self._content if is_next else None)
        self._content = None  # until it is whole: what breaks off here is no version
        self.policy_version, self._host_is_current = policy_version, device.type == "cpu"
        values = [tensor.detach() for _, tensor in named]
        checksums = self._fill_host(values) if device.type == "cpu" else self._fill_device(values)
        specs = (
            spec_of(placed, checksum, self._dtype) for placed, checksum in zip(self._placed, checksums, strict=True)
        )
        manifest = WeightManifest(
            policy_version=policy_version,
            tensors=tuple(specs),
            bucket_bytes=tuple(self._bucket_sizes),
            adapter_scaling=adapter_scaling,
            since=None if self.delta is None else self.delta.since,
        )
        self._content = manifest.content if self._makes_deltas else None
        return manifest

    @property
    def delta(self) -> Delta | None:
        """From the version before to the one that it holds; None: there is none, or it is too large to be sent."""
        return None if self._delta is None or self._delta.since is None else self._delta

    @property
    def memory(self) -> torch.Tensor:
        """[num_bytes] uint8 where the weights were filled in: on the GPU, if the learner has one."""
        return self._host.memory if self._device is None else self._device

    @property
    def host_buckets(self) -> tuple[torch.Tensor, ...]:
        """[bytes] uint8 each, in shared memory; a GPU's buffer is copied there when it is first asked for."""
        if not self._host_is_current:
            assert self._device is not None
            if self._host.name.num_bytes != self._device.numel():
                self._host.close()
                self._host = SharedBuffer(self._device.numel())
            self._host.memory.copy_(self._device)
            self._host_is_current = True
        return torch.split(self._host.memory, list(self._bucket_sizes))

    @property
    def host_name(self) -> SharedBufferName:
        """Under which receivers on this machine open the host's copy; ask for `host_buckets` first."""
        return self._host.name

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and view of every tensor, in the manifest's order."""
        buckets = torch.split(self.memory, list(self._bucket_sizes))
        for name, shape, extent in self._placed:
            yield name, self._view(buckets, extent).view(self._dtype).view(shape)

    def _make_room(self, num_bytes: int, device: torch.device) -> None:
        if self.memory.numel() == num_bytes and self.memory.device == device:
            return
        self._device = self._delta = self._content = None  # the old ones first: there may be no room for two
        if device.type == "cpu":
            self._host.close()
            self._host = SharedBuffer(num_bytes)
        else:
            with mappable_memory():
                self._device = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
        if self._makes_deltas:
            self._delta = Delta(num_bytes, device)

    def _fill_host(self, values: list[torch.Tensor]) -> list[str]:
        with ThreadPoolExecutor(1, "weights-digest") as digester:  # beside the copying: both are bound by memory
            buckets = torch.split(self._host.memory, list(self._bucket_sizes))
            digests = [
                digester.submit(digest, self._place(buckets, value, extent))
                for value, (_, _, extent) in zip(values, self._placed, strict=True)
            ]
        return [digest.result() for digest in digests]

    def _fill_device(self, values: list[torch.Tensor]) -> list[str]:
        buckets = torch.split(self.memory, list(self._bucket_sizes))
        if self._delta is not None:
            for value, (_, _, extent) in zip(values, self._placed, strict=True):
                self._place(buckets, value, extent)
        else:
            rooms = [self._view(buckets, extent).view(self._dtype).view(shape) for _, shape, extent in self._placed]
            torch._foreach_copy_(rooms, values)  # a launch for all of them, not one each
        extents = tuple(extent for _, _, extent in self._placed)
        if self._fingerprints is None or self._fingerprints.extents != extents:
            array = partial(torch.tensor, dtype=torch.int64, device=self.memory.device)
            self._fingerprints = Fingerprints(extents, array)
        sums = [
            self._fingerprints.of_bucket(index, bucket.view(torch.int32).view(-1, LANES))
            for index, bucket in enumerate(buckets)
        ]
        return [fingerprint_text(total) for total in torch.cat(sums).tolist()]  # one wait for all of them

    def _place(self, buckets: tuple[torch.Tensor, ...], value: torch.Tensor, extent: Extent) -> torch.Tensor:
        room = self._view(buckets, extent)
        if self._delta is not None:
            value = value.to(self._dtype)
            start = sum(self._bucket_sizes[: extent.bucket]) + extent.offset_bytes
            self._delta.add(start, words_of(room), words_of(value))
        room.view(self._dtype).view(value.shape).copy_(value)
        return room

    def _view(self, buckets: tuple[torch.Tensor, ...], extent: Extent) -> torch.Tensor:
        return buckets[extent.bucket][extent.offset_bytes : extent.offset_bytes + extent.num_bytes]


def spec_of(placed: Placed, checksum: str, dtype: torch.dtype) -> TensorSpec:
    """A weight as the manifest names it; `checksum` is empty where it is not known yet."""
    name, shape, extent = placed
    return TensorSpec(
        name=name,
        dtype=str(dtype).removeprefix("torch."),
        shape=tuple(shape),
        bucket=extent.bucket,
        offset_bytes=extent.offset_bytes,
        num_bytes=extent.num_bytes,
        checksum=checksum,
    )
