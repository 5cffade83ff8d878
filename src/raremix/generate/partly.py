"""A module of which some parameters are trained, averaged and kept; the rest stays as it was, and is kept nowhere."""

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

SEPARATOR = "/"
"""Between the parts of a parameter's name: torch keeps the dot for modules."""


class Partly(nn.Module):
    """Train the parameters of a module that a rule names; its state is theirs alone.

    A copy, such as a moving average, has values of its own for these and shares the rest, so that averaging a few
    thousand numbers of a large network costs a few thousand numbers.

    Args:
        whole: the module; what is not trained is frozen in place.
        is_trained: whether a parameter of this name is trained.

    Example:
        >>> part = Partly(nn.Linear(2, 3), lambda name: name == "bias")
        >>> sorted(part.state_dict())
        ['bias']
    """

    def __init__(self, whole: nn.Module, is_trained: Callable[[str], bool]) -> None:
        super().__init__()
        # In a tuple: a module that is registered would be saved, averaged and copied whole.
        self._whole = (whole,)
        self._is_live = True
        for name, parameter in whole.named_parameters():
            parameter.requires_grad_(is_trained(name))
            if is_trained(name):
                self.register_parameter(name.replace(".", SEPARATOR), parameter)

    @property
    def whole(self) -> nn.Module:
        """The module; of a copy it is the original's, with the original's values."""
        return self._whole[0]

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """Call the module with these values."""
        if self._is_live:
            return self.whole(*arguments, **options)
        values: dict[str, Tensor] = {name.replace(SEPARATOR, "."): value for name, value in self.named_parameters()}
        was = self.whole.training
        self.whole.eval()
        try:
            return functional_call(self.whole, values, arguments, options)
        finally:
            self.whole.train(was)

    def train(self, mode: bool = True) -> "Partly":
        """Set training mode, of the module too, but for copies: those always call it in evaluation mode."""
        super().train(mode)
        if self._is_live:
            self.whole.train(mode)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Partly":
        # What is not registered must move along; the parameters in both places are one and the same object.
        super()._apply(fn, recurse)
        self.whole._apply(fn, recurse)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Partly":
        """Copy the trained values, and share the rest."""
        other = Partly.__new__(Partly)
        nn.Module.__init__(other)
        other._whole, other._is_live = self._whole, False
        for name, parameter in self._parameters.items():
            assert parameter is not None
            other.register_parameter(name, nn.Parameter(copy.deepcopy(parameter.data), parameter.requires_grad))
        return other.train(self.training)
