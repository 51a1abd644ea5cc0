#!/usr/bin/env python3
"""The ResNet-18 training step of bench_qat_step with Brevitas's layers, against the same in float.

    build/peers/bin/python bench/peers_step.py --out FILE.json [--quick]

Same net, batch and quantisers as bench/resnet18.h (21 per-channel int8 weights, 18 uint8
activations), in Python, one thread. Both steps run in turn. Memory is the peak of the resident set
of a process of its own over what it held before the net was made. `./dev bench --peers` installs
Brevitas beside the project's own environment and calls this.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch
from torch import nn

BATCH, IMAGE = 8, 112


def float_layers():
    return {"conv": nn.Conv2d, "linear": nn.Linear, "relu": nn.ReLU, "input": nn.Identity}


def brevitas_layers():
    from brevitas import nn as qnn
    from brevitas.quant import Int8WeightPerChannelFloat, Uint8ActPerTensorFloat

    def conv(*arguments, **keywords):
        return qnn.QuantConv2d(*arguments, weight_quant=Int8WeightPerChannelFloat, **keywords)

    def linear(*arguments):
        return qnn.QuantLinear(*arguments, bias=True, weight_quant=Int8WeightPerChannelFloat)

    # One step of statistics, then a learned scale, as the C++ rows have it.
    def activation(layer):
        return lambda: layer(act_quant=Uint8ActPerTensorFloat, collect_stats_steps=1)

    return {
        "conv": conv,
        "linear": linear,
        "relu": activation(qnn.QuantReLU),
        "input": activation(qnn.QuantIdentity),
    }


class Block(nn.Module):
    def __init__(self, layers, inputs, outputs, stride):
        super().__init__()
        self.conv1 = layers["conv"](inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.conv2 = layers["conv"](outputs, outputs, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.relu1, self.relu2 = layers["relu"](), layers["relu"]()
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                layers["conv"](inputs, outputs, 1, stride=stride, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(y + self.shortcut(x))


def resnet18(layers):
    torch.manual_seed(0)
    stages = [
        layers["input"](),
        layers["conv"](3, 64, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(64),
        layers["relu"](),
        nn.MaxPool2d(3, 2, 1),
    ]
    inputs = 64
    for stage in range(4):
        outputs = 64 << stage
        for block in range(2):
            stages.append(Block(layers, inputs, outputs, 2 if stage and not block else 1))
            inputs = outputs
    return nn.Sequential(
        *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), layers["linear"](512, 1000)
    )


LAYERS = {"fp32": float_layers, "brevitas": brevitas_layers}


def step_of(impl):
    net = resnet18(LAYERS[impl]())
    optimizer = torch.optim.SGD(net.parameters(), 1e-4)
    images, labels = torch.rand(BATCH, 3, IMAGE, IMAGE), torch.randint(1000, (BATCH,))

    def step():
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()

    return step


def resident_peak():
    """VmHWM: unlike getrusage's, it starts anew in a process that a large one has started."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(x.split()[1]) * 1024 for x in status if x.startswith("VmHWM"))


def measure_memory(impl):
    layers = LAYERS[impl]()
    del layers  # imports are not the step's memory
    before = resident_peak()
    step = step_of(impl)
    for _ in range(3):
        step()
    return resident_peak() - before


def quartiles(values):
    return statistics.quantiles(values, n=4, method="inclusive")


def main():
    parser = argparse.ArgumentParser(prog="peers_step.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--memory-of", choices=list(LAYERS), help="print peak bytes of one net")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory_of:
        print(measure_memory(options.memory_of))
        return 0
    if not options.out:
        parser.error("--out FILE.json is needed")
    import brevitas

    steps = {impl: step_of(impl) for impl in LAYERS}
    for step in steps.values():
        for _ in range(2):
            step()
    times = {impl: [] for impl in steps}
    for _ in range(5 if options.quick else 11):
        for impl, step in steps.items():
            start = time.perf_counter_ns()
            step()
            times[impl].append(time.perf_counter_ns() - start)
    benchmarks = []
    for impl, values in times.items():
        low, middle, high = quartiles(values)
        ratio_low, ratio, ratio_high = quartiles(
            [a / b for a, b in zip(values, times["fp32"], strict=True)]
        )
        command = [sys.executable, __file__, "--memory-of", impl]
        memory = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        benchmarks.append(
            {
                "name": f"resnet18/train_step/channel_0/f32/{BATCH}x3x{IMAGE}x{IMAGE}/t1/{impl}",
                "real_time": middle,
                "time_unit": "ns",
                "low_ns": low,
                "high_ns": high,
                "ratio": ratio,
                "ratio_low": ratio_low,
                "ratio_high": ratio_high,
                "samples": len(values),
                "peak_bytes": memory,
            }
        )
        print(f"{impl:<10} {middle / 1e6:8.1f} ms  {ratio:.2f}x  peak {memory / 2**20:.0f} MiB")
    context = {"brevitas": brevitas.__version__}
    with open(options.out, "w", encoding="utf-8") as file:
        json.dump({"context": context, "benchmarks": benchmarks}, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
