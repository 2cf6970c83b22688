"""The home of plans, logs and the server: private, and a clear word where there can be none."""

from __future__ import annotations

import stat

import pytest

from flows.home import MAX_RAY_FOLDER_BYTES, open_home, private_file, ray_folder, shorten_ray_folder
from flows.parameters import GenerateParameters
from flows.session import Session
from flows.settings import Settings
from lyra_core.errors import ConfigError, ManifestError


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_made_is_private(tmp_path, make_seeds):
    (tmp_path / "home" / "plans").mkdir(parents=True)
    (tmp_path / "home").chmod(0o755)
    (tmp_path / "home" / "plans").chmod(0o755)
    (tmp_path / "home" / "seed-digests.sqlite").touch(mode=0o644)
    settings = Settings(home=tmp_path / "home")
    parameters = GenerateParameters(seeds=[str(make_seeds("a.png"))], out=str(tmp_path / "out"), run_id="run")
    Session.planned(parameters, settings)
    made = sorted((tmp_path / "home").rglob("*"))
    assert {path.name for path in made} >= {"plans", "logs", "prefect", "scratch", "run.jsonl"}
    for path in made:
        assert mode(path) & 0o077 == 0, path
    assert mode(tmp_path / "home") == 0o755, "an existing home may hold other things"
    assert mode(open_home(tmp_path / "new")) == 0o700


def test_a_plan_that_fails_leaves_nothing(tmp_path):
    parameters = GenerateParameters(seeds=[str(tmp_path / "nowhere")], out=str(tmp_path / "out"))
    with pytest.raises(ManifestError):
        Session.planned(parameters, Settings(home=tmp_path / "home"))
    assert not list((tmp_path / "home" / "plans").iterdir())


@pytest.mark.parametrize("place", ["/proc/nohome", "file", "file/below", "taken"])
def test_no_home_is_one_sentence(place, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "plans").write_text("x")
    with pytest.raises(ConfigError, match=r"home: wanted a folder.*set LYRA_HOME to a folder that you can write"):
        open_home(tmp_path / place)
    with pytest.raises(ConfigError, match="home: wanted to write"):
        private_file(tmp_path / "file" / "log")


def test_a_user_without_home_directory_is_told_the_setting(monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 123456)
    with pytest.raises(ConfigError, match=r"no home directory of this user.*set LYRA_HOME"):
        _ = Settings().home_path


@pytest.mark.parametrize("command", ["run", "dry", "up", "down", "doctor"])
@pytest.mark.parametrize("home", ["/proc/nohome", "file"])
def test_commands_without_a_home(lyra, make_seeds, tmp_path, command, home):
    (tmp_path / "file").write_text("x")
    folder = make_seeds("a.png")
    arguments = {
        "run": ["run", folder, "--out", "w", "--ray", "off"],
        "dry": ["run", folder, "--out", "w", "--dry-run"],
    }.get(command, [command])
    finished = lyra(*arguments, LYRA_HOME=home if home.startswith("/") else str(tmp_path / home))
    assert "Traceback" not in finished.err
    assert finished.code == {"down": 0, "doctor": 1}.get(command, 2), finished.err
    if command != "down":
        assert "set LYRA_HOME to a folder that you can write" in " ".join((finished.out + finished.err).split())
    assert not (tmp_path / "w").exists()


def test_sockets_of_ray_find_a_short_folder():
    long = "/scratch/" + "x" * 60
    environment = {"TMPDIR": long}
    shorten_ray_folder(environment)
    assert ray_folder(environment) == "/tmp"
    assert environment["TMPDIR"] == long
    short = {"TMPDIR": "/" + "x" * (MAX_RAY_FOLDER_BYTES - 1)}
    shorten_ray_folder(short)
    assert "RAY_TMPDIR" not in short
    with pytest.raises(ConfigError, match="RAY_TMPDIR: Ray's sockets need a folder whose name has at most"):
        shorten_ray_folder({"RAY_TMPDIR": long})


def test_doctor_sees_proxies_folders_and_clusters(lyra, tmp_path):
    long = tmp_path / ("x" * 60)
    long.mkdir()
    environment = {"http_proxy": "http://127.0.0.1:9", "no_proxy": "example.org", "NO_PROXY": "", "TMPDIR": str(long)}
    findings = {f["name"]: f for f in lyra("doctor", "--json", **environment).json["findings"]}
    assert findings["proxy"]["level"] == "warning"
    assert 'export no_proxy="127.0.0.1,localhost,::1,$no_proxy"' in findings["proxy"]["do"]
    assert findings["cluster"]["level"] == "warning"
    assert "RAY_TMPDIR" in findings["cluster"]["do"]
    assert findings["home"]["level"] == "ok"
    exported = {f["name"]: f for f in lyra("doctor", "--json", RAY_ADDRESS="auto").json["findings"]}
    assert "RAY_ADDRESS" in exported["cluster"]["found"]
    assert exported["proxy"]["level"] == "ok"


def test_an_exported_cluster_is_named_in_the_error(lyra, make_seeds):
    finished = lyra("run", make_seeds("a.png"), "--out", "w", "--dry-run", RAY_ADDRESS="auto")
    assert finished.code == 2
    assert "RAY_ADDRESS" in finished.err
    assert lyra("run", make_seeds("a.png"), "--out", "w", "--dry-run", "--ray", "local", RAY_ADDRESS="auto").code == 0
