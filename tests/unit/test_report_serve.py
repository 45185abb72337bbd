"""What is given out while a run goes on, and to whom."""

import asyncio

import aiohttp
import pytest

from tests.report_runs import add_instance, begin
from vlmteach.report import __main__ as command
from vlmteach.report.serve import Pages, serve


@pytest.fixture
def run(tmp_path):
    run = begin(tmp_path / "run")
    add_instance(run, "a", clips=True)
    return run


def ask(run, *requests):
    """The answers, as (status, text), to (method, path, headers) of a server of the run."""

    async def talk():
        pages, ready = Pages([run]), asyncio.Event()
        told = []

        def tell(address: str) -> None:
            told.append(address)
            ready.set()

        server = asyncio.create_task(serve(pages, tell))
        await ready.wait()
        answers = []
        async with aiohttp.ClientSession() as session:
            for method, path, headers in requests:
                where = f"http://127.0.0.1:{pages.port}{path}"
                async with session.request(method, where, headers=headers) as answer:
                    answers.append((answer, await answer.read()))
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)
        assert told == [f"http://127.0.0.1:{pages.port}/"]
        return answers

    return asyncio.run(talk())


def test_the_page_its_clips_and_parts_of_them(run):
    clip = (run / "a" / "clip.mp4").read_bytes()
    (page, text), (_, whole), (part, some) = ask(
        run,
        ("GET", "/", {}),
        ("GET", "/a/clip.mp4", {}),
        ("GET", "/a/clip.mp4", {"Range": "bytes=10-19"}),
    )
    assert page.status == 200
    assert b"connect-src &#39;self&#39;" in text
    assert (whole, part.status, some) == (clip, 206, clip[10:20])


def test_a_page_that_is_the_same_is_not_sent_again(run):
    ((page, _),) = ask(run, ("GET", "/", {}))
    ((again, text),) = ask(run, ("GET", "/", {"If-None-Match": page.headers["ETag"]}))
    assert (again.status, text) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/a/",
        "/a/fit.json",
        "/a/done.json",
        "/config.yaml",
        "/a/adapter.safetensors",
        "/../run/a/clip.mp4",
        "/%2e%2e/other/clip.mp4",
        "/a/..%2fa/clip.mp4",
        "/linked/clip.mp4",
        "/b/clip.mp4",
        "/clip.mp4",
        "/.claims/clip.mp4",
    ],
)
def test_nothing_else_of_the_disk_is_given_out(run, tmp_path, path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "clip.mp4").write_bytes(b"secret")
    (run / "linked").symlink_to(other)
    (run / "b").mkdir()
    (run / "b" / "clip.mp4").symlink_to(other / "clip.mp4")
    ((answer, _),) = ask(run, ("GET", path, {}))
    assert answer.status == 404


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"Host": "evil.example"}, 403),
        ("GET", {"Host": "127.0.0.1"}, 403),
        ("POST", {}, 405),
        ("DELETE", {}, 405),
        ("HEAD", {}, 200),
    ],
)
def test_only_this_machine_s_own_reading_requests(run, method, headers, status):
    ((answer, _),) = ask(run, (method, "/", headers))
    assert answer.status == status


def test_the_command_writes_the_page_and_refuses_what_is_no_run(run, tmp_path, capsys):
    assert command.main([str(run)]) == 0
    assert (run / "report.html").is_file()
    assert command.main([str(tmp_path)]) == 2
    assert "expected the output folder" in capsys.readouterr().err
