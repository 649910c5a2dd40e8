"""Tasks that say where they ran and what they saw of the GPU."""

from __future__ import annotations

import os
import time
from typing import Any

from raycelery import Celery

app = Celery("gpu")


def _seen() -> dict[str, Any]:
    import ray

    return {
        "pid": os.getpid(),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        "ids": [str(one) for one in ray.get_gpu_ids()],
        "began": time.time(),
    }


@app.task(num_cpus=0, num_gpus=0.25)
def quarter(seconds: float) -> dict[str, Any]:
    """Hold a quarter of a GPU; with PyTorch and a real one, compute on it."""
    seen = _seen()
    try:
        import torch
    except ImportError:
        torch = None
    if torch is not None and torch.cuda.is_available():
        matrix = torch.rand(2048, 2048, device="cuda")
        seen |= {"device": torch.cuda.get_device_name(), "sum": float((matrix @ matrix).sum())}
    time.sleep(seconds)
    return {**seen, "ended": time.time()}


@app.task(num_cpus=1)
def beside(seconds: float) -> dict[str, Any]:
    """Need no GPU."""
    seen = _seen()
    time.sleep(seconds)
    return {**seen, "ended": time.time()}


@app.task(num_cpus=0)
def train_with_ray(gpu: bool) -> dict[str, Any]:
    """Run Ray Train inside a task: one worker fits a line."""
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    def loop() -> None:
        import ray.train
        import torch
        from ray.train.torch import get_device, prepare_model

        model = prepare_model(torch.nn.Linear(1, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x = torch.linspace(0, 1, 64, device=get_device()).unsqueeze(1)
        loss = torch.tensor(0.0)
        for _ in range(200):
            loss = ((model(x) - 3 * x) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        ray.train.report({"loss": float(loss), "device": str(get_device())})

    trainer = TorchTrainer(loop, scaling_config=ScalingConfig(num_workers=1, use_gpu=gpu))
    return dict(trainer.fit().metrics or {})
