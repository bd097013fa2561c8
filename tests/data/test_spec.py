"""dataset.toml: what it holds, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.data.spec import DatasetSpec, make_spec
from workbench.errors import DataError, UsageError

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(description=text, seed=text, columns=st.lists(text, min_size=3, max_size=5, unique=True), split=text)
def test_toml_gives_back_an_equal_spec(
    tmp_path_factory: pytest.TempPathFactory, description: str, seed: str, columns: list[str], split: str
) -> None:
    first, second, *inputs = columns
    spec = DatasetSpec(
        name="mine",
        description=description,
        id=first,
        target=(second,),
        input=tuple(inputs),
        splits={split: 0.25, split + "2": 0.75},
        split_seed=seed,
    )
    path = tmp_path_factory.mktemp("spec") / "dataset.toml"
    path.write_text(spec.to_toml(), encoding="utf-8", newline="")
    assert DatasetSpec.from_toml(path) == spec


def test_the_defaults_are_train_dev_and_test() -> None:
    assert DatasetSpec(name="mine").splits == {"train": 0.4, "dev": 0.2, "test": 0.4}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "../up"}, "a name is"),
        ({"name": "a", "splits": {"train": 0.5, "test": 0.4}}, "sum to 0.9"),
        ({"name": "a", "splits": {"train": 1.5, "test": -0.5}}, "share above 0"),
        ({"name": "a", "file": "../elsewhere.jsonl"}, "own folder"),
        ({"name": "a", "input": ("x",), "target": ("x",)}, "plays another part"),
        ({"name": "a", "input": ("x", "x")}, "named twice"),
        ({"name": "a", "tagret": ("x",)}, "tagret"),
    ],
)
def test_what_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_spec(**fields)
    assert said in str(caught.value)


@pytest.mark.parametrize(("content", "said"), [("name = ", "Invalid value"), ('name = "a"\nsplit = 1\n', "split")])
def test_a_malformed_file_is_named(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "dataset.toml"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        DatasetSpec.from_toml(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)
