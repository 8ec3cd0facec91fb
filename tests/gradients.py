"""What torchrun starts in tests/test_distributed.py: one backward pass in float64 over a batch that
its processes share; the first writes gradients and running statistics to a file."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from model import MattingBase
from training import distributed
from training.batch_norm import over_all_processes

BATCH = 4

torch.set_default_dtype(torch.float64)
cpu, options = torch.device("cpu"), argparse.Namespace(dist_timeout=60)
team = distributed.with_device(distributed.join(options), cpu, options)
torch.manual_seed(0)
model = MattingBase("mobilenetv2").train()
if team.size > 1:
    over_all_processes(model, team.tensors, cpu)
forward = team.wrap(model)
generator = torch.Generator().manual_seed(1)
src, bgr, true_fgr = (torch.rand(BATCH, 3, 64, 64, generator=generator) for _ in range(3))
mine = slice(team.rank * BATCH // team.size, (team.rank + 1) * BATCH // team.size)
model.seed_dropout(list(range(BATCH))[mine])
pred_pha, pred_fgr, _, pred_hid = forward(src[mine], bgr[mine])
loss = pred_pha.square().mean() + (pred_fgr - true_fgr[mine]).abs().mean() + pred_hid.mean()
loss.backward()
if team.is_first:
    found = {name: value.grad for name, value in model.named_parameters()}
    torch.save(found | dict(model.named_buffers()), sys.argv[1])
team.leave()
