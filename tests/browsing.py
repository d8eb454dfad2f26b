"""Pages in a real browser; the fixture `browser` is in conftest.py."""


class Opened:
    """A page that is drawn to its end, with everything that the console said and the addresses that it asked for."""

    def __init__(self, browser, address, width=1280, scheme="light", offline=False):
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=offline)
        self.page, self.said, self.asked = self.context.new_page(), [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url.partition("?")[0]))
        self.page.goto(address)
        self.page.wait_for_selector("html[data-ready=all]", state="attached")
