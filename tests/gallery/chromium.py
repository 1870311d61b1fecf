"""A page in Chromium, as a user sees and works it."""

from pathlib import Path
from typing import Any

KEYS = {"Enter": "\ue007", "Escape": "\ue00c", "Space": " ", "Left": "\ue012", "Up": "\ue013", "Right": "\ue014"}
KEYS |= {"Down": "\ue015", "End": "\ue010", "Home": "\ue011", "PageDown": "\ue00f", "Tab": "\ue004"}
KEYS |= {"Control": "\ue009"}


class Chromium:
    """One browser for all tests; each page begins without corrections of another."""

    def __init__(self, program: str, driver: str, downloads: Path) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        self.downloads = downloads
        options = webdriver.ChromeOptions()
        options.binary_location = program
        for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars"):
            options.add_argument(f"--{argument}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        self.driver = webdriver.Chrome(service=Service(driver), options=options)

    def quit(self) -> None:
        self.driver.quit()

    def open(self, page: Path, width: int, height: int, dark: bool) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get(page.resolve().as_uri())
        self.js("localStorage.clear()")
        self.reload()

    def reload(self) -> None:
        self.driver.refresh()

    def errors(self) -> list[str]:
        """Errors that the page has logged: exceptions, refused scripts, files that are not there."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def js(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        return str(self.one(selector).text)

    def texts(self, selector: str) -> list[str]:
        """The text of each of these elements that is there, also of those outside of the window."""
        script = "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent)"
        return list(self.js(script, selector))

    def click(self, selector: str, number: int = 0) -> None:
        self.all(selector)[number].click()

    def choose(self, selector: str, value: str) -> None:
        """Choose an option of a selection."""
        self.one(f'{selector} option[value="{value}"]').click()

    def keys(self, *keys: str) -> None:
        """Press keys, by their names or as text, wherever the focus is; ``Control+a`` holds the first one down."""
        from selenium.webdriver import ActionChains

        actions = ActionChains(self.driver, duration=0)
        for key in keys:
            *held, last = (KEYS.get(part, part) for part in key.split("+"))
            for modifier in held:
                actions.key_down(modifier)
            actions.send_keys(last)
            for modifier in held:
                actions.key_up(modifier)
        actions.perform()
        self.settle()

    def settle(self) -> None:
        """Return when the page has drawn what the last key has set off: a dialog tells later that it was closed."""
        self.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done)))"
        )

    def names(self) -> list[str]:
        """The names on the cards that are drawn, in their order."""
        return self.texts(".card .name")

    def focused(self) -> str:
        """The name on the card that has the focus."""
        return str(self.js("return document.activeElement.querySelector('.name').textContent"))

    def wait(self, condition: str, seconds: int = 20) -> None:
        """Wait until an expression is true."""
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(self.driver, seconds, 0.05).until(lambda _: self.js(f"return {condition}"))
