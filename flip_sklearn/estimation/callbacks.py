"""scikit-learn's callback protocol (1.9 and later); on older versions callbacks do nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    from sklearn.callback import CallbackSupportMixin as CallbackSupportMixin
    from sklearn.callback import with_callbacks as with_callbacks
except ImportError:  # scikit-learn < 1.9 has no callbacks: fit runs the same without them

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Replaces scikit-learn's mixin where it does not exist."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method unchanged."""
        return method


class PassCallbacks:
    """Reports the passes of a fit to the estimator's callbacks, each as a subtask of the fit."""

    def __init__(self, estimator: Any, X: Any, Y: Any, sample_weight: Any, max_iter: int) -> None:
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        self._arguments = {"estimator": estimator, "X": X, "y": Y, "metadata": metadata}
        make_context = getattr(estimator, "_init_callback_context", None)
        self._fit = make_context(max_subtasks=max_iter) if make_context else None
        self._pass: Any = None
        if self._fit is not None:
            self._fit.call_on_fit_task_begin(**self._arguments)

    def before_pass(self) -> None:
        """Report that a pass begins."""
        if self._fit is not None:
            self._pass = self._fit.subcontext(task_name="pass")
            self._pass.call_on_fit_task_begin(**self._arguments)

    def after_pass(self, fitted_attributes: Callable[[], dict[str, Any]]) -> bool:
        """Report that a pass has ended; return True if a callback asks to stop."""
        if self._pass is None:
            return False
        return bool(
            self._pass.call_on_fit_task_end(**self._arguments, reconstruction_attributes=fitted_attributes)
        )

    def done(self, fitted_attributes: Callable[[], dict[str, Any]]) -> None:
        """Report that the fit has ended."""
        if self._fit is not None:
            self._fit.call_on_fit_task_end(**self._arguments, reconstruction_attributes=fitted_attributes)
