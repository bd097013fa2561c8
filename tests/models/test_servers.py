"""Servers in `workbench.toml`, the engines that their models get, and what these cost."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from workbench import api
from workbench.errors import ModelError, WorkspaceError
from workbench.models.engines import close_engines, get_engine, register_engine
from workbench.models.openai_wire import TokenCounts
from workbench.models.prices import find_price, is_loopback, is_private
from workbench.pipeline.pipeline import Pipeline
from workbench.pipeline.prompt import Prompt
from workbench.workspace import ServerSettings, Settings, current_settings, read_settings

URL = "http://localhost:8000/v1"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("workbench.workspace._opened", None)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    yield
    close_engines()


def _read(folder: Path, text: str) -> Settings:
    (folder / "workbench.toml").write_text(text)
    return read_settings(folder / "workbench.toml")


def test_a_server_needs_no_more_than_its_address(tmp_path: Path) -> None:
    server = _read(tmp_path, f'[servers.local]\nbase_url = "{URL}/"').server("local")
    assert server == ServerSettings(base_url=URL)
    assert (server.concurrency, server.timeout_s, server.patience_s, server.tries) == (64, 60, 300, 5)
    assert (server.key_env, server.max_tokens_field, server.structured) == (None, "max_tokens", True)


def test_openai_is_there_without_a_table_and_a_table_changes_only_what_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = Settings().server("openai")
    assert default is not None
    assert (default.base_url, default.key_env) == ("https://api.openai.com/v1", "OPENAI_API_KEY")
    assert default.max_tokens_field == "max_completion_tokens"
    changed = _read(tmp_path, "[servers.openai]\nconcurrency = 4").server("openai")
    assert changed == default.model_copy(update={"concurrency": 4})
    monkeypatch.setenv("OPENAI_BASE_URL", URL)
    elsewhere = Settings().server("openai")
    assert elsewhere == ServerSettings(base_url=URL, key_env="OPENAI_API_KEY")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://me:secret@host/v1")
    with pytest.raises(WorkspaceError, match="OPENAI_BASE_URL: must hold no user") as caught:
        Settings().server("openai")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        'base_url = "localhost:8000"',
        'base_url = "ftp://host/v1"',
        'base_url = "https://"',
        'base_url = "https://host:port/v1"',
        'base_url = "https://[::1/v1"',
        'base_url = "https://ho st/v1"',
        'base_url = "https://me:SECRET@host/v1"',
        'base_url = "https://@host/v1"',
        'base_url = "https://host/v1?key=SECRET"',
        'base_url = "https://host/v1#SECRET"',
        f'base_url = "{URL}"\nkey_env = "sk-SECRET"',
        f'base_url = "{URL}"\nkey_env = "gsk_SECRET"',
        f'base_url = "{URL}"\nkey_env = "aB3dE6gH9jK2mN5pSECRET8sT1vW4"',
        f'base_url = "{URL}"\nkey_env = "MY KEY SECRET"',
        f'base_url = "{URL}"\nkey_env = ""',
        f'base_url = "{URL}"\napi_key = "SECRET"',
        f'base_url = "{URL}"\nunknown = "SECRET"',
        f'base_url = "{URL}"\nconcurrency = 0',
        f'base_url = "{URL}"\ntimeout_s = inf',
        f'base_url = "{URL}"\ntries = 0',
        f'base_url = "{URL}"\ninput_usd_per_mtok = 1',
        f'base_url = "{URL}"\ninput_usd_per_mtok = -1\noutput_usd_per_mtok = 1',
        f'base_url = "{URL}"\nmax_tokens_field = "limit"',
        'key_env = "X"',
    ],
)
def test_what_is_refused_is_told_without_secrets(tmp_path: Path, line: str) -> None:
    with pytest.raises(WorkspaceError, match=r"servers\.local") as caught:
        _read(tmp_path, f"[servers.local]\n{line}")
    assert "SECRET" not in str(caught.value)
    fields = dict(pair.split(" = ") for pair in line.splitlines())
    with pytest.raises(ValidationError) as direct:
        ServerSettings.model_validate({name: value.strip('"') for name, value in fields.items()})
    assert "SECRET" not in str(direct.value)


@pytest.mark.parametrize("name", ["a:b", "Upper", "a/b", "a.b", "", "-x"])
def test_a_server_cannot_have_a_name_that_would_clash(tmp_path: Path, name: str) -> None:
    with pytest.raises(WorkspaceError, match="a server's name is"):
        _read(tmp_path, f'[servers."{name}"]\nbase_url = "{URL}"')


def test_names_of_variables_that_look_unusual_are_taken() -> None:
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "key", "_K2", "SK_LIVE", "MyServerKey"):
        assert ServerSettings(base_url=URL, key_env=name).key_env == name


def test_an_engine_is_kept_for_each_model_and_settings() -> None:
    settings = Settings(servers={"local": ServerSettings(base_url=URL)})
    engine = get_engine("local:qwen2.5:7b", "none", settings)
    assert engine.info.name == "local:qwen2.5:7b"
    assert get_engine("local:qwen2.5:7b", "auto", settings) is engine
    assert get_engine("local:other", "none", settings) is not engine
    slower = Settings(servers={"local": ServerSettings(base_url=URL, concurrency=2)})
    assert get_engine("local:qwen2.5:7b", "none", slower) is not engine
    with pytest.raises(ModelError, match="cannot be told to quantize"):
        get_engine("local:m", "int8", settings)
    adapted = Pipeline(model="local:m", adapter="sha256:" + "4" * 64, prompt=Prompt.from_text("{{ text }}"))
    with pytest.raises(ModelError, match="local:m runs on a server, which cannot be given the adapter 444444444444"):
        adapted.engine(settings)


def test_a_registered_engine_goes_before_a_server() -> None:
    class Fixed:
        def close(self) -> None: ...

    fixed: Any = Fixed()
    register_engine("openai:fixed", lambda name, quantization: fixed)
    assert get_engine("openai:fixed") is fixed


def test_an_unknown_server_says_what_to_write() -> None:
    with pytest.raises(ModelError, match=r"no server is called 'nowhere'") as caught:
        get_engine("nowhere:m", settings=Settings())
    assert caught.value.hint is not None
    lines = caught.value.hint.splitlines()
    assert lines[1:3] == ["[servers.nowhere]", 'base_url = "http://localhost:8000/v1"']
    assert lines[3].startswith("key_env = ")


def test_paths_and_hub_ids_are_no_servers() -> None:
    for name in ("./a:b", "org/name:x", "Model:7b"):
        with pytest.raises(ModelError) as caught:
            get_engine(name, settings=Settings())
        assert "no server" not in str(caught.value)


def test_settings_are_those_of_the_workspace_last_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two", "none"):
        (tmp_path / name).mkdir()
    for name in ("one", "two"):
        _read(tmp_path / name, f'[servers.{name}]\nbase_url = "{URL}"')
    monkeypatch.delenv("WORKBENCH_WORKSPACE", raising=False)
    monkeypatch.chdir(tmp_path / "none")
    assert current_settings() == Settings()
    monkeypatch.chdir(tmp_path / "one")
    assert list(current_settings().servers) == ["one"]
    pipeline = Pipeline(model="two:m", prompt=Prompt.from_text("{{ text }}"))
    with pytest.raises(ModelError, match="no server is called 'two'"):
        pipeline.engine()
    workspace = api.open(tmp_path / "two")
    assert pipeline.engine().info.name == "two:m"
    assert pipeline.engine(workspace.layout.settings) is pipeline.engine()
    with pytest.raises(ModelError, match="no server is called 'two'"):
        pipeline.engine(read_settings(tmp_path / "one" / "workbench.toml"))
    monkeypatch.chdir(tmp_path / "none")
    (tmp_path / "none" / "workbench.toml").write_text("[servers")
    monkeypatch.setattr("workbench.workspace._opened", None)
    with pytest.raises(WorkspaceError, match="must be TOML"):
        current_settings()


def test_prices_come_from_the_settings_then_from_genai_prices_and_never_from_the_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    openai = Settings().server("openai")
    assert openai is not None
    known = find_price(openai, "gpt-4o-mini")
    assert known is not None
    # OpenAI's list: 0.15 dollars a million prompt tokens, 0.075 where cached, 0.60 for the answer.
    assert known(TokenCounts(1_000_000, 0)) == pytest.approx(0.15)
    assert known(TokenCounts(1_000_000, 1_000_000)) == pytest.approx(0.75)
    assert known(TokenCounts(1_000_000, 0, cached=1_000_000)) == pytest.approx(0.075)
    own = find_price(openai.model_copy(update={"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0}), "gpt-4o-mini")
    assert own is not None
    assert own(TokenCounts(1_000_000, 1_000_000)) == 3.0
    assert find_price(openai, "no-such-model") is None
    assert find_price(ServerSettings(base_url="https://llm.example.com/v1"), "gpt-4o-mini") is None
    free = find_price(ServerSettings(base_url="http://10.0.0.7/v1"), "gpt-4o-mini")
    assert free is not None
    assert free(TokenCounts(1_000_000, 1_000_000)) == 0


@pytest.mark.parametrize(
    ("host", "loopback", "private"),
    [
        ("localhost:8000", True, True),
        ("127.0.0.1", True, True),
        ("127.9.9.9", True, True),
        ("[::1]:80", True, True),
        ("10.1.2.3", False, True),
        ("192.168.0.9:1", False, True),
        ("[fd00::1]", False, True),
        ("vllm:8000", False, True),
        ("gpu.internal", False, True),
        ("8.8.8.8", False, False),
        ("api.openai.com", False, False),
        ("localhost.example.com", False, False),
        ("127.0.0.1.example.com", False, False),
    ],
)
def test_which_servers_are_here_and_which_are_private(host: str, loopback: bool, private: bool) -> None:
    url = f"http://{host}/v1"
    assert (is_loopback(url), is_private(url)) == (loopback, private)


def test_the_servers_of_the_guide_are_valid(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "models.md").read_text("utf-8")
    settings = _read(tmp_path, guide.split("```toml\n")[1].split("```")[0])
    assert list(settings.servers) == ["openai", "vllm", "ollama", "llamacpp", "groq"]
    for name in ServerSettings.model_fields:
        assert f"`{name}`" in guide
