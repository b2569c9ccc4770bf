"""Accessibility of the page: keyboard, labels, reduced motion, contrast."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from server.browser import open_tab
from server.page_steps import IN_FIRST_ROW, QUERY, expect_no_violations, film, views, wait_moving

pytestmark = pytest.mark.xdist_group("browser")


def test_the_page_works_with_the_keyboard(tab):
    tab.goto("/")
    tab.locator("#show-filters").focus()
    tab.keyboard.press("/")
    expect(tab.get_by_label("What happens in the video")).to_be_focused()
    tab.keyboard.type(QUERY)
    tab.keyboard.press("Enter")
    expect(tab.locator(".card").first).to_be_visible()
    row = tab.evaluate(IN_FIRST_ROW)
    assert row > 1
    for key, number in (
        ("ArrowDown", 0),
        ("ArrowRight", 1),
        ("ArrowDown", row + 1),
        ("ArrowLeft", row),
        ("ArrowLeft", row - 1),
        ("ArrowRight", row),
        ("ArrowUp", 0),
    ):
        tab.keyboard.press(key)
        expect(film(tab, number)).to_be_focused()
    wait_moving(tab, 0)  # focus plays a moment
    tab.keyboard.press("Space")
    expect(tab.locator(".moving")).to_have_count(0)
    tab.keyboard.press("Space")
    wait_moving(tab, 0)
    tab.keyboard.press("Escape")
    expect(tab.locator(".moving")).to_have_count(0)
    tab.keyboard.press("Enter")
    expect(tab.locator("#player")).to_be_visible()
    tab.keyboard.press("Escape")
    expect(tab.locator("#player")).to_be_hidden()
    expect(film(tab, 0)).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1366, 390])
def test_axe_finds_no_violations(browser, served, width, scheme):
    """In every state of the page (https://github.com/dequelabs/axe-core)."""
    with open_tab(browser, served, viewport={"width": width, "height": 800}, color_scheme=scheme) as page:
        page.goto("/")
        expect(page.get_by_role("group", name="Examples")).to_be_visible()
        expect_no_violations(page)
        page.goto(f"/?q={QUERY}&q=street&w=1&w=-0.5&folder=videos&compare={views(served)[1]['id']}")
        page.locator("#show-filters").click()
        expect(page.locator(".card").first).to_be_visible()
        expect_no_violations(page)
        film(page, 0).click()
        expect(page.locator("#player")).to_be_visible()
        expect_no_violations(page)
        page.keyboard.press("Escape")
        page.get_by_role("button", name="could not be read").click()
        expect(page.locator("#failures li").first).to_be_visible()
        expect_no_violations(page)
        page.goto("/?show=duplicates")
        expect(page.locator(".duplicates .message")).to_be_visible()
        expect_no_violations(page)


def test_reduced_motion_plays_only_on_request(tab):
    tab.emulate_media(reduced_motion="reduce")
    tab.goto(f"/?q={QUERY}")
    film(tab, 0).hover()
    tab.wait_for_timeout(500)
    assert tab.locator(".moving").count() == 0
    film(tab, 0).focus()
    tab.keyboard.press("Space")
    wait_moving(tab, 0)


def test_text_has_enough_contrast(tab):
    """At least 4.5 (WCAG AA) for every text colour on every background."""
    inks, grounds = ("ink", "quiet", "accent", "less", "up", "down"), ("paper", "raised", "film")
    pairs = [(ink, ground) for ink in inks for ground in grounds] + [("on-accent", "accent")]
    tab.goto("/")
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        colours = colours_of(tab, [*inks, *grounds, "on-accent"])
        ratios = {pair: contrast(*(colours[name] for name in pair)) for pair in pairs}
        assert {pair: ratio for pair, ratio in ratios.items() if ratio < 4.5} == {}, scheme
        assert (luminance(colours["paper"]) > 0.5) == (scheme == "light")


def colours_of(page: Page, names: list[str]) -> dict[str, list[float]]:
    """Return red, green and blue (0 to 255) of variables of the style sheet."""
    return page.evaluate(
        """names => Object.fromEntries(names.map(name => {
        const probe = document.body.appendChild(document.createElement("i"));
        probe.style.color = `var(--${name})`;
        return [name, getComputedStyle(probe).color.match(/[0-9.]+/g).map(Number)] }))""",
        names,
    )


def contrast(one: list[float], other: list[float]) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: list[float]) -> float:
    parts = [part / 255 for part in colour[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
