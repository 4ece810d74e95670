"""What eight and four bits make of a weight."""

from __future__ import annotations

import pytest
import torch

from engine.quantization import GROUPS, quantize_int4, quantize_int8


def test_int8_is_off_by_half_a_level_at_most() -> None:
    weight = torch.randn(40, 96, generator=torch.Generator().manual_seed(1))
    weight[3] = 0.0
    rows = quantize_int8(weight)
    error = (rows.dense(torch.float32) - weight).abs()
    # The scale is rounded to bfloat16, so that the greatest value of a row may lie half a per cent past the last level.
    limit = rows.scales.float()[:, None] / 2 + weight.abs().amax(1, keepdim=True) * 2**-8
    assert (error <= limit).all()
    assert torch.equal(rows.dense(torch.float32)[3], torch.zeros(96))
    assert rows.values.abs().max() <= 127


def test_no_int8_value_needs_a_bound_however_the_scale_was_rounded() -> None:
    """Every greatest value between two powers of two, at the edges of what bfloat16 rounds down and up."""
    largest = 1 + torch.arange(2**13) / 2**13
    weight = torch.stack((largest, -largest, largest / 2), dim=1) * 127
    rows = quantize_int8(torch.cat((weight, weight * 2**-130)))
    assert rows.values.min() == -127
    assert rows.values.max() == 127


def test_int8_rows_come_with_the_sums_of_their_values() -> None:
    rows = quantize_int8(torch.randn(40, 8_192, generator=torch.Generator().manual_seed(4)) + 3)
    assert torch.equal(rows.sums, rows.values.sum(1, dtype=torch.int32))


def test_rows_of_an_int8_table_are_those_of_the_matrix() -> None:
    table = quantize_int8(torch.randn(30, 16))
    ids = torch.tensor([29, 0, 7, 7])
    assert torch.equal(table.rows(ids), table.dense(torch.float32)[ids])


@pytest.mark.parametrize("group", GROUPS)
def test_int4_is_off_by_half_a_level_at_most(group: int) -> None:
    weight = torch.randn(24, 256, generator=torch.Generator().manual_seed(2)) + 0.3
    weight[5, :group] = 0.25  # a group without spread
    groups = quantize_int4(weight, group)
    assert groups.values.max() <= 15
    assert groups.scales.shape == groups.offsets.shape == (24, 256 // group)
    spread = weight.view(24, -1, group)
    span = spread.amax(2) - spread.amin(2)
    limit = span / 30 + 2**-7 * (span + spread.abs().amax(2))  # half a level, and two roundings to bfloat16
    error = (groups.dense(torch.float32) - weight).abs().view(24, -1, group).amax(2)
    assert (error <= limit).all()


def test_smaller_groups_are_more_exact() -> None:
    weight = torch.randn(64, 512, generator=torch.Generator().manual_seed(3))
    errors = [float((quantize_int4(weight, group).dense(torch.float32) - weight).square().mean()) for group in GROUPS]
    assert errors == sorted(errors)


def test_a_group_that_does_not_divide_the_inputs_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 32 inputs, not 40"):
        quantize_int4(torch.zeros(4, 40), 32)
