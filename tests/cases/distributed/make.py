"""Makes the archives beside this file: `python make.py`, with torch 2.15.0. Each is written by four processes or one.

The weights are those of tests/golden/fixtures/nemo_gpt_core_groups_tp2_pp2/model.nemo (a Llama on megatron-core: RMSNorm,
SwiGLU, grouped queries; two tensor-parallel ranks, two pipeline stages). Each of the four processes takes the file of its
rank and saves it with `torch.distributed.checkpoint` as megatron-core does: the layers of all stages are one tensor with
one dimension more, of which a process has some chunks; the two projections under a gate are apart in the whole tensor,
so that a rank has two chunks of it; what ranks share is written by the first of them.

- `stacked.nemo`: chunks of four ranks, with what stands beside weights: Transformer Engine's extra states, an optimizer,
  states of generators, the plans of all ranks in the metadata.
- `whole.nemo`: what one process writes under NeMo 2's names: one chunk for each tensor, all layers in it.
"""

import io
import os
import pathlib
import pickle
import tarfile
import tempfile

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

HERE = pathlib.Path(__file__).parent
SOURCE = HERE.parent.parent / "golden/fixtures/nemo_gpt_core_groups_tp2_pp2/model.nemo"
RANKS, STAGES, LAYERS = 2, 2, 2


class Chunks:
    """What one process has of a tensor: pairs of an offset and the numbers there."""

    def __init__(self, shape, chunks):
        self.shape, self.chunks = torch.Size(shape), [(torch.Size(offset), part) for offset, part in chunks]

    def __create_write_items__(self, name, _):
        return [
            WriteItem(
                index=MetadataIndex(name, offset),
                type=WriteItemType.SHARD,
                tensor_data=TensorWriteData(
                    chunk=ChunkStorageMetadata(offset, part.size()),
                    properties=TensorProperties.create_from_tensor(part),
                    size=self.shape,
                ),
            )
            for offset, part in self.chunks
        ]


class Planner(dcp.DefaultSavePlanner):
    """Leaves the plans in the metadata, as megatron-core does."""

    def create_global_plan(self, all_plans):
        plans, metadata = super().create_global_plan(all_plans)
        metadata.all_local_plans = all_plans
        return plans, metadata

    def lookup_object(self, index):
        found = self.state_dict[index.fqn]
        if not isinstance(found, Chunks):
            return super().lookup_object(index)
        return next(part for offset, part in found.chunks if offset == index.offset)


def members():
    with tarfile.open(SOURCE) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def state_of(files, rank, stage):
    state = torch.load(io.BytesIO(files[f"./tp_rank_{rank:02d}_pp_rank_{stage:03d}/model_weights.ckpt"]))
    # The last stage of this file has a copy of the table that no model with a head of its own needs.
    return {k: x for k, x in state.items() if x is not None and k != "model.word_embeddings.weight"}


def dimension_of(name):
    """Which dimension ranks share: none, rows or columns."""
    if "norm" in name:
        return None
    return 1 if name.endswith(("linear_proj.weight", "linear_fc2.weight")) else 0


def shards(name, x, rank):
    """The whole shape, and this rank's chunks."""
    dimension = dimension_of(name)
    if dimension is None:
        return list(x.shape), ([([0] * x.dim(), x)] if rank == 0 else [])
    shape = list(x.shape)
    shape[dimension] *= RANKS
    blocks = 2 if "linear_fc1" in name else 1
    parts = []
    for block, part in enumerate(x.chunk(blocks, dimension)):
        offset = [0] * x.dim()
        offset[dimension] = block * shape[dimension] // blocks + rank * part.shape[dimension]
        parts.append((offset, part.contiguous()))
    return shape, parts


def stacked(number, folder, port):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=number, world_size=RANKS * STAGES)
    stage, rank = divmod(number, RANKS)
    state = {}
    for name, x in state_of(members(), rank, stage).items():
        shape, parts = shards(name, x, rank)
        if ".layers." in name:
            head, rest = name.split(".layers.")
            layer, rest = rest.split(".", 1)
            layer = int(layer) + stage * LAYERS // STAGES
            name = f"{head}.layers.{rest}"
            shape = [LAYERS] + shape
            parts = [([layer] + offset, part[None]) for offset, part in parts]
            if rank == 0 and rest.endswith("linear_qkv.weight"):
                extra = io.BytesIO()
                torch.save([{"scale": torch.ones(1)}], extra)
                state[f"{head}.layers.{rest[:-6]}_extra_state/shard_{layer}_{LAYERS}"] = extra
        if parts:
            state[name] = Chunks(shape, parts)
    if number == 0:
        state["optimizer.state.exp_avg.model.decoder.final_layernorm.weight"] = torch.zeros(3)
        state["rng_state/shard_0.0_1.2"] = io.BytesIO(b"x")
    dcp.save(
        state,
        storage_writer=dcp.FileSystemWriter(folder, thread_count=2),
        planner=Planner(flatten_state_dict=False, flatten_sharded_tensors=False),
    )
    dist.destroy_process_group()


def whole(folder):
    files = members()
    tensors = {}
    for stage in range(STAGES):
        ranks = [state_of(files, rank, stage) for rank in range(RANKS)]
        for name in ranks[0]:
            shape = shards(name, ranks[0][name], 0)[0]
            x = torch.empty(shape)
            for rank, state in enumerate(ranks):
                for offset, part in shards(name, state[name], rank)[1]:
                    x[tuple(slice(o, o + s) for o, s in zip(offset, part.shape))] = part
            name = "module." + name.removeprefix("model.")
            if ".layers." in name:
                head, rest = name.split(".layers.")
                name = f"{head}.layers.{rest.split('.', 1)[1]}"
                x = x[None] if name not in tensors else torch.cat([tensors[name], x[None]])
            tensors[name] = x
    dcp.save(tensors, checkpoint_id=folder, no_dist=True)


def write(name, folder, weights):
    # What megatron-core adds.
    torch.save({"iteration": 1}, folder / "common.pt")
    (folder / "metadata.json").write_text(
        '{"sharded_backend": "torch_dist", "sharded_backend_version": 1, "common_backend": "torch", '
        '"common_backend_version": 1}'
    )
    with tarfile.open(HERE / f"{name}.nemo", "w", format=tarfile.USTAR_FORMAT) as tar:
        config = members()["./model_config.yaml"]
        entries = {"model_config.yaml": config}
        entries |= {f"{weights}/{file.name}": file.read_bytes() for file in folder.iterdir()}
        for entry, content in sorted(entries.items()):
            info = tarfile.TarInfo(f"./{entry}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        mp.spawn(stacked, (folder / "stacked", 29511), RANKS * STAGES)
        write("stacked", folder / "stacked", "model_weights")
        whole(folder / "whole")
        write("whole", folder / "whole", "weights")
        with open(folder / "stacked" / ".metadata", "rb") as stream:
            for name, about in pickle.load(stream).state_dict_metadata.items():
                print(name, getattr(about, "size", None), len(getattr(about, "chunks", [])))


if __name__ == "__main__":
    main()
