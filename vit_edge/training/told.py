"""What a run tells of itself as it goes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """A step that has just been made.

    Attributes:
        step, steps: Its number from 1, and how many the whole run has.
        epoch: The epoch that it is in, from 1.
        loss: The mean loss of its images.
        learning_rate: Its rate.
        images_per_second: Since the epoch began, or was gone on with.
        seconds_left: For the run's remaining steps at that pace, without validations.
    """

    step: int
    steps: int
    epoch: int
    loss: float
    learning_rate: float
    images_per_second: float
    seconds_left: float


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training images, and what the network can do after it.

    Attributes:
        epoch: Its number, from 1.
        epochs: How many there will be.
        loss: The mean training loss, with label smoothing and changed images.
        val_loss: The mean loss on the validation images, plain.
        val_accuracy: The share of validation images whose likeliest class is the right one.
        learning_rate: That of its last step.
        images_per_second: Training images, without the validation.
        seconds_left: For the remaining epochs, at the pace so far.
        best: Whether it is the best so far, and so was written to `BEST`.
    """

    epoch: int
    epochs: int
    loss: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    images_per_second: float
    seconds_left: float
    best: bool
