#!/usr/bin/env python3
"""Counts the results of every runner in a directory and says what failed or was skipped. Its last line is the whole run's.

  results.py DIRECTORY

Reads JUnit XML (*.xml, from pytest and cmocka), TAP (*.tap, from node) and lines `pass|fail|skip<TAB>name<TAB>reason`
(*.checks, from tests/run). Exits with 1 when something failed or nothing ran.
"""
import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree


def junit(path):
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = f"{path.stem}: {case.get('name')}"
        bad = [e for e in case if e.tag in ("failure", "error")]
        skipped = case.find("skipped")
        if bad:
            yield "fail", name, "\n".join((e.text or e.get("message") or "").strip() for e in bad)
        elif skipped is not None:
            yield "skip", name, (skipped.get("message") or skipped.text or "").strip()
        else:
            yield "pass", name, ""


def tap(path):
    # Node 18 nests a file's tests under a line for the file, which is not one.
    text = path.read_text()
    for number, line in enumerate(text.splitlines()):
        found = re.match(r"\s*(not )?ok \d+ - (.*?)(?: # (SKIP|[A-Z]+)\s*(.*))?$", line)
        if found and not found[2].endswith(".js"):
            state = "skip" if found[3] else "fail" if found[1] else "pass"
            after = "\n".join(text.splitlines()[number + 1:number + 30]) if state == "fail" else found[4] or ""
            yield state, f"{path.stem}: {found[2]}", after


def checks(path):
    for line in path.read_text().splitlines():
        state, name, reason = (line.split("\t") + ["", ""])[:3]
        yield state, name, reason


def main(directory):
    count = dict.fromkeys(("pass", "fail", "skip"), 0)
    notes = []
    for path in sorted(pathlib.Path(directory).rglob("*")):
        reader = {".xml": junit, ".tap": tap, ".checks": checks}.get(path.suffix)
        for state, name, reason in reader(path) if reader else ():
            count[state] += 1
            if state != "pass":
                notes.append((state, name, reason))
    for wanted, title in (("skip", "skipped"), ("fail", "FAILED")):
        for state, name, reason in notes:
            if state == wanted:
                lines = reason.strip().splitlines() or [""]
                print(f"{title}: {name}: {lines[0]}")
                for line in lines[1:40] if state == "fail" else ():
                    print(f"    {line}")
    skipped = f", {count['skip']} skipped" if count["skip"] else ""
    print(f"{count['pass']} passed, {count['fail']} failed{skipped}")
    return 0 if count["pass"] and not count["fail"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
