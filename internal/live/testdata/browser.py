"""Looks at the page of a run in Chromium. See README.md."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile

from playwright.sync_api import sync_playwright

nibble, shots = (pathlib.Path(p).resolve() for p in sys.argv[1:3])
demo = pathlib.Path(__file__).resolve().parents[3] / "cmd/nibble/demo"
work = pathlib.Path(tempfile.mkdtemp())
shots.mkdir(parents=True, exist_ok=True)


def train(*more):
    for name in ("stories260K", "shakespeare"):
        if not (work / name).exists():
            shutil.copytree(demo / name, work / name)
    return subprocess.Popen(
        [nibble, "train", "--model", "stories260K", "--data", "shakespeare", "--output-dir", "adapters", "--iters", "20000", "--threads", "1",
         "--batch-size", "4", "--max-seq-length", "128", "--rank", "8", "--learning-rate", "1e-2", "--steps-per-eval", "100",
         "--val-batches", "4", "--live", ":0", *more],
        cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def url_of(run):
    for line in run.stdout:
        if m := re.match(r"live page: (http://\S+)", line):
            return m[1]
    raise SystemExit("no live page is announced")


class Page:
    """A page that must not complain, and must ask nobody but its server."""

    def __init__(self, browser, url, width=1240, height=900, scheme="light", offline_ok=False):
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, device_scale_factor=1)
        self.page = self.context.new_page()
        self.complaints, self.quiet = [], True
        self.page.on("console", lambda m: m.type == "error" and self.quiet and self.complaints.append(m.text))
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.page.on("request", lambda r: self.complaints.append(r.url) if not r.url.startswith((url.split("?")[0], "data:")) else None)
        self.page.set_default_timeout(120_000)
        self.page.goto(url)
        self.until("state && document.querySelectorAll('.plot svg').length > 3")

    def eval(self, what):
        return self.page.evaluate(what)

    def until(self, what):
        """Waits from outside: the page's policy lets nobody evaluate texts in it."""
        for _ in range(600):
            if self.eval(what):
                return
            self.page.wait_for_timeout(200)
        raise AssertionError("waited in vain for " + what)

    def whole(self):
        """Checks that every step up to the last is there once."""
        steps = self.eval("state.points.map(p => [p.s, p.n])")
        assert steps and sum(n for _, n in steps) == steps[-1][0], steps
        return steps[-1][0]

    def check(self):
        assert not self.complaints, self.complaints
        wide, have = self.eval("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= have, f"the page is {wide} wide and the window {have}"

    def shot(self, name, full=True):
        self.check()
        self.page.wait_for_timeout(300)
        self.page.screenshot(path=shots / name, full_page=full)

    def close(self):
        self.check()
        self.context.close()


with sync_playwright() as p:
    browser = p.chromium.launch(executable_path=os.environ.get("CHROMIUM"), args=["--no-sandbox"])
    run = train()
    url = url_of(run)
    live = Page(browser, url)
    live.until("state.points.length >= 30")
    assert live.page.text_content("#status") == "running"
    live.whole()

    # A pointer and keys show values.
    box = live.page.locator(".plot").first.bounding_box()
    live.page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 80)
    tip = live.page.locator("#tip")
    assert tip.is_visible() and "smoothed" in tip.text_content() and "validation" in tip.text_content(), tip.text_content()
    live.shot("live-light.png")
    live.page.mouse.move(5, 5)
    assert tip.is_hidden()
    plot = live.page.locator(".plot").nth(1)
    plot.focus()
    plot.press("Home")
    assert re.match(r"step \d+: learning rate \S+$", plot.get_attribute("aria-valuetext")), plot.get_attribute("aria-valuetext")
    home = int(plot.get_attribute("aria-valuenow"))
    assert home == live.eval("state.points[0].s")
    plot.press("ArrowRight")
    assert int(plot.get_attribute("aria-valuenow")) > home
    assert tip.is_visible()
    plot.press("Escape")
    assert tip.is_hidden()
    key = live.page.get_by_role("button", name="each step")
    key.click()
    assert key.get_attribute("aria-pressed") == "false"
    key.click()

    # A second page and one that is loaded again have the history.
    before = live.whole()
    phone = Page(browser, url, 400, 800, "dark")
    assert phone.whole() >= before
    phone.shot("live-dark-phone.png")
    phone.close()
    live.page.reload()
    live.until(f"state && state.step >= {before}")
    live.whole()

    # A connection that is lost comes back with what was missed.
    live.quiet = False
    live.page.evaluate("window.events = 0")
    live.context.set_offline(True)
    live.page.wait_for_timeout(3000)
    live.context.set_offline(False)
    gone = live.whole()
    live.until(f"state.step > {gone}")
    live.page.wait_for_timeout(500)
    live.whole()
    assert live.page.text_content("#status") == "running"
    live.quiet = True

    # This machine under another name is not answered.
    other = browser.new_page()
    answer = other.goto(url.replace("127.0.0.1", "rebound.localhost"))
    assert answer.status == 403, answer.status
    other.close()

    # The run is interrupted, and the page says so, and goes on being there.
    run.send_signal(signal.SIGINT)
    out = run.stdout.read()
    assert run.wait() == 130, out
    live.page.wait_for_timeout(1000)
    assert live.page.text_content("#status") == "stopped"
    assert "--resume adapters" in live.page.text_content("#why")
    steps = live.whole()
    assert steps == json.loads((work / "adapters/trainer_log.jsonl").read_text().splitlines()[-1])["step"]
    live.close()

    # The page that is kept needs no server. Samples, notes and the best are put in, to be looked at.
    file = work / "adapters/report.html"
    full = work / "full.html"
    text = file.read_text()
    data = json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.S)[1])
    assert sum(q["n"] for q in data["points"]) == steps and data["status"] == "stopped"
    low = float("inf")
    for e in data["evals"]:
        e["best"] = e["l"] <= low
        low = min(low, e["l"])
    data["samples"] = [{"s": s, "list": [{"prompt": "ROMEO:\n", "text": "The king is with the lord,\nAnd I will not be so. " * 3},
                                        {"prompt": "Once upon a time", "text": ", there was a little girl named Lily."}]} for s in (0, 100, 200, 300)]
    data["notes"] = [{"s": 40, "text": "the gradient's norm is ten times what it was"}, {"s": 200, "text": "x" * 300}]
    full.write_text(re.sub(r'(<script id="data" type="application/json">).*?(</script>)',
                           lambda m: m[1] + json.dumps(data).replace("<", "\\u003c") + m[2], text, flags=re.S))
    for name, path in {"report": file, "full": full}.items():
        for scheme in ("light", "dark"):
            for width in (1240, 400):
                kept = Page(browser, path.as_uri(), width, 900, scheme)
                assert kept.page.text_content("#status") == "stopped"
                assert kept.whole() == steps
                kept.shot(f"{name}-{scheme}-{width}.png")
                kept.close()

    # A run that is killed leaves a page that says that nobody answers.
    run = train("--force")
    live = Page(browser, url_of(run))
    live.until("state.points.length >= 3")
    live.quiet = False
    run.kill()
    run.wait()
    live.until("document.getElementById('status').textContent === 'no connection'")
    live.close()
    browser.close()
shutil.rmtree(work)
print("all is well; pictures are in", shots)
