"""Which implementation of an operation runs."""

import os

from torch import Tensor

IMPLS = ("auto", "triton", "reference")


def interprets() -> bool:
    """Whether Triton runs its kernels in Python on the CPU (TRITON_INTERPRET=1)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def uses_triton(impl: str, tensor: Tensor, is_covered: bool = True) -> bool:
    """Whether the Triton kernel computes on `tensor`, or the plain PyTorch reference does.

    Args:
        impl: "auto" for the kernel on a GPU and the reference elsewhere, or one by name.
        tensor: an input; all are on its device.
        is_covered: whether the kernel is made for such inputs; if not, "auto" takes the reference.

    Raises:
        ValueError: an unknown impl, or "triton" where the kernel cannot run.
    """
    if impl not in IMPLS:
        raise ValueError(f"impl={impl!r} does not exist: choose one of {', '.join(IMPLS)}")
    if impl != "triton":
        return impl == "auto" and tensor.is_cuda and is_covered
    if not is_covered:
        raise ValueError("impl='triton' is not made for such inputs: choose 'auto' or 'reference'")
    if not (tensor.is_cuda or interprets()):
        raise ValueError("impl='triton' needs tensors on a GPU, or TRITON_INTERPRET=1 for a trial")
    return True
