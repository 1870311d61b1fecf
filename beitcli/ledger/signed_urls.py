"""URLs that an earlier version stored with their passwords and signatures -> the sources that they are now."""

import os
import sqlite3

from beitcli.urls import without_secrets

_SUSPECTS = """
SELECT id, source FROM pictures WHERE kind = 'url' AND (instr(source, x'3f') OR instr(source, x'40')) ORDER BY answered
"""  # a `?` or an `@`


def rename_signed_urls(database: sqlite3.Connection) -> bool:
    """Store each URL without its secrets; of several that become one, the latest result stays. True if any was."""
    stored = [(image, os.fsdecode(source)) for image, source in database.execute(_SUSPECTS)]
    renamed = [(image, without_secrets(url)) for image, url in stored if without_secrets(url) != url]
    if not renamed:
        return False
    database.execute("PRAGMA secure_delete = ON")  # or they would stay in the file, in what is free of it
    database.execute("CREATE INDEX run_pictures ON run (picture)")
    for image, url in renamed:
        key = os.fsencode(url)
        twins = database.execute("SELECT id FROM pictures WHERE kind = 'url' AND source = ?", (key,)).fetchall()
        for (twin,) in twins:
            database.execute("UPDATE run SET picture = ? WHERE picture = ?", (image, twin))
            database.execute("DELETE FROM pictures WHERE id = ?", (twin,))
        database.execute("UPDATE pictures SET source = ? WHERE id = ?", (key, image))
    database.execute("DROP INDEX run_pictures")
    return True
