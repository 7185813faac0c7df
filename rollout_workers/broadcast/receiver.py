"""vLLM's end of the weight broadcast, registered with vLLM as the weight-transfer backend `rayzero`.

vLLM imports this module in every process that holds a model, because `worker_extension_cls` names `WeightReceiver`.
Its own backends receive inside `update_weights`, while the engine stands still. This one receives, in a thread of its
own, into a staging buffer while the engine generates, and leaves to the pause what needs it: loading.

    join (thread) ─► receive (thread: buckets, digests) ─► [pause] start ─► update: load ─► finish [resume]

How the bytes come, from the host or from a GPU, is the transfer group's affair (links.py, gpu_links.py). Where adapters
alone come, the thread adds them to the weights of the model's directory (adapters.py), and only those are loaded.

An engine that has no room for a whole broadcast beside its weights takes it in the pause, bucket by bucket (intake.py).
Where the layers are plain and the device is a CPU, loading and repacking happen in the thread, too (double_buffer.py),
and the pause only exchanges one set of weights for the other.

vLLM's own lock-step holds: start, update and finish run in the engine's main thread, between two steps.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import torch
from vllm.distributed.weight_transfer import WeightTransferEngine, WeightTransferEngineFactory
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from vllm.model_executor.model_loader.mtp_validation import disable_mtp_completeness_check
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.model_executor.models.utils import _get_tied_embedding_params

from rayzero.rollout_workers.broadcast.adapters import AdapterMerge, BaseWeights, parts
from rayzero.rollout_workers.broadcast.buffer import StagingBuffer, check_manifest, checkpoint_shapes
from rayzero.rollout_workers.broadcast.double_buffer import DoubleBuffer
from rayzero.rollout_workers.broadcast.expert_kernels import repack_when_loaded
from rayzero.rollout_workers.broadcast.group import ReceiverGroup
from rayzero.rollout_workers.broadcast.intake import BucketIntake
from rayzero.rollout_workers.broadcast.lone_thread import lone_thread
from rayzero.rollout_workers.broadcast.pending_layers import detach_pending
from rayzero.rollout_workers.broadcast.phases import JoinInfo, LoadInfo
from rayzero.rollout_workers.engine_process import BACKEND
from rayzero.rollout_workers.routing_capture import RoutingReporter
from rayzero.rollout_workers.watchdog import end_with_owner
from rayzero.services.schema.broadcast.manifest import parse_manifest
from rayzero.services.schema.broadcast.transport import Route
from rayzero.services.schema.errors import RayzeroError, TransferLost, WeightSyncError
from rayzero.services.schema.weights import Rendezvous, WeightManifest

end_with_owner()
if torch.cpu._is_amx_tile_supported():
    # vLLM's CPU attention multiplies with AMX and leaves it to oneDNN to ask the kernel's leave, which oneDNN does for
    # products of some size only: an engine of a small model died of an illegal instruction, now and then.
    torch.cpu._init_amx()


class StagedWeightTransferEngine(WeightTransferEngine[JoinInfo, LoadInfo]):
    """Receives into a staging buffer beside generation; loads from it when vLLM says so."""

    init_info_cls = JoinInfo
    update_info_cls = LoadInfo

    def __init__(self, config: Any, vllm_config: Any, device: torch.device, model: torch.nn.Module) -> None:
        super().__init__(config, vllm_config, device, model)
        # By vLLM's own account, for it reads a tied head from the file only to see whether it is one; to load it again
        # would fail wherever it comes in another call than the embedding.
        aliases = _get_tied_embedding_params(model)
        self._expected = checkpoint_shapes(Path(self.model_config.model), aliases)
        self._dtype = str(self.model_config.dtype).removeprefix("torch.")
        self._thread, self._checker, self._packer = (lone_thread(name, device) for name in ("receive", "check", "pack"))
        self._packing: list[Future[None]] = []
        self._staging = StagingBuffer()
        self._intake = BucketIntake(device)
        self._streams = self._is_open = False
        self._adapters = AdapterMerge(
            BaseWeights(Path(self.model_config.model), self.model_config.dtype, aliases),
            [name for name, _ in model.named_modules()],
            getattr(model, "packed_modules_mapping", {}),
        )
        self._merged: dict[str, torch.Tensor] = {}
        """Weights to be loaded in the pause, where what was received is adapters."""
        self._reloaded: torch.nn.Module = model
        """The part of the model that is loaded anew: all of it, or the layers in which something changes."""
        self._manifest: WeightManifest | None = None
        eager_cpu = device.type == "cpu" and self.model_config.enforce_eager
        self._can_double_buffer = eager_cpu and DoubleBuffer.supports(model)
        self._double_buffer: DoubleBuffer | None = None
        self._group: ReceiverGroup | None = None
        self._work: Future[None] | None = None
        self._staged_version: int | None = None
        self._loading_version: int | None = None
        self.loaded_version: int | None = None
        """The version whose loading was finished last; None from `start` to `finish`."""

    def init_transfer_engine(self, init_info: JoinInfo) -> None:
        """Begin to join a transfer group; the one before it is left. `status` tells when it is done."""
        self._begin(self._join, init_info)

    def begin_receive(self, manifest: WeightManifest, deadline_s: float) -> None:
        """Begin to take one broadcast into the staging buffer. `status` tells when it is done."""
        self._begin(self._receive, manifest, deadline_s)

    def status(self) -> dict[str, Any]:
        """How the work begun last stands: `busy`, or else its `error` (None when it went well), and whether it only
        `lost` the transfer by it."""
        state: dict[str, Any] = {"busy": False, "error": None, "lost": False}
        state |= {"loaded_version": self.loaded_version, "num_tensors": len(self._expected)}
        if self._work is not None and not self._work.done():
            return state | {"busy": True}
        error = self._work.exception() if self._work is not None else None
        if error is not None:
            state["error"] = str(error) if isinstance(error, RayzeroError) else repr(error)
            state["lost"] = isinstance(error, TransferLost)
        return state

    def start_weight_update(self) -> None:
        """Make the layers ready to be loaded anew. From here to `finish_weight_update` the engine cannot generate."""
        self.loaded_version = None
        if self._streams:
            return  # the layers are made ready when the broadcast begins, which it may do again
        if self._staged_version is None:
            raise WeightSyncError("nothing is staged: receive weights first")
        if self._double_buffer is None:
            initialize_layerwise_reload(self._reloaded)
            repack_when_loaded(self._reloaded, self.device)

    def receive_weights(self, update_info: LoadInfo) -> None:
        """Load what is staged (vLLM's name for the phase; the bytes are here already), or a broadcast as it comes."""
        if update_info.manifest:
            self._stream(parse_manifest(update_info.manifest), update_info.deadline_s)
            return
        if self._staged_version != update_info.policy_version:
            raise WeightSyncError(f"asked to load version {update_info.policy_version}, staged {self._staged_version}")
        if self._double_buffer is None:
            with disable_mtp_completeness_check():
                self.model.load_weights(self._merged.items() if self._merged else self._staging.tensors())
        self._loading_version = update_info.policy_version

    def finish_weight_update(self) -> None:
        """Give the layers their new weights."""
        if self._streams and self._loading_version is None:
            raise WeightSyncError("the broadcast was not taken whole: its layers hold two versions")
        if self._double_buffer is None:
            finalize_layerwise_reload(self._reloaded, self.model_config)
            if self._reloaded is self.model:
                self._repack_tied_heads()
        elif self._loading_version is not None:
            self._double_buffer.swap()
            self._checker.submit(self._double_buffer.retire)
        if self._loading_version is not None and self._manifest is not None:
            self._adapters.loaded(self._manifest)
            self._merged = {}
        self._is_open = False
        self.loaded_version, self._loading_version = self._loading_version, None

    def begin_stream(self) -> None:
        """What is loaded next comes in the pause, bucket by bucket."""
        self._streams = True

    def _stream(self, manifest: WeightManifest, deadline_s: float) -> None:
        """Take one broadcast in the engine's own thread, and load each bucket as it is proven.

        `status` says what failed: an exception here would leave the answers of an engine's other processes unread.
        Until a broadcast has been taken whole no version is loaded, and `finish_weight_update` refuses.
        """
        self._loading_version, self._work = None, Future()
        try:
            self._stream_whole(manifest, time.monotonic() + deadline_s)
        except Exception as error:
            self._work.set_exception(error)
            return
        self._loading_version, self._manifest = manifest.policy_version, manifest
        self._work.set_result(None)

    def _stream_whole(self, manifest: WeightManifest, give_up: float) -> None:
        if self._group is None:
            raise WeightSyncError("not in a transfer group: join first")
        check_manifest(manifest, self._expected, self._dtype)
        self._intake.reserve(self._group, manifest)
        self._staging.expect(manifest)
        self._reloaded, self._merged, self._staged_version = self.model, {}, None
        if self._is_open:
            # A broadcast that broke off has left layers half loaded: they begin again.
            finalize_layerwise_reload(self.model, self.model_config)
        initialize_layerwise_reload(self.model)
        repack_when_loaded(self.model, self.device)
        self._is_open = True
        self._group.announce(manifest.policy_version)
        self._intake.take(self._group, manifest, give_up, self._load_bucket)

    def _load_bucket(self, index: int, bucket: torch.Tensor, digests: Sequence[str]) -> None:
        self._staging.place(index, bucket)
        self._staging.verify_bucket(index, digests)
        with disable_mtp_completeness_check():
            self.model.load_weights(self._staging.tensors(index))
        detach_pending(self.model, bucket)

    def shutdown(self) -> None:
        """Leave the transfer group. vLLM also calls this when the engine ends."""
        if self._group is not None:
            self._group.close()
            self._group = None

    def _repack_tied_heads(self) -> None:
        """A head that shares the embedding's weight has nothing to load, so vLLM leaves it as it was; but on CPU it
        computes from a repacked copy, which would stay that of the old policy."""
        parameters: dict[int, torch.nn.Module] = {}
        for module in self.model.modules():
            weight = module._parameters.get("weight")
            if weight is None or weight.numel() == 0:
                continue
            if id(weight) in parameters and hasattr(module, "quant_method"):
                module.quant_method.process_weights_after_loading(module)
            parameters[id(weight)] = module

    def _begin(self, work: Any, *arguments: Any) -> None:
        if self._work is not None and not self._work.done():
            raise WeightSyncError("the transfer before this one has not ended")
        self._work = self._thread.submit(work, *arguments)

    def _join(self, info: JoinInfo) -> None:
        self.shutdown()
        rank = info.rank + self.parallel_config.rank
        rendezvous = Rendezvous(host=info.host, port=info.port, world_size=info.world_size, secret=info.secret)
        self._staging.let_go()  # what it views may be the old group's
        self._group = ReceiverGroup(rendezvous, rank, info.deadline_s, self.device)
        if self._group.kind is Route.NCCL and info.num_bytes:
            self._staging.reserve(info.num_bytes, self.device)  # what there is no room for fails now, not in mid-run

    def _receive(self, manifest: WeightManifest, deadline_s: float) -> None:
        give_up = time.monotonic() + deadline_s
        if self._group is None:
            raise WeightSyncError("not in a transfer group: join first")
        self._staged_version, self._merged, self._reloaded, self._streams = None, {}, self.model, False
        check_manifest(manifest, self._expected, self._dtype)
        if self._can_double_buffer and self._double_buffer is None:
            self._double_buffer = DoubleBuffer(self.model)
        if self._double_buffer is not None:
            self._double_buffer.begin()
        if manifest.streamed:
            self._intake.reserve(self._group, manifest)
        self._group.announce(manifest.policy_version, self._staging.content)
        try:
            if manifest.streamed:
                self._take_stream(manifest, self._group, give_up)
            else:
                self._take_all(manifest, self._group, give_up)
            if manifest.adapter_scaling is not None:
                self._merge(manifest)
            if self._double_buffer is not None:
                self._repack_rest(self._double_buffer, whole=manifest.adapter_scaling is None)
        finally:
            wait(self._packing)
            packed, self._packing = self._packing, []
        for future in packed:
            future.result()
        self._staging.prove()
        self._staged_version, self._manifest = manifest.policy_version, manifest

    def _take_all(self, manifest: WeightManifest, group: ReceiverGroup, give_up: float) -> None:
        """Take every bucket; raise what was wrong with one only when all have come: a receiver that stops at the
        first bad bucket would hang the others."""
        taken: list[Future[None]] = []
        try:
            # A double buffer takes the weights in at once, and adapters are merged; all others are loaded in the pause.
            whole = manifest.adapter_scaling is None
            keep = self._double_buffer is None and whole
            for index in group.take(manifest, self._staging, give_up - time.monotonic(), keep=keep):
                taken.append(self._checker.submit(self._take, index, load=self._double_buffer is not None and whole))
        finally:
            wait(taken)
        for future in taken:
            future.result()

    def _take_stream(self, manifest: WeightManifest, group: ReceiverGroup, give_up: float) -> None:
        """The same of a streamed broadcast: into the double buffer as it comes, or into memory for the pause."""
        aside = self._double_buffer is not None and manifest.adapter_scaling is None
        if aside:
            self._staging.expect(manifest)
        else:
            self._staging.lay_out(manifest, self.device)

        def consume(index: int, bucket: torch.Tensor, digests: Sequence[str]) -> None:
            (self._staging.place if aside else self._staging.keep)(index, bucket)
            self._staging.verify_bucket(index, digests)
            if aside:
                self._load_aside(self._staging.tensors(index))

        self._intake.take(group, manifest, give_up, consume)

    def _take(self, bucket: int, *, load: bool) -> None:
        """Hold a bucket against the manifest, and load it into the double buffer, while the next one arrives."""
        self._staging.verify_bucket(bucket)
        if load:
            self._load_aside(self._staging.tensors(bucket))

    @torch.no_grad()
    def _merge(self, manifest: WeightManifest) -> None:
        """Make weights from the adapters, all of which are proven, beside generation: into the double buffer, or for
        the pause."""
        names = self._adapters.names(manifest)
        merged = self._adapters.merged(names, manifest, self._staging.tensors(), self.device)
        if self._double_buffer is not None:
            for part in parts(merged):
                self._load_aside(part.items())
            return
        self._merged = dict(merged)
        layers = [self.model.get_submodule(name) for name in self._adapters.layers(names) or ()]
        # After an embedding a head that shares its weight must be repacked, too: then take it for all of the model.
        if layers and not any(isinstance(layer, VocabParallelEmbedding) for layer in layers):
            self._reloaded = torch.nn.ModuleList(layers)
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()  # the engine's own thread loads on another

    def _load_aside(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        assert self._double_buffer is not None
        complete = self._double_buffer.load(tensors)
        self._packing.append(self._packer.submit(self._double_buffer.repack, complete))

    def _repack_rest(self, buffers: DoubleBuffer, *, whole: bool) -> None:
        rest = buffers.rest(whole=whole)
        self._packing.append(self._packer.submit(buffers.repack, rest[::2]))
        buffers.repack(rest[1::2])


class WeightReceiver(RoutingReporter):
    """What this module adds to vLLM's workers (vLLM mixes it into the worker class), called by `collective_rpc`."""

    weight_transfer_engine: StagedWeightTransferEngine

    def begin_receive(self, manifest: str, deadline_s: float) -> None:
        """Start taking a broadcast; the manifest is text, since vLLM's own wire carries plain data only."""
        self.weight_transfer_engine.begin_receive(parse_manifest(manifest), deadline_s)

    def begin_stream(self) -> None:
        """See `StagedWeightTransferEngine.begin_stream`."""
        self.weight_transfer_engine.begin_stream()

    def transfer_status(self) -> dict[str, Any]:
        """See `StagedWeightTransferEngine.status`."""
        return self.weight_transfer_engine.status()


if BACKEND not in WeightTransferEngineFactory._registry:
    WeightTransferEngineFactory.register_engine(BACKEND, StagedWeightTransferEngine)
