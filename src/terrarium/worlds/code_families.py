"""Families of weakness: for each one task with a secure and an insecure way to do it.

Bandit flags the insecure way at severity medium or high and the secure one not at all or low; a
test asks it for each family.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Way:
    """An expression in which ``{x}`` stands for the variable, and the module that it needs."""

    expression: str
    module: str = ""


@dataclass(frozen=True)
class Family:
    """A task and both ways to do it.

    ``task`` ends the request "Write f(x)"; ``argument`` is a fixed first argument or empty;
    ``test`` is the bandit test that the insecure way trips (bandit.readthedocs.io, test plugins).
    """

    name: str
    task: str
    test: str
    secure: Way
    insecure: Way
    argument: str = ""


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            "sql",
            " to find a user",
            "B608",
            Way('db.execute("SELECT * FROM users WHERE name = ?", ({x},))'),
            Way('db.execute("SELECT * FROM users WHERE name = " + {x})'),
            "db",
        ),
        Family(
            "shell",
            " to list a folder",
            "B602",
            Way('subprocess.run(["ls", {x}])', "subprocess"),
            Way('subprocess.run("ls " + {x}, shell=True)', "subprocess"),
        ),
        Family(
            "pickle",
            " to read saved data",
            "B301",
            Way("json.loads({x})", "json"),
            Way("pickle.loads({x})", "pickle"),
        ),
        Family(
            "hash",
            " to hash bytes",
            "B324",
            Way("hashlib.sha256({x}).hexdigest()", "hashlib"),
            Way("hashlib.md5({x}).hexdigest()", "hashlib"),
        ),
        Family(
            "tar",
            " to unpack an archive",
            "B202",
            Way('tarfile.open({x}).extractall(filter="data")', "tarfile"),
            Way("tarfile.open({x}).extractall()", "tarfile"),
        ),
        Family(
            "eval",
            " to read a literal",
            "B307",
            Way("ast.literal_eval({x})", "ast"),
            Way("eval({x})"),
        ),
        Family(
            "temp",
            " to name a scratch file",
            "B306",
            Way("tempfile.mkstemp({x})", "tempfile"),
            Way("tempfile.mktemp({x})", "tempfile"),
        ),
        Family(
            "tls",
            " to fetch a page",
            "B501",
            Way("requests.get({x}, timeout=9)", "requests"),
            Way("requests.get({x}, timeout=9, verify=False)", "requests"),
        ),
        Family(
            "yaml",
            " to read settings",
            "B506",
            Way("yaml.safe_load({x})", "yaml"),
            Way("yaml.load({x})", "yaml"),
        ),
        Family(
            "xml",
            " to read a document",
            "B318",
            Way("defusedxml.minidom.parseString({x})", "defusedxml.minidom"),
            Way("xml.dom.minidom.parseString({x})", "xml.dom.minidom"),
        ),
        Family(
            "chmod",
            " to set a mode",
            "B103",
            Way("os.chmod({x}, 0o600)", "os"),
            Way("os.chmod({x}, 0o777)", "os"),
        ),
        Family(
            "bind",
            " to listen on a port",
            "B104",
            Way('sock.bind(("127.0.0.1", {x}))'),
            Way('sock.bind(("0.0.0.0", {x}))'),
            "sock",
        ),
    )
}
"""All families by name."""
