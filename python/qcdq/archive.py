# State dicts to and from the archives of C++'s torch::save(module, path) and torch::load: a tree of
# submodules with their parameters and buffers, in TorchScript's file format.
from __future__ import annotations

import os
import warnings

import torch
from torch import nn


def load_cpp_archive(module: nn.Module, path: str | os.PathLike[str]) -> None:
    """Loads what C++'s torch::save(net, path) wrote into a Python module of the same structure.

    Names have to agree, as in load_state_dict (RuntimeError that lists those that don't); a
    quantiser of another QuantSpec is refused (ValueError).

        qcdq.load_cpp_archive(net, "net.pt")
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.jit: the format is C++'s own
        archive = torch.jit.load(os.fspath(path), map_location="cpu")
    module.load_state_dict(archive.state_dict())


def _tree(module: nn.Module) -> nn.Module:
    """A copy without code: the same tree of submodules, parameters and buffers."""
    copy = nn.Module()
    for name, parameter in module.named_parameters(recurse=False):
        copy.register_parameter(
            name, nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
        )
    for name, buffer in module.named_buffers(recurse=False):
        if name not in module._non_persistent_buffers_set:
            copy.register_buffer(name, buffer.detach())
    for name, child in module.named_children():
        copy.add_module(name, _tree(child))
    return copy


def save_cpp_archive(module: nn.Module, path: str | os.PathLike[str]) -> None:
    """Writes parameters and buffers as an archive that C++'s torch::load(net, path) reads.

    The C++ module has to have the same structure: qcdq.nn layers have qcdq::Quant...'s names.

        qcdq.save_cpp_archive(net, "net.pt")
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.save(torch.jit.script(_tree(module)), os.fspath(path))
