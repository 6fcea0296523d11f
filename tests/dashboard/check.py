#!/usr/bin/env python3
"""Every panel of the dashboard, and every example query of docs/metrics.md, returns data from a real
Prometheus: with `All` chosen, and with one value of each variable. It scrapes series shaped like the
operator's and kube-state-metrics' (the .prom files here), whose names and labels have to be those
that docs/metrics.md lists, none left out.

    check.py                     # starts Prometheus; needs `prometheus` and `promtool` on the PATH
    check.py --prometheus URL    # the panels only, in one that scrapes a running operator

The dashboard itself is held against the rules of Grafana's dashboard-linter, but for two: it has no
variables `job` and `instance`, since the series name what they are about themselves.
"""

import http.server
import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DASHBOARD = ROOT / "charts/ecr-audit-operator/files/dashboard.json"
REFERENCE = ROOT / "docs/metrics.md"
LIMIT = 90  # seconds; a loaded machine is slow


def exposition():
    """The operator's series with HELP and TYPE as the reference has them."""
    rows = re.findall(r"^\| `(ecr_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", REFERENCE.read_text(), re.M)
    series = (HERE / "operator.prom").read_text().splitlines()
    text, known = [], 0
    for name, kind, labels, meaning in rows:
        wanted = re.findall(r"`(\w+)`", labels)
        suffix = "(?:_bucket|_sum|_count)" if kind == "histogram" else ""
        mine = [line for line in series if re.match(rf"{name}{suffix}[{{ ]", line)]
        if not mine:
            sys.exit(f"operator.prom has no {name}")
        for line in mine:
            bound = ["le"] if line.startswith(f"{name}_bucket") else []
            if re.findall(r'(\w+)="', line) != wanted + bound:
                sys.exit(f"docs/metrics.md says that the labels are {wanted}: {line}")
        known += len(mine)
        text += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}", *mine]
    if known != len(series):
        sys.exit("operator.prom has a metric that docs/metrics.md does not know")
    text = "\n".join(text) + "\n"
    subprocess.run(["promtool", "check", "metrics"], input=text, text=True, check=True)
    return text


SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def variables():
    """Name, selector and label of each variable that is asked for."""
    asked = []
    first, *others = json.loads(DASHBOARD.read_text())["templating"]["list"]
    if (first["type"], first["name"], first["label"]) != ("datasource", "datasource", "Data source"):
        sys.exit("the first variable is not the data source")
    for variable in others:
        name = variable["name"]
        if variable["datasource"] != SOURCE or not variable["label"]:
            sys.exit(f"variable {name} has no label, or not the chosen data source")
        if variable["refresh"] != 2:
            sys.exit(f"variable {name} is not asked for anew when the time range changes")
        match = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
        if not match or variable["definition"] != variable["query"]["query"]:
            sys.exit(f"variable {name} is not asked for by label_values")
        asked.append((name, *match.groups()))
    return asked


def lint():
    """The shape of the classic JSON model, as far as people have got it wrong."""
    dashboard = json.loads(DASHBOARD.read_text())
    if dashboard["editable"]:
        sys.exit("what is provisioned cannot be edited: editable has to be false")
    if dashboard["id"] is not None or not dashboard["uid"] or dashboard["schemaVersion"] < 36:
        sys.exit("id has to be null, uid a text, schemaVersion that of Grafana 9 or later")
    ids, taken = set(), set()
    for panel in dashboard["panels"]:
        if panel["id"] in ids:
            sys.exit(f"two panels have the id {panel['id']}")
        ids.add(panel["id"])
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        if cells & taken or at["x"] + at["w"] > 24:
            sys.exit(f"panel {panel['title']!r} lies on another, or beyond the edge")
        taken |= cells


def panels():
    """Title and query of every target; each panel says what it shows, and in which unit."""
    queries, pending = [], list(json.loads(DASHBOARD.read_text())["panels"])
    while pending:
        panel = pending.pop(0)
        pending += panel.get("panels", [])
        if panel["type"] == "row":
            continue
        title = panel["title"]
        if not panel.get("description"):
            sys.exit(f"panel {title!r} has no description")
        if not panel["fieldConfig"]["defaults"].get("unit"):
            sys.exit(f"panel {title!r} has no unit")
        if not panel["targets"]:
            sys.exit(f"panel {title!r} asks for nothing")
        for asks in (panel, *panel["targets"]):
            if asks.get("datasource") != SOURCE:
                sys.exit(f"panel {title!r} does not use the chosen data source")
        for target in panel["targets"]:
            counters = re.findall(r"(\w+)\(\s*\w+_total\b|\b\w+_total\b", target["expr"])
            if any(function not in ("rate", "increase", "irate") for function in counters):
                sys.exit(f"panel {title!r} shows a counter without a rate")
            windows = re.findall(r"\[([^\]]*)\]", target["expr"])
            if any(window != "$__rate_interval" for window in windows):
                sys.exit(f"panel {title!r} has a rate over another window than $__rate_interval")
        queries += [(title, target["expr"]) for target in panel["targets"]]
    return queries


