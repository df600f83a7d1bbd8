"""The report in a real browser: it opens without complaint, draws the scene, and its buttons do what they say.

Skipped where Debian's chromium and chromium-driver (or others of that name) are not installed.
"""

from __future__ import annotations

import base64
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.report import write_report
from tests.pipelines.reports import HOSTILE_NAME, make_report_run
from tests.pipelines.textured_run import HALVES, make_textured_run

webdriver = pytest.importorskip("selenium.webdriver")
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        BROWSER is None or DRIVER is None,
        reason="no chromium and chromedriver; apt-get install chromium chromium-driver",
    ),
]

# What a drawn surface's calls end in; without them WebGL shows the empty background.
NO_DRAWING = "for (const name of ['drawElements', 'drawArrays']) WebGL2RenderingContext.prototype[name] = () => {};"
LAPTOP, PHONE = (1280, 800), (390, 844)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(make_report_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--hide-scrollbars",
                     "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"):  # fmt: skip
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium's sandbox refuses to work for root
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(120)
    driver.set_script_timeout(120)
    yield driver
    driver.quit()


def show(browser: Any, page: Path, size: tuple[int, int] = LAPTOP, scheme: str = "light", before: str = "") -> None:
    """Opens the page and waits until its 3D view is ready (or has given up)."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 600},
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme},
                      {"name": "prefers-reduced-motion", "value": "reduce"}]},
    )  # fmt: skip
    script = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": before})
    browser.get_log("browser")
    browser.get(page.as_uri())
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, 120).until(lambda b: b.find_element("id", "viewer").get_attribute("data-state") != "loading")


def after_drawing(browser: Any) -> None:
    """Returns when what was asked to be drawn has been."""
    browser.execute_async_script(
        "const done = arguments[arguments.length - 1]; requestAnimationFrame(() => requestAnimationFrame(done));"
    )


def picture(browser: Any) -> np.ndarray:
    """The 3D view's canvas as the screen shows it, [H, W, 3], without the buttons over it and its edge."""
    canvas = browser.find_element("css selector", "#viewer canvas")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", canvas)
    after_drawing(browser)
    box = browser.execute_script("return arguments[0].getBoundingClientRect().toJSON()", canvas)
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    screen = np.asarray(Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB"))
    left, top, right, bottom = (round(box[key]) for key in ("left", "top", "right", "bottom"))
    return screen[top + 60 : bottom - 8, left + 8 : right - 8]


def colours(image: np.ndarray) -> int:
    """How many colours at least eight pixels have, neighbouring ones (of 8 levels) taken for one."""
    _, counts = np.unique((image >> 3).reshape(-1, 3), axis=0, return_counts=True)
    return int((counts >= 8).sum())


def press(browser: Any, layer: str) -> bool:
    """Presses a button of the view; returns whether it is on now."""
    button = browser.find_element("css selector", f"[data-layer={layer}]")
    button.click()
    return button.get_attribute("aria-pressed") == "true"


def complaints(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def test_it_opens_draws_and_toggles(browser: Any, report: Path) -> None:
    show(browser, report)
    assert browser.find_element("id", "viewer").get_attribute("data-state") == "ready"
    assert complaints(browser) == []
    everything = picture(browser)
    drawn = colours(everything)
    assert drawn > 400  # the wall has a colour for every place
    assert press(browser, "mesh") is False
    without_mesh = picture(browser)
    assert 1 < colours(without_mesh) < 100
    assert press(browser, "cameras") is False
    empty = picture(browser)
    assert colours(empty) == 1
    assert press(browser, "points") is True
    assert (picture(browser) != empty).any(axis=2).sum() > 100
    assert press(browser, "mesh") is True
    assert press(browser, "shading") is True
    shape = picture(browser)
    assert (np.ptp(shape.astype(int), axis=2) < 40).mean() > 0.9  # without the photos' colours
    assert colours(shape) > 3
    assert complaints(browser) == []


def test_a_texture_is_drawn_from_all_its_pages(browser: Any, tmp_path: Path) -> None:
    show(browser, write_report(make_textured_run(tmp_path)))
    assert browser.find_element("id", "viewer").get_attribute("data-state") == "ready"
    assert press(browser, "cameras") is False
    image = picture(browser).astype(int)
    for color in HALVES:
        assert (np.abs(image - color).max(axis=2) < 20).mean() > 0.02
    assert press(browser, "shading") is True
    shape = picture(browser)
    assert (np.ptp(shape.astype(int), axis=2) < 40).mean() > 0.99
    assert colours(shape) > 3
    assert complaints(browser) == []


def test_an_empty_canvas_is_noticed(browser: Any, report: Path) -> None:
    """The check of the drawing fails on the same page when WebGL draws nothing, so it tests something."""
    show(browser, report, before=NO_DRAWING)
    assert browser.find_element("id", "viewer").get_attribute("data-state") == "ready"
    assert colours(picture(browser)) == 1


def test_without_webgl_the_page_says_so(browser: Any, report: Path) -> None:
    show(browser, report, before="HTMLCanvasElement.prototype.getContext = () => null;")
    assert browser.find_element("id", "viewer").get_attribute("data-state") == "failed"
    assert "can't draw in 3D" in browser.find_element("css selector", "#viewer .problem").text


def test_a_click_on_a_camera_shows_its_photo(browser: Any, report: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    show(browser, report)
    canvas = browser.find_element("css selector", "#viewer canvas")
    card = browser.find_element("id", "camera-card")
    assert not card.is_displayed()
    spot = browser.execute_script(
        """
        const canvas = arguments[0];
        for (let y = 70; y < canvas.clientHeight; y += 6) for (let x = 4; x < canvas.clientWidth; x += 6) {
            const box = canvas.getBoundingClientRect();
            canvas.dispatchEvent(new PointerEvent("pointermove", {clientX: box.x + x, clientY: box.y + y}));
            if (canvas.classList.contains("pointing")) return [x, y];
        }
        return null;
        """,
        canvas,
    )
    assert spot is not None
    size = canvas.size
    ActionChains(browser).move_to_element_with_offset(
        canvas, int(spot[0] - size["width"] / 2), int(spot[1] - size["height"] / 2)
    ).click().perform()
    assert card.is_displayed()
    number = int(card.get_attribute("data-camera"))
    shown = card.find_element("css selector", "img")
    name = card.find_element("css selector", ".name").text
    assert shown.get_attribute("alt") == f"Photo {name}"
    figure = browser.find_element("css selector", f"figure.photo img[alt={json_string(shown.get_attribute('alt'))}]")
    assert shown.get_attribute("src") == figure.get_attribute("src")
    assert browser.execute_script("return arguments[0].naturalWidth", shown) == 56
    before = picture(browser)
    card.find_element("css selector", "[data-action=look]").click()
    browser.execute_async_script("setTimeout(arguments[0], 100)")
    assert (picture(browser) != before).mean() > 0.1
    card.find_element("css selector", "[data-action=next]").click()
    assert card.get_attribute("data-camera") == str((number + 1) % 6)
    while card.find_element("css selector", ".name").text == HOSTILE_NAME:  # the one without depth
        card.find_element("css selector", "[data-action=next]").click()
    card.find_element("css selector", "[data-action=enlarge]").click()
    dialog = browser.find_element("id", "photo-dialog")
    assert dialog.is_displayed()
    source = dialog.find_element("css selector", "img").get_attribute("src")
    dialog.find_element("css selector", "[data-show=depth]").click()
    assert dialog.find_element("css selector", "img").get_attribute("src") != source
    dialog.find_element("css selector", "[data-close]").click()
    assert not dialog.is_displayed()
    assert complaints(browser) == []


def json_string(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def test_the_gallery_shows_photos_depth_or_confidence(browser: Any, report: Path) -> None:
    show(browser, report)
    last = browser.find_elements("css selector", "figure.photo")[-1]

    def visible() -> list[str]:
        return [i.get_attribute("class") for i in last.find_elements("css selector", "img") if i.is_displayed()]

    assert visible() == ["photo"]
    for layer in ("depth", "confidence"):
        browser.execute_script("arguments[0].click()", browser.find_element("css selector", f"[value={layer}]"))
        assert visible() == [layer]
        assert browser.find_element("css selector", f".for-{layer}").is_displayed()


def test_the_keyboard_turns_and_zooms(browser: Any, report: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    show(browser, report)
    canvas = browser.find_element("css selector", "#viewer canvas")
    start = picture(browser)
    for key in (Keys.ARROW_RIGHT, "+"):
        before = picture(browser)
        canvas.send_keys(key)
        assert (picture(browser) != before).mean() > 0.02
    canvas.send_keys("0")
    browser.execute_async_script("setTimeout(arguments[0], 100)")
    assert np.abs(picture(browser).astype(int) - start).mean() < 1


def test_names_do_nothing(browser: Any, report: Path) -> None:
    show(browser, report)
    assert browser.title == "mesh · vlm3-recon report"
    assert HOSTILE_NAME in browser.find_element("tag name", "body").get_attribute("textContent")
    assert browser.execute_script("return document.images.length") == 6 + 2 * 5 + 2
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name.slice(0, 5))")
    assert set(loaded) <= {"data:"}


@pytest.mark.parametrize(("size", "scheme"), [(LAPTOP, "dark"), (PHONE, "light"), (PHONE, "dark")])
def test_it_fits_and_follows_the_colour_scheme(browser: Any, report: Path, size: tuple[int, int], scheme: str) -> None:
    show(browser, report, size, scheme)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= size[0]
    background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    level = np.array([int(part) for part in background.strip("rgb()").split(",")]).mean()
    image = picture(browser)
    corner = image[-4, 4].mean()
    assert (level > 200 and corner > 200) if scheme == "light" else (level < 60 and corner < 60)
    assert colours(image) > 300
    assert complaints(browser) == []
