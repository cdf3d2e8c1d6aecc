"""What a recipe can leave out: each part alone against its definition."""

import pytest
import torch

from geojepa.model.config import ModelConfig
from geojepa.model.tokenizer import Position


@pytest.mark.parametrize(
    ("told", "untold"), [(("position",), "modality"), (("modality",), "position")]
)
def test_an_encoding_that_is_left_out_tells_nothing_and_the_other_still_does(told, untold):
    torch.manual_seed(0)
    position = Position(ModelConfig("gti", width=24, heads=2, encodings=told)).eval()
    box, modality = torch.rand(5, 8), torch.tensor([0, 1, 0, 1, 1], dtype=torch.uint8)
    plain = position(box, modality)
    other = {
        "position": position(box.flip(0) + 0.1, modality),
        "modality": position(box, 1 - modality),
    }
    torch.testing.assert_close(other[untold], plain, rtol=0, atol=0)
    assert not torch.isclose(other[told[0]], plain).all(dim=1).any()
    # what nobody is told, nobody learns
    plain.square().sum().backward()
    left_out = {"position": position.box, "modality": position.modality}[untold]
    assert all(p.grad is None or p.grad.eq(0).all() for p in left_out.parameters())
