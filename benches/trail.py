#!/usr/bin/env python3
"""What a trail's bucket costs to read: through S3 against the same files from the disk, by CPU time of the reader.

Both sides find, inflate, split and decode with the operator's own code, on the same files; S3's side adds listing,
requests, signatures, the hash of each text, and its answers' way through HTTP (without TLS). The server is a process of
its own and does not count. The two run in turn, so that a machine whose speed drifts changes no ratio; medians.

With a ledger both sides also store. Then the memory of reading N files and ten times as many, from S3 and from the
Event history.

usage: trail.py INGEST REPLAY [--rounds 5] [--files 120]
"""
import argparse, contextlib, datetime, json, os, random, shutil, statistics, subprocess, sys, tempfile

import files

ROOT = files.ROOT
REGION = "us-east-1"


def run(command, environment=None):
    """CPU seconds of a run, its peak of resident memory in MiB, and what it said."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})})
    said = process.stdout.read().strip()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {command}: {said}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, said


def lay_out(folder, bucket, most=None):
    """The files of a folder as a trail's, delivered over the whole of yesterday; how many."""
    shutil.rmtree(bucket, ignore_errors=True)
    day = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
    below = os.path.join(bucket, "AWSLogs", files.ACCOUNT, "CloudTrail", REGION, day.strftime("%Y/%m/%d"))
    os.makedirs(below)
    names = sorted(os.listdir(folder))[:most]
    for number, name in enumerate(names):
        minute = number * 1440 // len(names)
        time = day.replace(hour=minute // 60, minute=minute % 60).strftime("%Y%m%dT%H%MZ")
        key = f"{files.ACCOUNT}_CloudTrail_{REGION}_{time}_{number:016x}.json.gz"
        os.link(os.path.join(folder, name), os.path.join(below, key))
    return len(names)


@contextlib.contextmanager
def served(command):
    """What an AWS client needs to talk to a server, for as long as the server runs."""
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    url = server.stdout.readline().split()[0]
    try:
        yield {"AWS_ENDPOINT_URL": url, "AWS_REGION": REGION, "AWS_ACCESS_KEY_ID": "test",
               "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
    finally:
        server.stdin.close()
        server.wait()


def s3(bucket):
    here = os.path.dirname(os.path.abspath(__file__))
    return served([sys.executable, os.path.join(here, "bucket.py"), bucket])


def history(count):
    """A file with that many pulls, over the last 80 days."""
    now = datetime.datetime.now(datetime.timezone.utc)
    path = os.path.join(ROOT, f"history-{count}.jsonl")
    rng = random.Random(count)
    with open(path, "w") as file:
        for number in range(count):
            request = {"repositoryName": rng.choice(files.REPOSITORIES), "imageIds": [{"imageTag": f"v{rng.randrange(40)}"}]}
            made = files.record(rng, "ecr", "BatchGetImage", request)
            time = now - datetime.timedelta(days=80 * (number + 1) / count)
            made["eventTime"] = time.strftime("%Y-%m-%dT%H:%M:%SZ")
            print(json.dumps(made), file=file)
    return path


def ratios(ingest, name, folder, rounds):
    bucket = os.path.join(ROOT, "bucket")
    count = lay_out(folder, bucket)
    with s3(bucket) as environment, tempfile.TemporaryDirectory(dir=ROOT) as scratch:
        for with_ledger in (False, True):
            found, disk_seconds = [], []
            for number in range(rounds + 1):  # the first warms up
                ledger = lambda side: ["--ledger", os.path.join(scratch, f"{side}-{number}.db")] if with_ledger else []
                through, _, _ = run([ingest, "s3", "trail", str(count), *ledger("s3")], environment)
                disk, _, _ = run([ingest, "disk", bucket, *ledger("disk")])
                found.append(through / disk)
                disk_seconds.append(disk)
            what = "reading, decoding, storing" if with_ledger else "reading, decoding"
            per_file = statistics.median(disk_seconds[1:]) / count * 1e3
            print(f"{name:<20}{what:<28}{statistics.median(found[1:]):>8.2f}x{per_file:>12.2f}", flush=True)


def memory(ingest, replay, folder, most):
    print(f"\n{'back-fill of':<40}{'peak MiB':>10}")
    bucket = os.path.join(ROOT, "bucket")
    for count in (most // 10, most):
        lay_out(folder, bucket, count)
        with s3(bucket) as environment, tempfile.TemporaryDirectory(dir=ROOT) as scratch:
            _, peak, said = run([ingest, "s3", "trail", str(count), "--ledger", os.path.join(scratch, "ledger.db")], environment)
            print(f"{f'S3: {count} files':<40}{peak:>10.1f}   {said}", flush=True)
    for count in (5_000, 50_000):
        with served([replay, "--until-stdin-closes", "--quota", "0", history(count)]) as environment, \
                tempfile.TemporaryDirectory(dir=ROOT) as scratch:
            command = [ingest, "history", str(count), "--ledger", os.path.join(scratch, "ledger.db")]
            _, peak, said = run(command, environment)
            print(f"{f'Event history: {count} pulls':<40}{peak:>10.1f}   {said}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ingest")
    parser.add_argument("replay")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=120)
    arguments = parser.parse_args()
    os.makedirs(ROOT, exist_ok=True)
    print(f"{'corpus':<20}{'what':<28}{'S3 / disk':>9}{'ms a file':>12}")
    for name, count, events, share in (
        ("5 % ECR", arguments.files, 2000, .05), ("50 % ECR", arguments.files, 2000, .5), ("8,000 small files", 8000, 20, .05),
    ):
        folder = files.corpus(name.replace(" ", "-").replace("%", "percent"), count, events, share)
        ratios(arguments.ingest, name, folder, arguments.rounds)
    memory(arguments.ingest, arguments.replay, folder, 8000)


if __name__ == "__main__":
    main()
