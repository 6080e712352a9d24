"""Run by torchrun on two processes: weights, their average and the optimizer are spread over both (FSDP), on the CPU.

Accelerate shards on GPUs alone. What is our own of it, in `average` and `whole`, works on PyTorch's sharded tensors,
and is tried here with them: a batch on each gives what one process gives with both, and what is taken up from a
checkpoint's tensors goes on in the same way.
"""

import copy
import sys
from itertools import islice

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from talkface.datasets.open import open_dataset
from talkface.train.base import configure, task_class
from talkface.train.data import to_device, training_loader
from talkface.train.ema import Average
from talkface.train.full_state import optimizer_of, set_optimizer, set_weights, weights_of
from talkface.train.optim import parts_of

SMALL = ("width=32", "layers=2", "heads=2", "sound_width=8", "training.batch_size=8", "training.optimizer=adam")


class Learner:
    """A network, its optimizer and its average; sharded where there is a mesh."""

    def __init__(self, mesh=None):
        torch.manual_seed(0)
        self.net = task.build()
        if mesh is not None:
            for layer in self.net.blocks.layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(self.net, mesh=mesh)
        self.optimizer = parts_of(task, self.net, config.training)[0].optimizer
        self.average = Average(self.net.parameters(), 0.9)

    def update(self, step, parts):
        for part in parts:
            number = 2 * step + part
            draw = torch.Generator().manual_seed(number)
            (task.step(self.net, batches[number], draw, "all").loss / len(parts)).backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(step)

    def whole(self):
        with self.average.applied():
            averaged = weights_of(self.net)
        return weights_of(self.net), averaged, *optimizer_of(self.net, self.optimizer)

    def restore(self, weights, averaged, state, groups):
        with self.average.applied():
            set_weights(self.net, averaged)
        set_weights(self.net, weights)
        set_optimizer(self.net, self.optimizer, state, groups)


def same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=1e-6, rtol=1e-5, msg=name)


config = configure("emodiff", "tiny", None, SMALL)
dataset = open_dataset(sys.argv[1])
task = task_class("emodiff")(config, task_class("emodiff").learn(config, dataset))
batches = [to_device(b, torch.device("cpu")) for b in islice(training_loader(dataset, config), 8)]
mesh = init_device_mesh("cpu", (2,))
rank = mesh.get_rank()

sharded, alone = Learner(mesh), Learner()
assert all(isinstance(p, DTensor) for p in sharded.net.parameters())
for step in range(2):
    sharded.update(step, [rank])
    alone.update(step, [0, 1])
held = [copy.deepcopy(sharded.whole())]
torch.distributed.broadcast_object_list(held, src=0)  # the first process has it all, and writes the checkpoint
resumed = Learner(mesh)
resumed.restore(*held[0])
for step in range(2, 4):
    sharded.update(step, [rank])
    resumed.update(step, [rank])
    alone.update(step, [0, 1])
first, again, expected = sharded.whole(), resumed.whole(), alone.whole()
if rank == 0:
    for found in (first, again):
        for part in range(3):
            same(found[part], expected[part])
    assert all(torch.equal(v, again[0][k]) for k, v in first[0].items()), "resuming is exact"
    print("sharded as alone:", sum(v.numel() for v in first[0].values()), "weights")
torch.distributed.destroy_process_group()
