"""The same model quantised or pruned: what is shipped is often not the network that was measured."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn

from robustbench_local.config.arguments import checked
from robustbench_local.core.errors import ModelError, RobustBenchError
from robustbench_local.core.model_state import evaluating
from robustbench_local.models import int8
from robustbench_local.models.black_box import BlackBox
from robustbench_local.models.first_of_tied import FirstOfTied
from robustbench_local.models.formats.onnx import Both
from robustbench_local.models.pruning import pruned

INT8, INT8_DYNAMIC, PRUNED = "int8", "int8_dynamic", "pruned"
ALLOWED = "int8, int8_dynamic, or pruned:SHARE with a share of all weights between 0 and 1, as pruned:0.5"
_ALIKE = 0.8  # of the calibration images named as float names them: with less the user is told
_MOSTLY = 0.5  # of the weights int8: with less the user is told


@checked(ModelError)
def make_variant(model: nn.Module, variant: str, calibration: Tensor | None = None) -> nn.Module:
    """A copy of a model as it is shipped, in evaluation mode: "int8", "int8_dynamic" or "pruned:0.5".

    "int8": weights and activations in 8 bits, by post-training quantisation (torch.ao.quantization); its ranges are
    those of `calibration`, images float32 (N, C, H, W) in [0, 1], best of the training split: the images that are
    judged, too, would tell it a little of what it is measured on. "int8_dynamic": the Linear layers alone, by ranges of
    each image. Both need a CPU. Their answers are those of the int8 kernels, so attacks are judged on what is deployed,
    and their gradients those of the float model (straight-through, declared as a surrogate). Logits of 8 bits tie: the
    first class is then the answer (see `FirstOfTied`). "pruned:SHARE": this share
    of the weights of convolutional and linear layers is 0, the smallest of the whole network.

    A warning says where more than half of the weights stays float.
    Raises ModelError where there is no such variant, where calibration images are missing, and where the model is none
    that can be changed: another program answers (ONNX, a server, scikit-learn), it is compiled (TorchScript, an
    exported program), no layer could be quantised, or it lies on a GPU.
    """
    kind, share = check_variant(variant)
    _check_ordinary(model, variant)
    try:
        own = evaluating(copy.deepcopy(model))
        if kind == PRUNED:
            return pruned(own, share)
        made = _int8(own, kind, calibration)
    except Exception as error:  # somebody's code, traced: it may die of anything
        reason = str(error) if isinstance(error, RobustBenchError) else f"{type(error).__name__}: {error}"
        raise ModelError(f'there is no variant "{variant}" of this model: {reason}') from error
    share = int8.int8_share(made)
    if share < _MOSTLY:
        warnings.warn(f'of the weights of the variant "{variant}" {share:.0%} are int8, the others float', stacklevel=3)
    return made


def check_variant(variant: str) -> tuple[str, float]:
    """(its kind, the share that is pruned or 0). ModelError where a text names no variant."""
    kind, colon, number = variant.partition(":")
    if kind in (INT8, INT8_DYNAMIC) and not colon:
        return kind, 0.0
    try:
        share = float(number) if kind == PRUNED else 0.0
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise ModelError(f'unknown variant "{variant:.60}": {ALLOWED}')
    return kind, share


def needs_calibration(variant: str) -> bool:
    """Whether its weights depend on calibration images."""
    return check_variant(variant)[0] == INT8


def _int8(model: nn.Module, kind: str, images: Tensor | None) -> nn.Module:
    places = {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} - {"cpu"}
    if places:
        raise ModelError(f"it lies on {', '.join(sorted(places))}, and torch computes int8 on the CPU: say device=cpu")
    if images is None and kind == INT8:
        raise ModelError("its ranges need calibration images, float32 (N, C, H, W), best of the training split")
    if images is not None and (images.ndim != 4 or not images.is_floating_point() or not len(images)):
        raise ModelError(f"calibration images are {images.dtype} {tuple(images.shape)}: give float32 (N, C, H, W)")
    made = evaluating(int8.dynamic(model) if images is None or kind == INT8_DYNAMIC else int8.static(model, images))
    if int8.int8_share(made) == 0:
        layers = "Linear" if kind == INT8_DYNAMIC else "convolutional or linear"
        raise ModelError(f"none of its parts is a {layers} layer of torch.nn that can be quantised")
    if images is not None:
        _check_answers(int8.answers(made, images), int8.answers(model, images))
    return evaluating(FirstOfTied(made)) if kind == INT8 else made


def _check_answers(now: Tensor, before: Tensor) -> None:
    """ModelError where logits (N, K) are the float model's own, a warning where they seldom name the same class."""
    if torch.equal(now, before):
        raise ModelError("its answers stay the same to the last bit: they come from elsewhere than what was quantised")
    alike = float((now.argmax(1) == before.argmax(1)).float().mean())
    if alike < _ALIKE:
        warnings.warn(f"int8 and float name the same class on {alike:.0%} of the calibration images", stacklevel=5)


def _check_ordinary(model: nn.Module, variant: str) -> None:
    """ModelError where the model's answers do not come from layers that can be changed."""
    if any(isinstance(part, int8.Int8) for part in model.modules()):
        why = "it is int8 already"
    elif any(isinstance(part, BlackBox | Both) for part in model.modules()):
        why = "another program answers for it (ONNX, a server, scikit-learn, a function)"
    elif any(isinstance(part, torch.jit.ScriptModule) for part in model.modules()):
        why = "it is TorchScript, which is compiled"
    else:
        return
    raise ModelError(
        f'there is no variant "{variant}" of this model: {why}. Take the torch.nn.Module that it was made of'
    )
