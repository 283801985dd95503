"""Every code that status can give stands in docs/status.md, and no other; each is given somewhere."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GIVEN = re.compile(
    r"""(?:code=|code = |finding\(|offender\()"([a-z]+(?:-[a-z]+)*)"|else "([a-z]+-[a-z]+)"$""", re.MULTILINE
)
FILES = (
    "supervisor/status.py",
    "supervisor/instance.py",
    "supervisor/drift.py",
    "ipsecctl/findings.py",
    "ipsecctl/outside.py",
)
MADE_OF_A_PHASE = {"instance-starting", "instance-stopping"}


def test_o12_the_table_in_the_documents_has_every_code_and_no_other() -> None:
    rows = [line for line in (ROOT / "docs/status.md").read_text().splitlines() if line.startswith("| `")]
    documented = {code for row in rows for code in re.findall(r"`([a-z-]+)`", row.split("|")[1])}
    source = "\n".join((ROOT / name).read_text() for name in FILES)
    given = {code for pair in GIVEN.findall(source) for code in pair if code}
    assert given | MADE_OF_A_PHASE == documented
