"""What training makes small: distance from the right answers, and from a teacher's."""

from torch import Tensor
from torch.nn import functional

from .mixing import Mix, partners
from .recipe import Recipe


def losses(
    logits: Tensor, targets: Tensor, *, recipe: Recipe, mix: Mix | None = None, teacher: Tensor | None = None
) -> Tensor:
    """Give each image's loss.

    Args:
        logits: (images, classes), or (images, 2, classes) of a network with a distillation token.
        targets: (images,) the right classes.
        recipe: Its label smoothing and distillation.
        mix: How the images were mixed, where they were.
        teacher: (images, classes) logits of the teacher for the same images, where there is one.

    Returns:
        (images,) float32.
    """
    own, student = (logits[:, 0], logits[:, 1]) if logits.ndim == 3 else (logits, logits)
    right = _against(own.float(), targets, recipe, mix)
    if teacher is None:
        return right if logits.ndim == 2 else (right + _against(student.float(), targets, recipe, mix)) / 2
    if recipe.distillation == "hard":
        # Touvron et al. 2021, eq. 3: the teacher's answer is taken for the right one.
        taught = functional.cross_entropy(
            student.float(),
            teacher.argmax(dim=1),
            label_smoothing=recipe.label_smoothing,
            reduction="none",
        )
    else:
        # Hinton et al. 2015, section 2: gradients of soft targets shrink by the square of the temperature.
        t = recipe.temperature
        taught = (
            t
            * t
            * functional.kl_div(
                functional.log_softmax(student.float() / t, dim=1),
                functional.log_softmax(teacher.float() / t, dim=1),
                reduction="none",
                log_target=True,
            ).sum(dim=1)
        )
    weight = recipe.distillation_weight
    return (1 - weight) * right + weight * taught


def _against(logits: Tensor, targets: Tensor, recipe: Recipe, mix: Mix | None) -> Tensor:
    def loss(answers: Tensor) -> Tensor:
        return functional.cross_entropy(
            logits, answers, label_smoothing=recipe.label_smoothing, reduction="none"
        )

    if mix is None:
        return loss(targets)
    shares = mix.shares.to(logits)
    return shares * loss(targets) + (1 - shares) * loss(targets[partners(len(targets)).to(targets.device)])
