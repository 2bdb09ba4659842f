"""`perimeter-agent mask`: files in, files out, checks, measurements."""

import argparse
import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from edge_agent.masking import commands

pytestmark = pytest.mark.presidio


def run(*arguments):
    parser = argparse.ArgumentParser()
    commands.add_arguments(parser.add_subparsers())
    args = parser.parse_args(["mask", *map(str, arguments)])
    return args.run(args)


def test_a_file_is_masked_line_by_line(tmp_path):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    texts = ["mail bob@example.com", "nothing here", "x" * 200_000]
    source.write_text(
        "\n".join(json.dumps({"id": i, "text": t}) for i, t in enumerate(texts)) + "\n"
    )
    assert run(source, "--out", target) == 0
    first, second, third = map(json.loads, target.read_text().splitlines())
    assert first == {
        "id": 0,
        "state": "masked",
        "masked": "mail <EMAIL_ADDRESS_1>",
        "spans": [{"start": 5, "end": 20, "type": "EMAIL_ADDRESS", "score": 1.0}],
        "reason": None,
    }
    assert second["masked"] == "nothing here"
    assert (third["state"], third["masked"], third["spans"]) == ("held", None, [])
    assert third["reason"].startswith("over-length")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("not json\n", "line 1 is no JSON"),
        ('{"id": 1}\n', "line 1 needs"),
        ("[1]\n", "line 1 needs"),
    ],
)
def test_a_bad_line_names_itself_and_leaves_no_output(tmp_path, capsys, content, told):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(content)
    assert run(source, "--out", target) == 2
    assert told in capsys.readouterr().err
    assert not target.exists()


def test_a_missing_file_and_a_missing_out_are_told(tmp_path, capsys):
    assert run(tmp_path / "none.jsonl", "--out", tmp_path / "x") == 2
    assert run(tmp_path / "none.jsonl") == 2
    assert "--out" in capsys.readouterr().err


def test_level_light_needs_a_signature(tmp_path, capsys):
    assert run(tmp_path / "x.jsonl", "--out", tmp_path / "y", "--level", "light") == 2
    assert "sign-off" in capsys.readouterr().err


def test_check_reports_canaries_digests_speed_and_recall(capsys):
    assert run("check") == 0
    told = capsys.readouterr().out
    for part in ("canaries     ok", "network      ok", "sha256", "ms for 300", "risk reduction"):
        assert part in told


def test_eval_prints_a_table_with_intervals(tmp_path, capsys):
    path = tmp_path / "labelled.parquet"
    rows = [
        {"text": "mail bob@example.com", "spans": [{"start": 5, "end": 20, "type": "EMAIL"}]},
        {"text": "all is well", "spans": []},
    ]
    kind = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("type", pa.string())])
    schema = pa.schema([("text", pa.string()), ("spans", pa.list_(kind))])
    parquet.write_table(pa.Table.from_pylist(rows, schema), path)
    assert run("eval", path) == 0
    told = capsys.readouterr().out
    assert "| spans fully masked | 1.000 | 0.207 to 1.000 | 1 |" in told
    assert "| over-masking (letters and digits) | 0.000 |" in told
