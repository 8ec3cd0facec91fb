"""The report: what it shows, that nothing leads out of it, and that it works in a browser."""

import base64
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.report import NONE, OPAQUE, TRANSPARENT, distribution, error_map, number
from tests.support.evaluating import FIXTURES, mattes, of_checkpoint, run

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --no-first-run "
    "--disable-component-update --disable-sync --window-size=1200,1000"
)


def test_error_map() -> None:
    """A quarter of the error is half of the colour; outside of the region it is dim."""
    pred = np.array([[0.5, 1.0, 0.0, 1.0]])
    true = np.array([[0.5, 0.0, 0.25, 0.0]])
    painted = error_map(pred, true, np.array([[True, True, True, False]]))[0].tolist()
    half, dim = (
        [round(n + (c - n) * part) for n, c in zip(NONE, colour, strict=True)]
        for colour, part in ((TRANSPARENT, 0.5), (OPAQUE, 0.3))
    )
    assert painted == [list(NONE), list(OPAQUE), half, dim]


def test_distribution() -> None:
    values = [0.0, 1.0, 1.0, 4.0, 10.0]
    found = distribution("MAD", values)
    assert [bar.count for bar in found.bars] == [3, 0, 1, 0, 1]
    assert [bar.share for bar in found.bars] == pytest.approx([1, 0, 1 / 3, 0, 1 / 3])
    assert (found.median, found.mean, found.place(found.mean)) == (1, 3.2, pytest.approx(0.32))
    assert sum(bar.count for bar in distribution("MAD", [0.0, 0.0]).bars) == 2


def test_numbers() -> None:
    shown = [number(value) for value in (0, 0.12344, 1.23456, 12.3456, 123.456, 12345.6)]
    assert shown == ["0.0000", "0.1234", "1.235", "12.35", "123.5", "12346"]


def test_pictures_of_the_worst(here: Path) -> None:
    run(*mattes(here), "--report", "out.html", "--report-images", 2)
    page = Path("out.html").read_text()
    assert re.findall(r'id="name-\d+"><span class="rank">\d+</span> (\w+)<', page) == [
        "scale",
        "shift",
    ]
    assert "The worst 2 of 5 images" in page and all(n in page for n in ("blur", "noise", "holes"))
    links = re.findall(r'<a href="#image-(\d)">(\w+)</a>', page)
    assert links == [("1", "scale"), ("2", "shift")]
    alphas = re.findall(r'class="(true|pred)" src="data:image/png;base64,([^"]*)"', page)
    assert [kind for kind, _ in alphas] == ["true", "pred"] * 2
    for (kind, data), name in zip(alphas, ("scale", "scale", "shift", "shift"), strict=True):
        shown = Image.open(io.BytesIO(base64.b64decode(data)))
        assert np.array_equal(shown, Image.open(FIXTURES / f"{name}_{kind}.png"))
    run(*mattes(here), "--report", "none.html", "--report-images", 0)
    assert "<article" not in Path("none.html").read_text()


def test_large_pictures_are_scaled(here: Path) -> None:
    for kind in ("pred", "true"):
        Path(kind).mkdir()
        Image.new("L", (1200, 900), 128).save(f"{kind}/a.png")
    run("--pred-dir", "pred", "--true-dir", "true", "--report", "out.html")
    data = re.search(
        r'class="true" src="data:image/png;base64,([^"]*)"', Path("out.html").read_text()
    )
    assert Image.open(io.BytesIO(base64.b64decode(data[1]))).size == (480, 360)


def test_nothing_leads_out_and_names_stay_text(here: Path) -> None:
    mattes(here)
    evil = "<img src=x onerror=alert(1)>\"'&"
    for kind in ("pred", "true"):
        (here / kind / "scale.png").rename(here / kind / f"{evil}.png")
    run("--pred-dir", "pred", "--true-dir", "true", "--report", "out.html")
    page = Path("out.html").read_text()
    assert "<img src=x" not in page and "&lt;img src=x onerror=alert(1)&gt;&#34;&#39;&amp;" in page
    assert "http:" not in page and "https:" not in page and "@import" not in page
    for value in re.findall(r'(?:src|href)="([^"]*)"', page):
        assert value.startswith(("data:", "#")), value[:40]
    assert all(u.startswith(("data:", '"${')) for u in re.findall(r"url\(([^)]*)\)", page))
    assert "default-src 'none'" in page


# ------------------------------------------------------------------------------------------------
# In a browser


