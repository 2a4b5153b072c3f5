"""Compares every `ckptfs VERB --help` with its man page: synopsis, options.

Renders the little of man(7) that the pages use; needs no groff.
"""
import re
import subprocess

ALTERNATING = {"BR": "BR", "RB": "RB", "BI": "BI", "IB": "IB", "RI": "RI",
               "IR": "IR"}


def words(line):
    """The arguments of a macro, quotes undone."""
    return [w.strip('"') for w in re.findall(r'"[^"]*"|[^ ]+', line)]


def text(s):
    s = re.sub(r"\\f[BIRP]", "", s)
    return (s.replace("\\-", "-").replace("\\(dq", '"').replace("…", "...")
            .replace("\\ ", " ").replace("\\&", ""))


def render(line):
    """One source line as text, or None for a macro without text."""
    if not line.startswith("."):
        return text(line)
    name, _, rest = line[1:].partition(" ")
    if name in ALTERNATING:
        return text("".join(words(rest)))
    if name in ("B", "I"):
        return text(" ".join(words(rest)))
    return None


def sections(page):
    found, name = {}, None
    for line in page.splitlines():
        if line.startswith(".SH "):
            name = line[4:].strip('" ')
            found[name] = []
        elif name:
            found[name].append(line)
    return found


def man_synopsis(page):
    forms, form = [], []
    for line in sections(page)["SYNOPSIS"] + [".br"]:
        if line.startswith(".br"):
            forms.append(" ".join(" ".join(form).split()))
            form = []
        else:
            form.append(render(line) or "")
    return forms


def man_options(page):
    """The tags of the outermost list under OPTIONS that name an option."""
    options, depth, tag = set(), 0, False
    for line in sections(page).get("OPTIONS", []):
        if line.startswith(".RS"):
            depth += 1
        elif line.startswith(".RE"):
            depth -= 1
        elif line.startswith(".TP"):
            tag = depth == 0
        elif tag:
            options.add(" ".join(render(line).split()))
            tag = False
    return {o for o in options if o.startswith("-")}


def help_synopsis(help_text):
    usage = help_text.split("\n\n")[0]
    assert usage.startswith("usage: "), usage
    forms = re.split(r"(?=\bckptfs )", usage[len("usage: "):])
    return [" ".join(f.replace("…", "...").split()) for f in forms if f.strip()]


def help_options(help_text):
    """Lines that begin with two blanks and an option."""
    options = set()
    for line in help_text.splitlines():
        m = re.match(r"  (-\S.*?)(  |$)", line)
        if m:
            options.add(" ".join(m.group(1).split()))
    return options


def no_help(options):
    return {o for o in options if "--help" not in o}


def compare(ckptfs, verb, page_path):
    """A list of what does not agree."""
    text_out = subprocess.run([ckptfs, verb, "--help"], check=True,
                              capture_output=True, text=True).stdout
    with open(page_path, encoding="utf-8") as f:
        page = f.read()
    problems = []
    for line in text_out.splitlines():
        if len(line) > 80:
            problems.append(f"{verb}: help is wider than 80 columns: {line}")
    ours = [s for s in man_synopsis(page) if s.startswith(f"ckptfs {verb}")]
    if help_synopsis(text_out) != ours:
        problems.append(f"{verb}: synopsis: help {help_synopsis(text_out)}, "
                        f"man {ours}")
    a, b = no_help(help_options(text_out)), no_help(man_options(page))
    if a != b:
        problems.append(f"{verb}: options: only in help {sorted(a - b)}, "
                        f"only in man {sorted(b - a)}")
    return problems
