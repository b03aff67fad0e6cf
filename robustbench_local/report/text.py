"""Words on a page: names of strangers made harmless, flags explained, accuracies in percent."""

from __future__ import annotations

import re

DASH = "–"

FLAGS = {
    "near_tie": "The attack saw these images misclassified, but asked once more the model was right by a hair. They"
    " count as robust.",
    "no_gradient": "These images are robust, and every gradient that the attack asked for was zero or not finite:"
    " nothing led it, and an attack that needs no gradient may break them.",
    "nan_pixels": "The attack returned images with NaN pixels, which count as no success. The attack is at fault.",
    "outside_ball": "The attack left the ball on these images, which count as no success. The attack is at fault.",
    "nan_logits": "The model answers NaN to some images, which counts as an error of the model.",
    "probabilities": "The model returns probabilities, whose logarithms are taken. Where they round to 0 or 1 gradients"
    " vanish all the same, and robustness is overstated. (Of rows of earlier versions no logarithms were taken.)",
    "output_form": "The model returns its logits in another form, from which they were taken: in a tuple or dict the"
    " first, of halves float32, of one logit z for two classes (-z/2, z/2).",
    "below_declared": "Clean accuracy is less than the model is said to have: other images, a normalisation too many or"
    " too few, or other weights.",
    "extra_classes": "Most clean images are answered with classes that the data set does not have.",
    "at_chance": "On clean images the model is no better than chance, or has next to nothing of what other pixels or"
    " other numbers of the classes would give. Robustness means nothing here.",
    "input_range": "The model is right on many more clean images with pixels in another range or normalisation: it is"
    " not given what it was made for.",
    "class_order": "The model would be right on many more clean images, were its classes numbered otherwise.",
    "unchecked": "The budget is so small that nothing was asked to check the model: whether it is random, or changes.",
    "few_classes": "The judged images are of fewer classes than the data set has, and say nothing of the others.",
    "changed": "After the attack the model answered clean images differently than before it: it learns from what it"
    " is asked, or the attack altered it.",
    "writes_input": "The model writes into the images it is given. They are copies, so that no number is touched.",
    "undeclared_randomness": "The model answers the same question differently, though it says that it is not random.",
}
_UNKNOWN_FLAG = "Set by an attack or a check that this page has no explanation of."


def flag_name(flag: str) -> str:
    """ "near_tie" of "near_tie:3"."""
    return flag.partition(":")[0]


def explain(flag: str) -> str:
    return FLAGS.get(flag_name(flag), _UNKNOWN_FLAG)


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def interval(low: float, high: float, dash: str = "-") -> str:
    """ "42.1-48.3"."""
    return f"{percent(low)}{dash}{percent(high)}".replace("100.0", "100")


def slug(text: str) -> str:
    """A file name made of text: letters, digits and dashes."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")[:80] or "unnamed"
