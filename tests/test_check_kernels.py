"""Every kernel compiles for GPUs that are not here, within the committed table."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from geojepa_kernels.check import KEY, TARGETS, faults, names, read_table, write_table

TABLE = Path(__file__).parents[1] / "results/kernels/compiled.csv"


def row(**changes):
    """A row without a fault."""
    names = ("kernel", "dtype", "head_dim", "config", "target")
    numbers = ("registers", "spill_bytes", "shared_bytes", "tensor_core_instructions")
    plain = dict(zip(names, ("forward", "bf16", "48", "plain", "sm_90"), strict=True))
    return plain | dict(zip(numbers, ("128", "0", "40960", "8"), strict=True)) | changes


def check(*arguments):
    """The checker as `make check-kernels` runs it, without the interpreter."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "geojepa_kernels.check", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(
    ("changes", "known", "message"),
    [
        ({}, {}, None),
        ({"spill_bytes": "8"}, {"spill_bytes": "8"}, "spills 8 bytes"),
        ({"spill_bytes": "8", "head_dim": "96"}, {"spill_bytes": "8", "head_dim": "96"}, None),
        ({"spill_bytes": "8", "dtype": "fp32"}, {"spill_bytes": "8", "dtype": "fp32"}, None),
        ({"registers": "129"}, {}, "registers grew from 128 to 129"),
        ({"registers": "127"}, {}, None),
        ({"shared_bytes": "300000"}, {"shared_bytes": "300000"}, "the limit is 232448"),
        ({"config": "new"}, {}, "not in the table"),
    ],
    ids=str,
)
def test_faults_are_found(changes, known, message):
    table = row(**known)
    found = list(faults([row(**changes)], {tuple(table[column] for column in KEY): table}))
    assert len(found) == (message is not None)
    assert message is None or message in found[0]


def test_the_table_has_every_configuration_and_no_other():
    wanted = {f"{name}/{target}" for name in names() for target in TARGETS}
    found = {"/".join(part for part in key if part) for key in read_table(TABLE)}
    assert found == wanted


def test_the_table_itself_is_without_fault():
    table = read_table(TABLE)
    assert list(faults(table.values(), table)) == []
    half = [r for r in table.values() if r["dtype"] in ("bf16", "fp16")]
    attends = [r for r in half if r["kernel"] in ("forward", "backward")]
    assert attends
    assert all(int(r["tensor_core_instructions"]) for r in attends)


def test_what_is_compiled_now_is_within_the_table():
    for words in (("bf16/48/plain", "4w", "sm_90"), ("bf16/24/shared", "4w", "sm_90"), ("area_4",)):
        done = check(TABLE, "--only", *words)
        assert done.returncode == 0, done.stderr
        assert " 0 faults" in done.stdout


def test_growth_fails_and_is_named(tmp_path):
    table = read_table(TABLE)
    small = tmp_path / "compiled.csv"
    for key, known in table.items():
        if key[:3] == ("forward", "bf16", "24"):
            known["registers"] = "16"
    write_table(small, table.values())
    done = check(small, "--only", "forward/bf16/24/plain 64x64 4w 2s/sm_90")
    assert done.returncode == 1
    assert "registers grew from 16" in done.stderr


def test_the_interpreter_cannot_stand_in_for_the_compiler():
    done = subprocess.run(
        [sys.executable, "-m", "geojepa_kernels.check", str(TABLE)],
        capture_output=True,
        text=True,
        env=os.environ | {"TRITON_INTERPRET": "1"},
    )
    assert done.returncode == 2
    assert "unset it" in done.stderr
