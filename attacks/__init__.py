"""Attack plug-ins, one file each, met by the harness through entry points.

For scripts: `rbl.attacks.PGD(steps=40)`, whose settings an editor completes and a type checker knows.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustbench_local.attacks.adapters.art import ART as ART
    from robustbench_local.attacks.adapters.foolbox import Foolbox as Foolbox
    from robustbench_local.attacks.adapters.pyautoattack import PyAutoAttack as PyAutoAttack
    from robustbench_local.attacks.adapters.torchattacks import Torchattacks as Torchattacks
    from robustbench_local.attacks.adba import ADBA as ADBA
    from robustbench_local.attacks.apgd import APGD as APGD
    from robustbench_local.attacks.autoattack import AutoAttack as AutoAttack
    from robustbench_local.attacks.best import Best as Best
    from robustbench_local.attacks.bim import BIM as BIM
    from robustbench_local.attacks.boundary import Boundary as Boundary
    from robustbench_local.attacks.corruptions.blur import DefocusBlur as DefocusBlur
    from robustbench_local.attacks.corruptions.blur import GaussianBlur as GaussianBlur
    from robustbench_local.attacks.corruptions.blur import GlassBlur as GlassBlur
    from robustbench_local.attacks.corruptions.blur import MotionBlur as MotionBlur
    from robustbench_local.attacks.corruptions.blur import ZoomBlur as ZoomBlur
    from robustbench_local.attacks.corruptions.digital import JpegCompression as JpegCompression
    from robustbench_local.attacks.corruptions.digital import Pixelate as Pixelate
    from robustbench_local.attacks.corruptions.digital import Quantise as Quantise
    from robustbench_local.attacks.corruptions.digital import Resolution as Resolution
    from robustbench_local.attacks.corruptions.digital import WebpCompression as WebpCompression
    from robustbench_local.attacks.corruptions.geometry import ElasticTransform as ElasticTransform
    from robustbench_local.attacks.corruptions.geometry import Perspective as Perspective
    from robustbench_local.attacks.corruptions.geometry import Rotate as Rotate
    from robustbench_local.attacks.corruptions.geometry import Scale as Scale
    from robustbench_local.attacks.corruptions.geometry import Shear as Shear
    from robustbench_local.attacks.corruptions.geometry import Translate as Translate
    from robustbench_local.attacks.corruptions.lighting import Brightness as Brightness
    from robustbench_local.attacks.corruptions.lighting import ColourCast as ColourCast
    from robustbench_local.attacks.corruptions.lighting import Contrast as Contrast
    from robustbench_local.attacks.corruptions.lighting import Gamma as Gamma
    from robustbench_local.attacks.corruptions.lighting import LightGradient as LightGradient
    from robustbench_local.attacks.corruptions.lighting import Saturate as Saturate
    from robustbench_local.attacks.corruptions.lighting import Shadow as Shadow
    from robustbench_local.attacks.corruptions.mnist import CannyEdges as CannyEdges
    from robustbench_local.attacks.corruptions.mnist import DottedLine as DottedLine
    from robustbench_local.attacks.corruptions.mnist import MnistBrightness as MnistBrightness
    from robustbench_local.attacks.corruptions.mnist import MnistFog as MnistFog
    from robustbench_local.attacks.corruptions.mnist import MnistGlassBlur as MnistGlassBlur
    from robustbench_local.attacks.corruptions.mnist import MnistImpulseNoise as MnistImpulseNoise
    from robustbench_local.attacks.corruptions.mnist import MnistMotionBlur as MnistMotionBlur
    from robustbench_local.attacks.corruptions.mnist import MnistShotNoise as MnistShotNoise
    from robustbench_local.attacks.corruptions.mnist import MnistSpatter as MnistSpatter
    from robustbench_local.attacks.corruptions.mnist import Stripe as Stripe
    from robustbench_local.attacks.corruptions.mnist import Zigzag as Zigzag
    from robustbench_local.attacks.corruptions.noise import GaussianNoise as GaussianNoise
    from robustbench_local.attacks.corruptions.noise import ImpulseNoise as ImpulseNoise
    from robustbench_local.attacks.corruptions.noise import PlainNoise as PlainNoise
    from robustbench_local.attacks.corruptions.noise import SensorNoise as SensorNoise
    from robustbench_local.attacks.corruptions.noise import ShotNoise as ShotNoise
    from robustbench_local.attacks.corruptions.noise import SpeckleNoise as SpeckleNoise
    from robustbench_local.attacks.corruptions.occlusion import Bars as Bars
    from robustbench_local.attacks.corruptions.occlusion import Cutout as Cutout
    from robustbench_local.attacks.corruptions.weather import Fog as Fog
    from robustbench_local.attacks.corruptions.weather import Frost as Frost
    from robustbench_local.attacks.corruptions.weather import Snow as Snow
    from robustbench_local.attacks.corruptions.weather import Spatter as Spatter
    from robustbench_local.attacks.cw import CW as CW
    from robustbench_local.attacks.ddn import DDN as DDN
    from robustbench_local.attacks.deepfool import DeepFool as DeepFool
    from robustbench_local.attacks.ead import EAD as EAD
    from robustbench_local.attacks.fab import FAB as FAB
    from robustbench_local.attacks.fgsm import FGSM as FGSM
    from robustbench_local.attacks.fmn import FMN as FMN
    from robustbench_local.attacks.hopskipjump import HopSkipJump as HopSkipJump
    from robustbench_local.attacks.jsma import JSMA as JSMA
    from robustbench_local.attacks.mim import MIM as MIM
    from robustbench_local.attacks.nearest import Nearest as Nearest
    from robustbench_local.attacks.nes import NES as NES
    from robustbench_local.attacks.noise import Noise as Noise
    from robustbench_local.attacks.one_pixel import OnePixel as OnePixel
    from robustbench_local.attacks.patch import Patch as Patch
    from robustbench_local.attacks.pdpgd import PDPGD as PDPGD
    from robustbench_local.attacks.pgd import PGD as PGD
    from robustbench_local.attacks.replay import Replay as Replay
    from robustbench_local.attacks.sigma_zero import SigmaZero as SigmaZero
    from robustbench_local.attacks.sparse_autoattack import SparseAutoAttack as SparseAutoAttack
    from robustbench_local.attacks.sparse_l1 import SparseL1 as SparseL1
    from robustbench_local.attacks.sparse_rs import SparseRS as SparseRS
    from robustbench_local.attacks.spatial import Spatial as Spatial
    from robustbench_local.attacks.spgd import SPGD as SPGD
    from robustbench_local.attacks.spsa import SPSA as SPSA
    from robustbench_local.attacks.square import Square as Square
    from robustbench_local.attacks.substitute import Substitute as Substitute
    from robustbench_local.attacks.transfer import Transfer as Transfer
    from robustbench_local.attacks.universal import Universal as Universal

_GROUP = "robustbench_local.attacks"


def __getattr__(name: str) -> Any:
    """A class is loaded when it is first asked for (PEP 562): to name one attack loads no other."""
    if name in (places := _places()):
        value = globals()[name] = places[name].load()
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_places()})


def _places() -> dict[str, Any]:
    """The entry points of this package's own attacks, by the names of their classes."""
    return {point.attr: point for point in entry_points(group=_GROUP) if point.module.startswith(f"{__name__}.")}
