#!/usr/bin/env python3
"""Every panel of the dashboard, and every example query of docs/metrics.md, returns data from a real
Prometheus. It scrapes series shaped like the operator's and kube-state-metrics' (the .prom files
here), whose names and labels have to be those that docs/metrics.md lists, none left out.

Needs `prometheus` and `promtool` on the PATH.
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
        mine = [line for line in series if re.match(rf"{name}[{{ ]", line)]
        if not mine:
            sys.exit(f"operator.prom has no {name}")
        for line in mine:
            if re.findall(r'(\w+)="', line) != wanted:
                sys.exit(f"docs/metrics.md says that the labels are {wanted}: {line}")
        known += len(mine)
        text += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}", *mine]
    if known != len(series):
        sys.exit("operator.prom has a metric that docs/metrics.md does not know")
    text = "\n".join(text) + "\n"
    subprocess.run(["promtool", "check", "metrics"], input=text, text=True, check=True)
    return text


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
        queries += [(title, target["expr"]) for target in panel["targets"]]
    return queries


def filled(query):
    """A query as Grafana sends it, when `All` is chosen."""
    query = query.replace("$__rate_interval", "30s").replace("$__range", "1h")
    query = re.sub(r"\$\{?(cluster|namespace|policy)\b(:\w+)?\}?", ".*", query)
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


def ask(port, query):
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]["result"], None
    except urllib.error.HTTPError as error:
        return None, json.load(error).get("error", str(error))
    except OSError:
        return None, None  # not up yet


def main():
    examples = re.findall(r"```promql\n(.*?)```", REFERENCE.read_text(), re.S)
    queries = [(f"panel {title!r}", filled(query)) for title, query in panels()]
    queries += [("docs/metrics.md", query) for query in examples]
    if len(queries) < 10 or not examples:
        sys.exit("there is nothing to ask")
    targets = serve(exposition())
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        jobs = [
            {
                "job_name": name,
                "metrics_path": path,
                "honor_labels": True,
                "static_configs": [{"targets": [f"127.0.0.1:{targets}"]}],
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
        try:
            deadline = time.monotonic() + LIMIT
            empty = queries
            while empty and time.monotonic() < deadline:
                if prometheus.poll() is not None:
                    sys.exit(f"prometheus ended:\n{log.read_text()}")
                waiting = []
                for where, query in empty:
                    result, error = ask(port, query)
                    if error:
                        sys.exit(f"{where}: {error}\n{query}")
                    if not result:
                        waiting.append((where, query))
                empty = waiting
                if empty:
                    time.sleep(0.5)
        finally:
            prometheus.terminate()
            prometheus.wait()
    if empty:
        sys.exit("no data:\n" + "\n".join(f"{where}: {query}" for where, query in empty))
    print(f"{len(queries)} queries returned data")


if __name__ == "__main__":
    main()
