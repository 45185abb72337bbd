"""The page of a run in a real browser, off the disk: what strangers wrote runs nothing, clips play
in step, filters, keys and links work; and a page that is served fills while the run goes on."""

import asyncio
import contextlib
from urllib.parse import quote

import pytest

from tests.integration.chromium import browser, find_chromium
from tests.report_runs import add_error, add_instance, begin
from vlmteach.report import write_report
from vlmteach.report.serve import Pages, serve

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium on this machine: apt-get install chromium"
)

HOSTILE = (
    "\"'><script>window.canary=1</script><img src=x onerror=window.canary=1>"
    "<svg onload=window.canary=1></svg><a href=javascript:window.canary=1>x</a></template>"
)


@pytest.fixture
def run(tmp_path):
    run = begin(tmp_path / "a run")
    scales = [(0, 0.1, 0.1, 0.0), (1, 0.9, 0.2, 0.9)]
    add_instance(run, "move/1", clips=True, p_yes=(0.1, 0.4, 0.9), drift=0.9, scales=scales)
    add_instance(run, "move/2", clips=True, p_yes=(0.1, 0.9), strict=False, score=0.2, drift=0.0)
    add_instance(run, HOSTILE, clips=True, prompt=HOSTILE, query=HOSTILE, task=HOSTILE)
    add_error(run, "bad", f"got {HOSTILE}, expected none; {HOSTILE}")
    return run


def test_the_page_off_the_disk(run, tmp_path):
    page = write_report([run])

    async def look():
        async with browser(tmp_path / "profile") as tab:
            await tab.size(1280, 1000)
            await tab.open(f"file://{quote(str(page))}")
            await _nothing_of_a_stranger_runs(tab)
            await _clips_are_in_step(tab)
            await _filters(tab)
            await _links_and_keys(tab, page)
            assert tab.complaints == []
            assert {request.split(":")[0] for request in tab.requests} == {"file"}

    asyncio.run(look())


async def _nothing_of_a_stranger_runs(tab):
    await tab.run("for (const each of document.querySelectorAll('details')) each.open = true")
    await tab.run(
        "for (const each of document.querySelectorAll('a[href^=javascript]')) each.click()"
    )
    await asyncio.sleep(0.2)
    assert await tab.run("typeof window.canary") == "undefined"
    texts = await tab.run(
        "[...document.querySelectorAll('.card h3, .card .prompt, .card .text, .failure p')]"
        ".map(each => each.textContent)"
    )
    assert sum("<script>window.canary=1</script>" in text for text in texts) == 5
    # What the escaping would let through, the policy stops.
    held = (
        "document.body.append(Object.assign(document.createElement('script'), {text: 'canary=1'}))"
    )
    with contextlib.suppress(AssertionError):  # trusted types throw before the policy is asked
        await tab.run(held)
    assert await tab.run("typeof window.canary") == "undefined"
    tab.complaints.clear()
    await tab.run("for (const each of document.querySelectorAll('details')) each.open = false")


async def _clips_are_in_step(tab):
    await tab.run("document.querySelector('[data-key=\"move/1\"]').scrollIntoView()")
    videos = "[...document.querySelectorAll('[data-key=\"move/1\"] video')]"
    await tab.until(
        f"{videos}.length === 2 && {videos}.every(v => v.readyState >= 2 && !v.seeking)"
    )
    assert await tab.run(f"{videos}.map(v => [v.videoWidth, v.duration])") == [[32, 1.125]] * 2
    assert await tab.run(f"{videos}.every(v => v.currentTime > 1)")  # how each clip ends
    assert await tab.run(f"{videos}.every(v => v.classList.contains('pixels'))")
    play = "document.querySelector('[data-key=\"move/1\"] [data-el=play]')"
    await tab.run(f"{play}.click()")
    await tab.until(f"{videos}.every(v => !v.paused && v.currentTime > 0.2 && v.currentTime < 1)")
    apart = await tab.run(f"Math.abs({videos}[0].currentTime - {videos}[1].currentTime)")
    assert apart < 0.125  # a frame
    await tab.run(f"{play}.click()")
    await tab.until(f"{videos}.every(v => v.paused && !v.seeking)")
    assert await tab.run(f"{videos}[0].currentTime === {videos}[1].currentTime")
    await tab.run(
        "(() => { const time = document.querySelector('[data-key=\"move/1\"] [data-el=time]');"
        "time.value = 500; time.dispatchEvent(new Event('input', {bubbles: true})) })()"
    )
    await tab.until(f"{videos}.every(v => !v.seeking)")
    assert await tab.run(f"{videos}.map(v => v.currentTime)") == [0.5625] * 2


