"""Layers of a network fused: fewer passes over its activations, numbers the same up to rounding.

Batch normalisation becomes part of the convolution before it. On a CPU, a ReLU and the sum with
a residual do, too: oneDNN computes them while a convolution's result is still in the cache, and
its weights are put in the order that it wants once for each shape, not in each call. That makes
ResNet-152 and ResNeXt-101 15 to 25 % faster. `torch.compile` fuses the same layers and is no
faster, but takes 5 to 20 s and a C++ compiler, and once more for each shape of a frame (all
measured).
"""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
FOLLOWERS = (nn.BatchNorm2d, nn.BatchNorm3d, nn.ReLU)
"""What becomes part of the convolution before it. Networks without are left alone."""


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """Fold batch normalisation into the convolution before it, and return the new module.

    `module` is used up. One whose forward() has branches on its input, or does what torch cannot
    follow, comes back as it is.
    """
    if not any(isinstance(layer, FOLLOWERS) for layer in module.modules()):
        return module
    try:
        return fuse(module, inplace=True)
    except Exception:  # of half a dozen kinds; the network was only looked at by then
        return module


MAX_ORDERS = 4
"""Orders of its weights that a convolution keeps, at most. ResNet-152 in float32, of 232 MB, took
1 to 5 orders a layer for six shapes of frames in batches of 1 to 32, 770 MB in all; a hundred of
its 155 layers took no more than two (counted with oneDNN 3.12 on a CPU with AVX512-BF16)."""

MAX_SHAPES = 256
"""Shapes of which a convolution knows the order, at most: an entry is small, but there are as many
shapes as there are aspect ratios and sizes of batches."""


