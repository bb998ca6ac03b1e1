"""The one exception hierarchy of the project.

Every error a user can cause or meet carries a headline (what happened, with which values) and a
next action (what to do about it). Each class also inherits the standard type a Python programmer
would expect to catch. The command line prints both lines and exits with `exit_code`; nobody sees
a traceback for these.
"""

from __future__ import annotations


class FarmError(Exception):
    """Base of all errors meant for users.

    Args:
        headline: What happened, in one sentence, with the values involved.
        next_action: What the user can do now; empty only when there is nothing to do.
    """

    exit_code = 1
    transient = False
    """Whether the same again may well succeed with nothing changed (a machine failed, not the input)."""

    def __init__(self, headline: str, next_action: str = "") -> None:
        super().__init__(headline)
        self.headline = headline
        self.next_action = next_action

    def __str__(self) -> str:
        """Both lines, so that a log or a Prefect state message is as helpful as the terminal."""
        return f"{self.headline}\n  → {self.next_action}" if self.next_action else self.headline

    def __reduce__(self) -> tuple[type[FarmError], tuple[str, str]]:
        """Keep both arguments when an error crosses a process boundary."""
        return type(self), (self.headline, self.next_action)


class UsageError(FarmError, ValueError):
    """The command, a flag or an argument is wrong."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting has an unknown name, a wrong type or a value that contradicts another one."""


class DataError(FarmError, ValueError):
    """Input rows are missing, malformed or too few; the headline names file, row and field."""

    exit_code = 2


class ModelError(FarmError, ValueError):
    """A model folder or tokenizer cannot be used as asked."""

    exit_code = 2


class StoreError(FarmError, OSError):
    """The artifact store cannot be read or written."""


class ArtifactNotFoundError(StoreError, LookupError):
    """No artifact has the given name, version, alias or fingerprint."""

    exit_code = 2


class ArtifactDamagedError(StoreError):
    """An artifact's files do not match its manifest."""


class TrainingDivergedError(FarmError, ArithmeticError):
    """A loss, gradient or reward became NaN or infinite; the last good checkpoint is kept."""


class TrainingStoppedError(FarmError, RuntimeError):
    """Training ended early in good order (its deadline); the checkpoint is kept."""


class OutOfMemoryError(FarmError, MemoryError):
    """Memory ran out, or the system killed a training process for it; the last checkpoint is kept."""


class TrainingProcessError(FarmError, RuntimeError):
    """A training process was lost for a reason outside the training: a signal, a dead machine, no rendezvous."""

    transient = True


class AnnotationError(FarmError, RuntimeError):
    """A judge cannot be used: wrong key, unknown model, or a request it refuses for good."""


class MissingAnnotationsError(AnnotationError):
    """More examples are without annotation than `max_missing` allows; what was paid for is kept."""

    exit_code = 4


class BudgetReachedError(AnnotationError):
    """The spending cap was reached; everything bought so far is kept and the run can go on later."""

    exit_code = 3


class ServerAwayError(FarmError, ConnectionError):
    """Prefect's server does not answer; what was finished is kept."""

    transient = True


class RegressionError(FarmError, RuntimeError):
    """A model fell, or the judge drifted, by more than the settings allow; everything was measured and noted."""

    exit_code = 5