def filled(query, chosen=None):
    """A query as Grafana sends it, when `All` is chosen, or these values of the variables."""
    query = query.replace("$__rate_interval", "30s").replace("$__range", "1h")
    pick = lambda match: (chosen or {}).get(match.group(1), ".*")
    query = re.sub(r"\$\{?(cluster|namespace|policy)\b(?::\w+)?\}?", pick, query)
    if "$" in query:
        sys.exit(f"a variable that the dashboard does not have: {query}")
    return query


def serve(operator):
    pages = {"/operator": operator, "/kube": (HERE / "kube-state-metrics.prom").read_text()}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = pages[self.path].encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def get(url):
    """What Prometheus answers, or why it refuses; neither while it is not up."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"], None
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        return None, text if error.code < 500 else None
    except OSError:
        return None, None


def until(wanted, ended=lambda: None):
    """Asks for every (where, URL) until each has an answer that is not empty; the answers."""
    answers, deadline = {}, time.monotonic() + LIMIT
    while len(answers) < len(wanted):
        if time.monotonic() > deadline:
            missing = [f"{where}: {urllib.parse.unquote_plus(url)}" for where, url in wanted if url not in answers]
            sys.exit("no data:\n" + "\n".join(missing))
        ended()
        for where, url in wanted:
            if url not in answers:
                data, error = get(url)
                if error:
                    sys.exit(f"{where}: {error}\n{urllib.parse.unquote_plus(url)}")
                result = data["result"] if isinstance(data, dict) else data
                if result:
                    answers[url] = result
        if len(answers) < len(wanted):
            time.sleep(0.5)
    return answers


def check(base, examples=(), ended=lambda: None):
    """Every variable has a value, every panel has data: with `All`, and with one value of each."""
    query = lambda text: f"{base}/api/v1/query?" + urllib.parse.urlencode({"query": text})
    asked = {
        name: f"{base}/api/v1/label/{label}/values?" + urllib.parse.urlencode({"match[]": filled(selector)})
        for name, selector, label in variables()
    }
    values = until([(f"variable {name}", url) for name, url in asked.items()], ended)
    chosen = {name: values[url][0] for name, url in asked.items()}
    shown = panels()
    wanted = {query(filled(text)): f"panel {title!r}" for title, text in shown}
    wanted |= {query(filled(text, chosen)): f"panel {title!r} of {chosen}" for title, text in shown}
    wanted |= {query(text): "docs/metrics.md" for text in examples}
    if len(shown) < 10:
        sys.exit("there is nothing to ask")
    until([(where, url) for url, where in wanted.items()], ended)
    of = ", ".join(f"{name}={value}" for name, value in chosen.items())
    also = f" and {len(examples)} examples" if examples else ""
    print(f"{len(shown)} panels{also} returned data, of everything and of {of}")


def main():
    lint()
    if sys.argv[1:2] == ["--prometheus"]:
        return check(sys.argv[2].rstrip("/"))
    examples = re.findall(r"```promql\n(.*?)```", REFERENCE.read_text(), re.S)
    if not examples:
        sys.exit("docs/metrics.md has no example")
    targets = serve(exposition())
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        jobs = [
            {
                "job_name": name,
                "metrics_path": path,
                "honor_labels": True,
                "static_configs": [{"targets": [f"127.0.0.1:{targets}"], "labels": {"cluster": "demo"}}],
            }
            for name, path in (("ecr-audit-operator", "/operator"), ("kube-state-metrics", "/kube"))
        ]
        every = {"scrape_interval": "1s", "scrape_timeout": "1s"}
        config = Path(folder, "prometheus.yml")
        config.write_text(json.dumps({"global": every, "scrape_configs": jobs}))
        log = Path(folder, "log")
        with log.open("w") as output:
            prometheus = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=output,
                stderr=output,
            )

        def ended():
            if prometheus.poll() is not None:
                sys.exit(f"prometheus ended:\n{log.read_text()}")

        try:
            check(f"http://127.0.0.1:{port}", examples, ended)
        finally:
            prometheus.terminate()
            prometheus.wait()


if __name__ == "__main__":
    main()