async def _filters(tab):
    shown = "[...document.querySelectorAll('.card:not([hidden])')].map(c => c.dataset.key)"
    await tab.run("document.querySelector('[data-filter=fooled]').click()")
    assert await tab.run(shown) == ["move/2"]
    assert await tab.run("document.querySelector('[data-el=count]').textContent") == "1 of 4"
    await tab.run("document.querySelector('[data-el=filters]').reset()")
    await tab.run(
        "(() => { const guard = document.querySelector('[data-facet=guard]');"
        "guard.value = 'warned'; guard.dispatchEvent(new Event('input', {bubbles: true})) })()"
    )
    assert await tab.run(shown) == ["move/1"]
    await tab.run("document.querySelector('[data-el=filters]').reset()")
    search = "document.querySelector('[data-el=search]')"
    await tab.run(
        f"{search}.value = 'move/'; {search}.dispatchEvent(new Event('input', {{bubbles: true}}))"
    )
    assert await tab.run(shown) == ["move/1", "move/2"]
    sort = "document.querySelector('[data-el=sort]')"
    await tab.run(
        f"{sort}.value = 'gain-up'; {sort}.dispatchEvent(new Event('change', {{bubbles: true}}))"
    )
    assert await tab.run(shown) == ["move/2", "move/1"]


async def _links_and_keys(tab, page):
    for key in ("move/1", HOSTILE):
        await tab.open("about:blank")
        await tab.open(f"file://{quote(str(page))}#{quote(key, safe='')}")
        opened = "document.querySelector('.card.open')?.dataset.key"
        await tab.until(f"{opened} !== undefined")
        assert await tab.run(opened) == key
    assert await tab.run("document.activeElement.dataset.key") == HOSTILE
    update = "document.activeElement.querySelector('[data-el=step]').textContent"
    said = "document.activeElement.querySelector('.p').textContent"
    row = "document.activeElement.querySelector('[data-el=strip] image').getAttribute('y')"
    assert [await tab.run(each) for each in (update, said, row)] == ["2", "0.80", "-64"]
    await tab.press("ArrowLeft")
    assert [await tab.run(each) for each in (update, said, row)] == ["1", "0.40", "-32"]
    await tab.press("j")
    assert await tab.run("document.activeElement.dataset.key") == "bad"
    await tab.press("k")
    await tab.press("Escape")
    await tab.until("document.querySelectorAll('.card.open').length === 0")


def test_a_page_that_is_served_fills(run, tmp_path):
    async def look():
        pages, ready = Pages([run]), asyncio.Event()
        server = asyncio.create_task(serve(pages, lambda _: ready.set()))
        await ready.wait()
        async with browser(tmp_path / "profile") as tab:
            await tab.open(f"http://127.0.0.1:{pages.port}/")
            await tab.run("document.querySelector('[data-key=\"move/1\"] summary').click()")
            assert await tab.run("document.querySelectorAll('.card').length") == 4
            add_instance(run, "new", clips=True)
            await tab.until("document.querySelectorAll('.card').length === 5")
            assert (
                await tab.run("document.querySelector('[data-el=count]').textContent") == "5 of 5"
            )
            assert await tab.run("document.querySelector('[data-key=\"move/1\"]').className") == (
                "card open"
            )
            await tab.run("document.querySelector('[data-key=new]').scrollIntoView()")
            await tab.until("document.querySelector('[data-key=new] video')?.readyState >= 2")
            assert await tab.run("typeof window.canary") == "undefined"
            assert [each for each in tab.complaints if "favicon" not in each] == []
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)

    asyncio.run(look())
