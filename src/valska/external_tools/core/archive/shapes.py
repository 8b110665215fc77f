"""What secrets look like: known forms, and values of names that are kept for secrets.

Every expression is matched at a place where one of its clues stands, and reads on for a bounded
number of bytes or up to the next place that could begin one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ALONE = r"(?<![A-Za-z0-9])"
_LINE_BEFORE = 300
_LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class Shape:
    """A form that secrets have.

    Parameters
    ----------
    kind
        What it is, for a person.
    clues
        What it begins with, in lower case.
    pattern
        Matches it from there.
    before
        What stands before it in the same line, not far away; None if that does not matter.
    """

    kind: str
    clues: tuple[bytes, ...]
    pattern: re.Pattern[bytes]
    before: re.Pattern[bytes] | None = None

    def kind_at(self, text: bytes, place: int) -> str | None:
        """Return the kind, if one begins at a place."""
        if not self.pattern.match(text, place):
            return None
        if self.before is not None:
            head = text[max(0, place - _LINE_BEFORE) : place].rpartition(b"\n")[2]
            if not self.before.search(head):
                return None
        return self.kind


def _shape(kind: str, clues: str, pattern: str, before: str | None = None) -> Shape:
    return Shape(
        kind,
        tuple(clues.encode().split(b"|")),
        re.compile(pattern.encode()),
        re.compile(before.encode()) if before else None,
    )


SHAPES = (
    _shape("private key", "-----begin ", r"-----BEGIN (?:[A-Z]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----"),
    _shape("AWS key id", "akia|asia", _ALONE + r"A[KS]IA[0-9A-Z]{16}(?![A-Za-z0-9])"),
    _shape("GitHub token", "ghp_|gho_|ghu_|ghs_|ghr_", _ALONE + r"gh[pousr]_[A-Za-z0-9]{36}"),
    _shape("GitHub token", "github_pat_", _ALONE + r"github_pat_[A-Za-z0-9_]{22}"),
    _shape("GitLab token", "glpat-", _ALONE + r"glpat-[A-Za-z0-9_-]{20}"),
    _shape("Slack token", "xox", _ALONE + r"xox[abeprs]-[A-Za-z0-9-]{10}"),
    _shape("Google key", "aiza", _ALONE + r"AIza[0-9A-Za-z_-]{35}"),
    _shape("Google token", "ya29.", _ALONE + r"ya29\.[A-Za-z0-9_-]{20}"),
    _shape("Google token", "gocspx-", _ALONE + r"GOCSPX-[A-Za-z0-9_-]{20}"),
    _shape("PyPI token", "pypi-", _ALONE + r"pypi-[A-Za-z0-9_-]{50}"),
    _shape("npm token", "npm_", _ALONE + r"npm_[A-Za-z0-9]{36}"),
    _shape("Hugging Face token", "hf_", _ALONE + r"hf_[A-Za-z0-9]{30}"),
    _shape("API key", "sk-", _ALONE + r"sk-(?:(?:[a-z]{1,20}|api\d\d)-){0,3}[A-Za-z0-9_]{20}"),
    _shape("payment key", "sk_|rk_", _ALONE + r"[rs]k_(?:live|test)_[A-Za-z0-9]{16}"),
    _shape("Vault token", "hvs.|hvb.", _ALONE + r"hv[sb]\.[A-Za-z0-9_-]{20}"),
    _shape("age key", "age-secret-key-", r"AGE-SECRET-KEY-1[A-Z0-9]{40}"),
    _shape("PuTTY key", "putty-user-key-file-", r"PuTTY-User-Key-File-\d"),
    _shape("DigitalOcean token", "dop_|doo_|dor_", _ALONE + r"do[opr]_v1_[0-9a-f]{40}"),
    _shape("mail key", "sg.", _ALONE + r"SG\.[A-Za-z0-9_-]{20,24}\.[A-Za-z0-9_-]{30}"),
    _shape(
        "JSON web token",
        "eyj",
        r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8}",
    ),
    _shape(
        "password of an option",
        "--password|--passwd|--passphrase|--token|--api-key|--secret|--http-password",
        r"(?<!\S)--(?:(?:http-)?password|passwd|passphrase|token|api-key|secret)[ \t]+"
        r"['\"]?[A-Za-z0-9][^\s:]{3}",
    ),
    _shape(
        "password of an option",
        "sshpass",
        r"(?<![\w.-])sshpass[ \t]+(?:-[^\sp]\S{0,200}[ \t]+){0,4}-p[ \t]*['\"]?[^\s$'\"<{]",
    ),
    _shape(
        "password of an option", "-pass", r"(?<!\S)-pass(?:in|out)?[ \t]+['\"]?pass:[^\s$'\"<{]"
    ),
    _shape(
        "password for curl",
        "-u|--user",
        r"(?<!\S)(?:-u|--user)(?:[ \t=]+|(?<=-u))['\"]?[^\s:$'\"]{1,100}:[^\s$'\"<{]",
        before=r"(?<![\w.-])curl\s",
    ),
    _shape(
        "login of a registry", '"auth"', r"\"auth\"[ \t]{0,9}:[ \t]{0,9}\"[A-Za-z0-9+/]{8,}={0,2}\""
    ),
    _shape(
        "login of a netrc file",
        "login|machine",
        r"\b(?:login|machine)[ \t]+\S{1,200}\s{1,20}password[ \t]+[^\s$<{]",
    ),
    _shape(
        "password in XML",
        "<pass|<secret|<token",
        r"<(?i:password|passwd|passphrase|secret|token)>[^<\s]{4,500}</",
    ),
    _shape(
        "password in a URL",
        "://",
        r"(?<=[A-Za-z0-9])://[^\s/:@'\"$<{]{0,200}:[^\s/@'\"$<{]{1,1000}@[A-Za-z0-9\[]",
    ),
    _shape(
        "password of an option",
        "login",
        r"login[ \t]+(?:[^\s|;&]{1,200}[ \t]+){0,6}?(?:-p[ \t]*|--password=)['\"]?[^\s$'\"<{=-]",
        before=r"(?<![\w.-])(?:docker|podman|apptainer|singularity|skopeo|buildah|helm|oras)\s",
    ),
    _shape("API key", "wandb login", r"wandb login[ \t]+(?:--\S{1,40}[ \t]+){0,3}[0-9a-f]{40}"),
    _shape(
        "address that lets anybody post",
        "hooks.slack.com/services/|/api/webhooks/",
        r"hooks\.slack\.com/services/T\w{4,20}/B\w{4,20}/\w{16}|/api/webhooks/\d{15,20}/[\w-]{40}",
    ),
    _shape(
        "token of a conda channel",
        "/t/",
        r"(?<=[A-Za-z0-9])/t/(?:[a-z]{2}-[0-9a-f-]{16}|[0-9a-z-]{0,40}[0-9a-f]{16})",
    ),
    _shape(
        "private key",
        "-key-data",
        r"-key-data['\"]?[ \t]{0,9}:[ \t]{0,9}['\"]?[A-Za-z0-9+/]{40}",
    ),
    _shape(
        "value of a name that is kept for secrets",
        "name",
        r"(?i:name['\"]?[ \t]{0,9}:[ \t]{0,9}['\"]?(?:[\w.-]{0,80}[_.-])?"
        r"(?:password|passwd|secret|token|api[_-]?key)['\"]?,?\s{1,80}"
        r"['\"]?value['\"]?[ \t]{0,9}:[ \t]{0,9}['\"]?"
        r"(?!null\b|true\b|false\b|\d{1,5}\b)[^\s'\"$<{]{4})",
    ),
    _shape(
        "authorization header",
        "authorization",
        r"(?i:authorization)['\"]?[ \t]{0,9}[:=][ \t]{0,9}['\"]?(?i:basic|bearer|token|digest)"
        r"[ \t]+[^\s$<{%.]",
    ),
)

NAMES = (
    *(b"pass", b"pwd", b"secret", b"token", b"credential"),
    *(b"apikey", b"api_key", b"api-key", b"accesskey", b"access_key", b"access-key"),
    *(b"accountkey", b"account_key", b"private_key", b"private-key", b"privatekey"),
)
"""Where the last part of a name may begin that is kept for secrets, in lower case."""

_NAME_BYTES = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
_CORE = (
    rb"(?P<core>passw(?:or)?d|passphrase|pass|pwd|secret[_-]?(?:access[_-]?)?key|secret|token"
    rb"|(?:api|access|account|private)[_-]?key|credentials?)(?P<quote>\\?[\"']\]?)?"
)
_ATOM = rb"[\w.]{1,80}(?:\[(?:[\w., |]|\[[\w., |]{0,40}\]){0,80}\])?"
_ANNOTATION = (
    rb"(?:[ \t]{0,9}:[ \t]{0,9}[\"']?%b(?:[ \t]{0,9}\|[ \t]{0,9}%b){0,4}[\"']?"
    rb"(?=[ \t]{0,9}=(?!=)))?"
) % (_ATOM, _ATOM)
_REST = (
    rb"[ \t]{0,40}(?P<sign>=>|:=|:(?!:)|=(?!=))[ \t]{0,200}"
    # JSON may have the value in the next line.
    rb"(?(quote)(?:\r?\n[ \t]{0,200}(?=\\?[\"']))?)"
    rb"(?P<value>[bfru]{0,2}(?:\"{3}[^\"]{0,500}|'{3}[^']{0,500}"
    rb"|\\?\"[^\"\n]{0,500}\"|'[^'\n]{0,500}'|\\?\"[^\"\n]{500}|'[^'\n]{500})"
    rb"|(?P<bare>[^\s,;}\]]{1,500}))"
)
_ASSIGNMENT = re.compile(_CORE + _REST, re.IGNORECASE)
_ANNOTATED = re.compile(_CORE + _ANNOTATION + _REST, re.IGNORECASE)
"""An assignment in Python, in which a type may stand before the value."""
_BLOCK = re.compile(rb"[|>][0-9+-]{0,2}[ \t]*\r?\n[ \t]+(?P<value>\S{1,500})[ \t\r]*(?:\n|\Z)")
"""A text of YAML that begins in the next line, if it is one word."""
_OPENING = re.compile(rb"[bfru]{0,2}\\?[\"']+", re.IGNORECASE)
_LAST_IN_LINE = re.compile(rb"[ \t\r]*(?:\n|\Z)")
_GLUED = frozenset(
    (
        *(b"access", b"api", b"app", b"auth", b"bearer", b"bot", b"client", b"csrf", b"github"),
        *(b"gitlab", b"identity", b"jwt", b"oauth", b"refresh", b"registry", b"service"),
        *(b"session", b"user"),
    )
)
"""What stands before ``token`` without a sign between them."""
_FILTERS = frozenset((b"all", b"band", b"high", b"low"))
"""What stands before ``pass`` in the name of a filter."""
_AT_BEGINNING = re.compile(rb"[ \t{-]*(?:(?:export|set|let|local)[ \t]+)?")

_HARMLESS = re.compile(
    rb"|\$.*|<.*|\{.*|%[(sd{].*|\*+|null|none|nil|true|false|yes|no|x+|\.+|-+|[0-9]{1,3}|redacted"
    # The address of a page, such as those that a crate names its terms with.
    rb"|https?://[\w-]+(?:\.[\w-]+)+(?::\d+)?(?:/[a-z_.#~-]{0,40}|/v?\d[\d.]{0,4})*"
    # The version of a package, such as Debian's base-passwd.
    rb"|changeme|(?:\d+:)?\d+(?:\.\d+)+[0-9a-z.+~-]*",
    re.IGNORECASE,
)
_HARMLESS_BARE = re.compile(rb"[*%(~|&>].*")
_TO_BE_SET = re.compile(rb"\[[A-Z_]+")
"""What a description of settings has in brackets, such as ``[BOOL]``."""
_CALL = re.compile(rb"[A-Za-z_][\w.]*[(\[]")
_PLAIN_CALL = re.compile(rb"[A-Za-z_][\w.]*(?:\([A-Za-z_.]*\)|\[(?:[A-Za-z_]+|\d{1,3}))")
"""A call or an item that is one in any file; the bracket that ends an item ends a value, too."""
_TELLING = re.compile(rb"[0-9!@$%^&*+=/~?]")
"""What a word of a comment has that is hardly one of a language."""
_SWITCH = re.compile(rb"files|compat|sss|ldap|nis|db|systemd|winbind|extrausers")
"""What nsswitch.conf says of ``passwd``."""
_NUMBER = re.compile(rb"\d{1,5}")
_PLACE = re.compile(
    rb"[/.].*|[a-z0-9_.-]+/[a-z0-9_./-]*|-?\d*(?:\.\d*)?(?:e[+-]?\d{1,3})?|ok|fail(?:ed)?|done|pass(?:ed)?|all"
)


@dataclass(frozen=True, slots=True)
class Name:
    """A name that is kept for secrets, and its value.

    Parameters
    ----------
    text
        The name, in lower case.
    core
        Its last part.
    sign
        What stands between them.
    value
        As it stands there, with its quotes.
    quoted
        Whether it is a text, with quotes or in a block of YAML.
    noted
        Whether it is the last word of a comment.
    """

    text: str
    core: bytes
    sign: bytes
    value: bytes
    quoted: bool = False
    noted: bool = False

    def is_harmless(self, *, in_python: bool = False, in_code: bool = False) -> bool:
        """Return whether the value is none, stands for another, or is code.

        Parameters
        ----------
        in_python
            Whether it stands in a program in Python, where a text is always quoted.
        in_code
            Whether it stands in a program at all, where a value may be a call.
        """
        value = self._content()
        if _HARMLESS.fullmatch(value) or _means_little(self.core, value):
            return True
        if self.quoted:
            return False
        if _TO_BE_SET.fullmatch(self.value):
            return True
        call = _CALL.match(value) if in_code else _PLAIN_CALL.fullmatch(value)
        if (self.sign != b":" and call) or _HARMLESS_BARE.fullmatch(value):
            return True
        return in_python and not (self.noted and _TELLING.search(value))

    def _content(self) -> bytes:
        """Return the value without quotes, and without the bracket that opens a list."""
        if not self.quoted:
            return self.value.strip(b"[\\\"'")
        opening = _OPENING.match(self.value)
        return self.value[opening.end() if opening else 0 :].strip(b"\\\"' \t\r\n")


def _means_little(core: bytes, value: bytes) -> bool:
    """Return whether something else than a secret has such a value and such a name."""
    if core == b"token":
        return bool(_NUMBER.fullmatch(value))
    if core == b"passwd":
        return bool(_SWITCH.fullmatch(value))
    return core in (b"pass", b"pwd") and bool(_PLACE.fullmatch(value))


def name_at(text: bytes, place: int, *, in_python: bool = False) -> Name | None:
    """Return the name whose last part begins at a place, if it is kept for secrets.

    Parameters
    ----------
    text
        A file.
    place
        Where one of `NAMES` stands in it.
    in_python
        Whether it is a program in Python, where a type may stand before the value.
    """
    match = (_ANNOTATED if in_python else _ASSIGNMENT).match(text, place)
    if match is None or _is_before_a_key(match):
        return None
    head = text[max(0, place - _LONGEST_NAME) : place]
    rest = head.rstrip(_NAME_BYTES)
    prefix = head[len(rest) :]
    if rest.endswith(b"/") or not _is_last_part(prefix, rest, match):
        return None
    core = match["core"].lower()
    name = (prefix.lower() + core).lstrip(b"_-").decode()
    if match["sign"] == b":" and (block := _BLOCK.match(text, match.start("value"))):
        return Name(name, core, b":", block["value"], quoted=True)
    noted = _is_last_of_comment(match)
    return Name(name, core, match["sign"], match["value"], match["bare"] is None, noted)


def _is_before_a_key(match: re.Match[bytes]) -> bool:
    """Return whether what stands in the next line is no value, but a key with its own."""
    if b"\n" not in match.string[match.end("sign") : match.start("value")]:
        return False
    return match.string[match.end() : match.end() + _LINE_BEFORE].lstrip(b" \t").startswith(b":")


def _is_last_of_comment(match: re.Match[bytes]) -> bool:
    line = match.string[max(0, match.start() - _LINE_BEFORE) : match.start()].rpartition(b"\n")[2]
    return b"#" in line and _LAST_IN_LINE.match(match.string, match.end()) is not None


def _is_last_part(prefix: bytes, rest: bytes, match: re.Match[bytes]) -> bool:
    """Return whether what was found is a part of its own in the name."""
    core = match["core"]
    glued = re.split(rb"[_-]", prefix)[-1]
    own = not glued or (core[:1].isupper() and not glued[-1:].isupper()) or core.isupper()
    if core.lower() in (b"password", b"passwd"):
        return True
    if core.lower() not in (b"pass", b"pwd"):
        return own or core.lower() == b"secret" or glued.lower() in _GLUED
    if re.split(rb"[_-]", prefix.lower().rstrip(b"_-"))[-1] in _FILTERS:
        return False
    if prefix:
        return own and (bool(glued) or prefix.endswith(b"_"))
    return _is_bare_key(rest, match)


def _is_bare_key(rest: bytes, match: re.Match[bytes]) -> bool:
    """Return whether ``pass`` or ``pwd`` alone is a key, not a word or what a test prints."""
    if match["quote"] and rest[-1:] in (b"'", b'"'):
        return True
    if match["sign"] == b"=":
        return match["core"] != b"PWD"
    line = rest.rpartition(b"\n")[2]
    return not match["core"].isupper() and _AT_BEGINNING.fullmatch(line) is not None
