"""Scripts and styles of the page, which run in the browser."""