@pytest.fixture
def browser(tmp_path: Path):
    if not (CHROMIUM and DRIVER):
        pytest.skip("there is no chromium with chromedriver (Debian: chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


def colour_at(browser, element, x: float, y: float) -> tuple[int, ...]:
    """Of the element's picture on the screen, x and y being parts of its sides."""
    picture = Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB")
    return picture.getpixel((int(x * picture.width), int(y * picture.height)))


def test_slider_and_colours_in_chromium(checkpoint: Path, data: Path, here: Path, browser) -> None:
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.common.by import By

    # By hand: opaque left, half in the middle, nothing right; in truth opaque but for the top.
    for kind, columns in (("pred", (255, 128, 0)), ("true", (255, 255, 255))):
        Path(kind).mkdir()
        pixels = np.repeat(np.uint8([columns]), 60, 0).repeat(30, 1)
        pixels[:10] = 0
        Image.fromarray(pixels).save(f"{kind}/a.png")
    Path("src").mkdir()
    Image.new("RGB", (90, 60), (250, 200, 0)).save("src/a.png")
    folders = ["--pred-dir", "pred", "--true-dir", "true", "--src-dir", "src"]
    run(*folders, "--report", "out.html")
    browser.get((here / "out.html").as_uri())

    compare = browser.find_element(By.CSS_SELECTOR, ".compare")
    slider = compare.find_element(By.CSS_SELECTOR, "input")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", compare)
    assert colour_at(browser, compare, 0.9, 0.8) == (0, 0, 0)  # predicted, right of the middle
    ActionChains(browser).click_and_hold(slider).move_by_offset(
        round(0.45 * compare.size["width"]), 0
    ).release().perform()
    assert 93 <= int(slider.get_attribute("value")) <= 97
    assert colour_at(browser, compare, 0.9, 0.8) == (255, 255, 255)  # true, now
    assert slider.get_attribute("aria-valuetext").startswith(slider.get_attribute("value"))
    slider.send_keys(Keys.HOME)
    slider.send_keys(Keys.ARROW_RIGHT)
    assert slider.get_attribute("value") == "1"
    assert colour_at(browser, compare, 0.9, 0.8) == (0, 0, 0)

    composite = browser.find_element(By.CSS_SELECTOR, ".composite")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", composite)
    for name in ("blue", "black"):
        button = browser.find_element(By.CSS_SELECTOR, f'.colours button[aria-label="{name}"]')
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        assert len(browser.find_elements(By.CSS_SELECTOR, '[aria-pressed="true"]')) == 1
    picker = browser.find_element(By.CSS_SELECTOR, ".colours input")
    assert colour_at(browser, composite, 0.9, 0.5) == (0, 0, 0)
    assert picker.get_attribute("value") == "#000000"
    browser.execute_script(
        "arguments[0].value = '#0064c8'; arguments[0].dispatchEvent(new Event('input'))", picker
    )
    assert colour_at(browser, composite, 0.9, 0.5) == (0, 100, 200)
    expected = {0.15: (250, 200, 0), 0.5: (126, 150, 100)}
    for x, colour in expected.items():
        found = colour_at(browser, composite, x, 0.5)
        assert np.abs(np.subtract(found, colour)).max() <= 4, (x, found)

    # The whole page of a checkpoint: nothing is fetched, nothing fails.
    run(*of_checkpoint(checkpoint, data), "--report", "model.html")
    browser.get_log("performance")  # the browser's own first page
    browser.get((here / "model.html").as_uri())
    assert len(browser.find_elements(By.CSS_SELECTOR, "article .composite img")) == 4
    loaded = "return [...document.images].every(i => i.complete && i.naturalWidth > 0)"
    assert browser.execute_script(loaded)
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = {
        e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
    }
    assert urls and all(url.startswith(("file://", "data:")) for url in urls)
    assert browser.get_log("browser") == []


def test_widths_in_chromium(here: Path, browser) -> None:
    """No page is wider than the screen, whatever a file is called, on phones neither."""
    mattes(here, "blur")
    for kind in ("pred", "true"):
        path = here / kind / f"{'a-long-name-' * 12}/{'without_any_break' * 8}.png"
        path.parent.mkdir()
        (here / kind / "blur.png").rename(path)
    run("--pred-dir", "pred", "--true-dir", "true", "--report", "out.html")
    browser.get((here / "out.html").as_uri())
    for width in (320, 390, 820, 1600):
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        root = "const root = document.documentElement;"
        beyond = browser.execute_script(f"{root} return root.scrollWidth - root.clientWidth")
        assert beyond == 0, width
        names = "[...document.querySelectorAll('h1, h3, .about dd')]"
        fits = f"return {names}.every(each => each.scrollWidth <= each.clientWidth)"
        assert browser.execute_script(fits), width