class PackedWeights:
    """The weights of a convolution, in the order that oneDNN wants for the input at hand.

    The order that is best depends on the size of the input, also on how many there are in a
    batch. With the order of another size, oneDNN computes the same slower: ResNet-152 does 7.0
    frames of 224×126 a second and core in their own order, 2.1 in that of 224×398 (in bfloat16 14.7
    and 3.7). So no one order is good for all. A shape or number of inputs that is new takes as long
    as half a frame or one, once: less than to fill a batch up to a size that is known (all measured
    on a CPU with AVX512-BF16).
    """

    def __init__(self, weight: torch.Tensor, geometry: Sequence[object]):
        """Keep weights as they are until the first input.

        Args:
            geometry: padding, stride, dilation and groups of the convolution.
        """
        self._plain: torch.Tensor | None = weight
        self._geometry = geometry
        self._order_of: OrderedDict[tuple[int, ...], bytes] = OrderedDict()
        self._by_order: OrderedDict[bytes, torch.Tensor] = OrderedDict()

    def for_input(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Return the weights for an input of this shape; shapes with one order share them."""
        order = self._order_of.get(shape)
        if order is None or order not in self._by_order:
            order = self._pack(shape)
        self._by_order.move_to_end(order)
        return self._by_order[order]

    def _pack(self, shape: tuple[int, ...]) -> bytes:
        # The plain weights are not kept: they can be had from any order.
        plain = self._plain
        if plain is None:
            plain = next(reversed(self._by_order.values())).to_dense()
        packed = torch.ops.mkldnn._reorder_convolution_weight(plain, *self._geometry, list(shape))
        order = bytes(torch.ops.mkldnn._get_mkldnn_serialized_md(packed).numpy())
        order = next((known for known in self._by_order if known == order), order)  # kept once
        self._plain = None
        self._by_order.setdefault(order, packed)
        self._order_of[shape] = order
        if len(self._by_order) > MAX_ORDERS:
            self._by_order.popitem(last=False)
        if len(self._order_of) > MAX_SHAPES:
            self._order_of.popitem(last=False)
        return order

    @property
    def num_bytes(self) -> int:
        """Memory of all orders that are kept."""
        return sum(torch.ops.mkldnn._nbytes(packed) for packed in self._by_order.values())


class FusedConv(nn.Module):
    """A convolution and what follows it, in one call of oneDNN.

    Its operators are those that torch.compile emits; torch has no public name for them.
    """

    def __init__(self, convolution: nn.Conv2d | nn.Conv3d, activation: str):
        """Take over the weights of a convolution.

        Args:
            convolution: on the CPU, in its final dtype.
            activation: `relu` or `none`; what follows the convolution if nothing is added.
        """
        super().__init__()
        self._geometry = (
            list(convolution.padding),
            list(convolution.stride),
            list(convolution.dilation),
            convolution.groups,
        )
        self._bias = convolution.bias
        self._activation = activation
        self.weights = PackedWeights(convolution.weight.detach(), self._geometry)

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """Return the activation of the convolution; with a residual, which is overwritten, the ReLU
        of their sum."""
        parameters = (self.weights.for_input(tuple(x.shape)), self._bias, *self._geometry)
        if residual is None:
            return torch.ops.mkldnn._convolution_pointwise(x, *parameters, self._activation, [], "")
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            residual, x, *parameters, "add", 1.0, "relu", [], ""
        )


def is_onednn_supported(dtype: torch.dtype) -> bool:
    """Return whether torch was built with oneDNN, and oneDNN computes in this dtype on this CPU."""
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if dtype == torch.float16:
        return torch.ops.mkldnn._is_mkldnn_fp16_supported()
    return dtype == torch.float32


def fuse_convolutions(module: nn.Module) -> nn.Module:
    """Fuse convolutions on the CPU with the ReLUs and residuals that follow; changes `module`.

    Args:
        module: in its final dtype; one that is not a graph of layers comes back as it is.
    """
    if not isinstance(module, fx.GraphModule):
        return module
    nodes = list(module.graph.nodes)
    targets = [node.target for node in nodes]
    for node in nodes:
        if _is_convolution(node) and targets.count(node.target) == 1:
            _fuse_followers(node, module)
    module.graph.lint()
    module.recompile()
    return module


def _fuse_followers(node: fx.Node, module: fx.GraphModule) -> None:
    activation, arguments = "none", node.args
    followers: list[fx.Node] = []
    follower = _only_user(node)
    if _is_relu(follower):
        activation, followers = "relu", [follower]
    elif follower is not None and follower.target is operator.add:
        residual = next((arg for arg in follower.args if arg is not node), None)
        relu = _only_user(follower)
        if _is_relu(relu) and _can_be_overwritten(residual, node, follower):
            arguments, followers = (*node.args, residual), [follower, relu]
    name = str(node.target)
    convolution = module.get_submodule(name)
    assert isinstance(convolution, CONVOLUTIONS)
    module.set_submodule(name, FusedConv(convolution, activation))
    # At the convolution's own place: what it reads may be overwritten later.
    node.args = arguments
    if followers:
        followers[-1].replace_all_uses_with(node)
    for follower in reversed(followers):
        module.graph.erase_node(follower)


def _can_be_overwritten(residual: object, node: fx.Node, follower: fx.Node) -> bool:
    """Return whether `residual` comes before `node`, owns its memory, and only `follower` needs it
    afterwards."""
    owners = (FusedConv, *CONVOLUTIONS)
    if not isinstance(residual, fx.Node) or type(_module_of(residual)) not in owners:
        return False
    order = {other: place for place, other in enumerate(node.graph.nodes)}
    users = [user for user in residual.users if user is not follower]
    return all(order[other] < order[node] for other in (residual, *users))


def _module_of(node: object) -> nn.Module | None:
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    assert node.graph.owning_module is not None
    return node.graph.owning_module.get_submodule(str(node.target))


def _is_convolution(node: fx.Node) -> bool:
    module = _module_of(node)
    # A subclass may do something else, and so may a padding by name.
    if not isinstance(module, CONVOLUTIONS) or type(module) not in CONVOLUTIONS:
        return False
    return not isinstance(module.padding, str) and module.padding_mode == "zeros"


def _is_relu(node: fx.Node | None) -> TypeGuard[fx.Node]:
    return type(_module_of(node)) is nn.ReLU


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None
