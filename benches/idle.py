"""How soon the operator is ready in an empty cluster, and what memory it then holds.

    cargo run --example testbed -- python3 benches/idle.py target/release/ecr-audit

The testbed gives a control plane in KUBECONFIG. Prints the median of several starts: seconds from
the start of the process to the first 200 of /readyz, and its resident memory half a minute later.
"""

import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

STARTS = 5
IDLE_SECONDS = 30


def start(program, folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        "KUBECONFIG": os.environ["KUBECONFIG"],
        "POD_NAME": "operator-0",
        "POD_NAMESPACE": "default",
        "AWS_EC2_METADATA_DISABLED": "true",
        "ECR_AUDIT_LISTEN": address,
        "ECR_AUDIT_LEDGER": os.path.join(folder, "ledger.db"),
        "RUST_LOG": "warn",
    }
    began = time.monotonic()
    process = subprocess.Popen([program, "run"], env=environment)
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}/readyz", timeout=5):
                return process, time.monotonic() - began
        except (urllib.error.URLError, ConnectionError):
            if process.poll() is not None:
                sys.exit("it ended")
            time.sleep(0.005)


def resident(process):
    """Resident memory in MiB, and the part of it that is no file's."""
    with open(f"/proc/{process.pid}/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    return [int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon")]


def main():
    program = sys.argv[1]
    definitions = subprocess.run([program, "crd"], check=True, stdout=subprocess.PIPE)
    subprocess.run(["kubectl", "apply", "-f", "-"], input=definitions.stdout, check=True)
    subprocess.run(
        ["kubectl", "wait", "--for=condition=Established", "crd", "--all"], check=True
    )
    # The API server publishes what it was given a moment later.
    time.sleep(5)
    starts, memory = [], None
    for number in range(STARTS):
        with tempfile.TemporaryDirectory() as folder:
            process, seconds = start(program, folder)
            starts.append(seconds)
            if number == STARTS - 1:
                time.sleep(IDLE_SECONDS)
                memory = resident(process)
            process.send_signal(signal.SIGTERM)
            if process.wait(timeout=10):
                sys.exit("it did not end well")
    print(f"ready after {statistics.median(starts):.2f} s (of {STARTS}: slowest {max(starts):.2f} s)")
    print(f"idle: {memory[0]:.1f} MiB resident, of which {memory[1]:.1f} MiB anonymous")


main()
