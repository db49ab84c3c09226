"""Train `torch.nn.LSTM` on the tasks of this plugin by their recipes; print score and training time of every seed.

    python plugins/tasks/benchmarks/measure.py temporal-order temporal-order-forget-bias --seeds 0 1 2

The weights follow from torch.manual_seed(seed), the order of the rows from numpy.random.default_rng(seed).
Needs torch, which the plugin itself does not.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np
import torch
from harness_tasks import harness_tasks
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from harness import Recipe, Split, Task


class Network(torch.nn.Module):
    """The layer with a linear head on its final hidden state."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        recipe = task.recipe
        self.layer = torch.nn.LSTM(task.input_size, recipe.hidden_size, recipe.num_layers, batch_first=True)
        self.head = torch.nn.Linear(recipe.hidden_size, task.outputs)
        if recipe.forget_bias is not None:
            with torch.no_grad():
                for name, bias in self.layer.named_parameters():
                    if name.startswith("bias_ih"):
                        bias[recipe.hidden_size : 2 * recipe.hidden_size] += recipe.forget_bias

    def forward(self, batch: Split) -> torch.Tensor:
        x: torch.Tensor | PackedSequence = torch.from_numpy(batch.x)
        if batch.lengths is not None:
            lengths = torch.from_numpy(batch.lengths)
            x = pack_padded_sequence(torch.from_numpy(batch.x), lengths, batch_first=True, enforce_sorted=False)
        h_n = self.layer(x)[1][0]
        answer: torch.Tensor = self.head(h_n[-1])
        return answer


def train(task: Task, recipe: Recipe, split: Split, seed: int, test: Split, every: int) -> Network:
    torch.manual_seed(seed)
    network = Network(task)
    loss_of = torch.nn.functional.cross_entropy if task.kind == "classification" else torch.nn.functional.mse_loss
    make = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[recipe.optimizer]
    optimizer = make(network.parameters(), lr=recipe.learning_rate)
    order = np.random.default_rng(seed)
    step = 0
    for _ in range(recipe.epochs):
        for batch in split.rows(order.permutation(len(split.x))).batches(recipe.batch_size):
            optimizer.zero_grad()
            torch.autograd.backward(loss_of(network(batch), torch.from_numpy(batch.targets)))
            if recipe.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
            optimizer.step()
            step += 1
            if every and step % every == 0:
                print(f"  seed {seed} step {step:5d} score {score(task, network, test):.4f}", flush=True)
    return network


def score(task: Task, network: Network, split: Split) -> float:
    with torch.no_grad():
        answers = torch.cat([network(batch) for batch in split.batches(500)]).numpy()
    if task.kind == "classification":
        return float(np.mean(answers.argmax(axis=1) == split.targets))
    return float(np.mean((answers - split.targets) ** 2))


def main() -> None:
    tasks = {task.name: task for task in harness_tasks()}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=list(tasks), help="which tasks; all if none is named")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--every", type=int, default=0, help="also print the score every so many steps")
    for name, kind in (("epochs", int), ("learning-rate", float), ("hidden-size", int), ("batch-size", int)):
        parser.add_argument(f"--{name}", type=kind, default=None, help="instead of the recipe's")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    changes = {
        key: value
        for key in ("epochs", "learning_rate", "hidden_size", "batch_size")
        if (value := getattr(arguments, key)) is not None
    }
    print(f"{'task':28} {'seed':>4} {'score':>8} {'train_s':>8}")
    for name in arguments.tasks:
        task = tasks[name]
        task = dataclasses.replace(task, recipe=dataclasses.replace(task.recipe, **changes))
        data = task.load(arguments.data_dir)
        for seed in arguments.seeds:
            start = time.perf_counter()
            network = train(task, task.recipe, data.train, seed, data.test, arguments.every)
            seconds = time.perf_counter() - start
            print(f"{name:28} {seed:4d} {score(task, network, data.test):8.4f} {seconds:8.1f}", flush=True)


if __name__ == "__main__":
    main()
