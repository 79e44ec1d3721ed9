"""Data-parallel training on several nodes: PyTorch DDP over gloo, on data made here.

A small network learns which of ten hidden linear rules made a sample. Every rank draws its own
samples; DDP averages the gradients, so that all ranks end with the same weights. Rank 0 of each
node writes the model, every rank writes its own summary.
"""
import json
import os
import sys
import time

import torch
import torch.distributed as dist
import torch.nn as nn
from torch.nn.parallel import DistributedDataParallel

STEPS = int(os.environ.get("STEPS", "60"))
BATCH = 128
FEATURES, HIDDEN, CLASSES = 64, 256, 10


def main() -> int:
    torch.set_num_threads(1)
    began = time.monotonic()
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    print(f"rank {rank} of {world} on node {os.environ['NODE_RANK']}: "
          f"joined in {time.monotonic() - began:.2f} s", flush=True)

    torch.manual_seed(0)
    model = DistributedDataParallel(
        nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES)))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    rules = torch.randn(FEATURES, CLASSES, generator=torch.Generator().manual_seed(42))
    samples = torch.Generator().manual_seed(1000 + rank)

    losses = []
    began = time.monotonic()
    for step in range(STEPS):
        x = torch.randn(BATCH, FEATURES, generator=samples)
        y = (x @ rules).argmax(1)
        loss = nn.functional.cross_entropy(model(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        losses.append(mean.item() / world)
        if rank == 0 and (step % 10 == 0 or step == STEPS - 1):
            print(f"step {step:3d}  loss {losses[-1]:.4f}  "
                  f"{(time.monotonic() - began) / (step + 1) * 1000:.1f} ms/step", flush=True)

    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    sums = [None] * world
    dist.all_gather_object(sums, weights.double().sum().item())
    same = len(set(sums)) == 1
    out = os.environ.get("SHEAF_OUT_DIR", "/out")
    with open(f"{out}/summary-{rank}.json", "w", encoding="utf-8") as file:
        json.dump({"rank": rank, "world": world, "first_loss": losses[0],
                   "last_loss": losses[-1], "same_weights": same, "steps": STEPS}, file)
    if local == 0:
        torch.save(model.module.state_dict(), f"{out}/model.pt")
    if rank == 0:
        print(f"loss: {losses[0]:.4f} -> {losses[-1]:.4f}", flush=True)
        print(f"weights identical on all ranks: {same}", flush=True)
    dist.barrier()
    dist.destroy_process_group()
    return 0 if same and losses[-1] < losses[0] else 1


if __name__ == "__main__":
    sys.exit(main())
