"""Attention written out for the tests: a softmax over a mask of pairs, in any dtype."""

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Triton's interpreter computes bfloat16 wrongly
DTYPES = [torch.float32, torch.float16] + [torch.bfloat16] * torch.cuda.is_available()


def offsets(lengths):
    """Offsets (sequences + 1,) int32 of lengths."""
    return torch.tensor([0, *lengths], device=DEVICE).cumsum(0).int()


def draw(*shape, seed=0, dtype=torch.float32):
    """Normal numbers that depend on the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(DEVICE, dtype)


def by_pairs(q, k, v, sees, scale=None, factors=None):
    """softmax(scale q k' where sees) v, head by head; a query that sees nothing gets zeros.

    Shapes: q (n, heads, d), k and v (m, heads, d), sees (n, m) bool, factors (heads, n, m) or None.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.einsum("qhd,khd->hqk", q, k) * scale
    scores = scores.masked_fill(~sees, torch.finfo(q.dtype).min)
    weights = scores.softmax(-1) * sees
    if factors is not None:
        weights = weights * factors
    return torch.einsum("hqk,khd->qhd", weights.to(v.dtype), v)


def same_sequence(queries, keys):
    """(n, m) bool: whether query and key are of one sequence."""
    owners = (
        torch.arange(len(n), device=DEVICE).repeat_interleave(torch.tensor(n, device=DEVICE))
        for n in (queries, keys)
    )
    owner_q, owner_k = owners
    return owner_q[:, None] == owner_k


def same_tile(contexts, sets):
    """(n, n) bool: the rule of shared-context attention, for contexts [n] and sets [[n] * M]."""
    tile = [t for t, n in enumerate(contexts) for _ in range(n)]
    owner = [-1] * len(tile)
    for t, lengths in enumerate(sets):
        for m, n in enumerate(lengths):
            tile += [t] * n
            owner += [m] * n
    tile, owner = (torch.tensor(x, device=DEVICE) for x in (tile, owner))
    return (tile[:, None] == tile) & ((owner == -1) | (owner[:, None] == owner))


def values_and_gradients(function, inputs, grad):
    """The output of function(*inputs) and the gradients of the inputs, for `grad` of the output."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    out = function(*leaves)
    out.backward(grad.to(out.dtype))
    return [out.detach(), *(x.grad for x in leaves)]


def assert_as_exact_as_torch(function, inputs, sees, scale=None, seed=99):
    """Output and gradients are at most twice as far from float64 as plain PyTorch's are.

    Half a unit in the last place, which storing the result costs anyone, is granted beside, and
    eight units of float32 at 1 or the largest: with one key the terms of dq cancel, in plain
    PyTorch exactly, and a GPU's exponential is an approximation.
    """
    grad = draw(*inputs[0].shape, seed=seed, dtype=inputs[0].dtype)
    ours = values_and_gradients(function, inputs, grad)
    theirs = values_and_gradients(lambda *qkv: by_pairs(*qkv, sees, scale), inputs, grad)
    doubles = [x.double() for x in inputs]
    exact = values_and_gradients(lambda *qkv: by_pairs(*qkv, sees, scale), doubles, grad)
    for name, x, y, z in zip(("out", "dq", "dk", "dv"), ours, theirs, exact, strict=True):
        assert x.isfinite().all(), name
        if z.numel():
            ulp = torch.finfo(x.dtype).eps * z.abs().max().item()
            granted = ulp / 2 + 8 * torch.finfo(torch.float32).eps * max(1, z.abs().max().item())
            error, budget = (x - z).abs().max().item(), 2 * (y - z).abs().max().item() + granted
            assert error <= budget, f"{name}: {error:.2e} > {budget:.2e}"
