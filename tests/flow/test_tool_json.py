"""With --json every command of the tool prints JSON and nothing else: one value, or one a line where results come one by one."""
import json
import re

from test_tool import OK, q, tool  # noqa: F401 (two are fixtures)


def commands_of(tool):
    """Every command that the help names."""
    for name, group in re.findall(r"^  ([a-z]+)( \.\.\.)?", tool("--help").out.split("Commands:")[1].split("Options")[0], re.M):
        if not group:
            yield name
        else:
            for second in re.findall(r"^  ([a-z-]+)", tool(name, "--help").out.split("Commands:")[1], re.M):
                yield f"{name} {second}"


def values(text):
    """The JSON values in what was printed; anything else raises."""
    decoder, at, found = json.JSONDecoder(), 0, []
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        value, at = decoder.raw_decode(text, at)
        found.append(value)
    return found


def test_every_command_prints_json_and_nothing_else_where_it_is_asked_to(tool, receiver, q):
    job = tool("job", "submit", "-q", q, "-t", "T").out.strip()
    failed = tool("job", "submit", "-q", q, "-t", "T", "--priority", "9", "--max-attempts", "1").out.strip()

    def delivery():
        return tool("--json", "callback", "deliveries", q, "--job", failed).json["deliveries"][0]["id"]

    # In an order in which each finds what it needs.
    lines = {
        "version": [], "health": [], "activate": ["media"], "queue create": ["other"], "queue list": [], "queue show": [q],
        "queue update": [q, "--max-concurrent", "3"], "queue pause": [q], "queue resume": [q],
        "callback set": [q, "--url", receiver.url()], "callback show": [q], "callback test": [q], "callback rotate-secret": [q],
        "worker": ["-q", q, "--exec", "exit 65", "--count", "1"], "job watch": [failed],
        "callback deliveries": [q], "callback show-delivery": [delivery], "callback redeliver": [delivery], "job retry": [failed],
        "callback off": [q], "job submit": ["-q", q, "-t", "T"], "job get": [job], "job list": [q], "job explain": [job], "job priority": [job, "7"],
        "job cancel": [job], "queue purge": [q], "queue delete": ["other"],
    }
    # What prints no results: a script for the shell, and a receiver, whose lines the tests of `listen` read; `bench` has tests of its own.
    others = {"completion", "listen"}
    unknown = {command for command in commands_of(tool) if not command.startswith("bench ")} - set(lines) - others
    assert not unknown, "commands without a line here"
    for command, arguments in lines.items():
        given = [argument() if callable(argument) else argument for argument in arguments]
        done = tool(*command.split(), *given, "--json", expect=1 if command == "job watch" else OK)
        assert values(done.out), f"{command} printed nothing"
        assert not done.err or command == "worker", (command, done.err)
