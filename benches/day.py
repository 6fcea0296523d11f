#!/usr/bin/env python3
"""A day of ECR events of a large organization, from trail files through the operator's own reader into a ledger.

Makes 8.6 million ECR events, 100 a second (60 % pulls, 30 % layer downloads, 10 % logins, one in a thousand a push), by
1,000 principals from 480 repositories, as trail files of 2,000 records below target/bench/; serves them as a bucket; and
has a reader ingest them into a new SQLite file, or the PostgreSQL database of --ledger. Prints minutes, peak memory of
the reader, and what is stored. The server of the files takes its share of the same machine.

usage: day.py INGEST [--events 8640000] [--ledger URL]
"""
import argparse, datetime, gzip, json, os, random, shutil, sys, tempfile, time
from concurrent.futures import ProcessPoolExecutor

import files, trail

PER_FILE = 2_000
PRINCIPALS = 1_000
TEXTS = 20_000
NAMES = ("BatchGetImage",) * 600 + ("GetDownloadUrlForLayer",) * 300 + ("GetAuthorizationToken",) * 99 + ("PutImage",)
REPOSITORIES = [f"team-{number % 40}/service-{number}" for number in range(480)]


def texts(rng):
    """Records with holes for the time and two ids."""
    made = []
    for number in range(TEXTS):
        record = files.ecr(rng, NAMES[number % len(NAMES)], rng.choice(REPOSITORIES))
        principal = rng.randrange(PRINCIPALS)
        role, session = f"node-{principal % 40}", f"i-{principal:017x}"
        identity = record["userIdentity"]
        identity["arn"] = f"arn:aws:sts::{files.ACCOUNT}:assumed-role/{role}/{session}"
        identity["principalId"] = f"AROA{role.upper():Q<17}:{session}"
        identity["sessionContext"]["sessionIssuer"]["arn"] = f"arn:aws:iam::{files.ACCOUNT}:role/{role}"
        record |= {"eventTime": "\0", "requestID": "\0", "eventID": "\0"}
        made.append(json.dumps(record, separators=(",", ":")).split("\\u0000"))
    return made


def uuid():
    h = os.urandom(16).hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def write(part):
    below, day, numbers, total = part
    made = texts(random.Random(1))
    rng = random.Random(numbers.start)
    for number in numbers:
        records = []
        for _ in range(PER_FILE):
            second = (number + rng.random()) * 86_400 / total
            at = (day + datetime.timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%SZ")
            before, after_time, after_request, end = rng.choice(made)
            records += (before, at, after_time, uuid(), after_request, uuid(), end, ",")
        text = '{"Records":[' + "".join(records[:-1]) + "]}"
        delivered = day + datetime.timedelta(seconds=number * 86_400 / total)
        name = f"{files.ACCOUNT}_CloudTrail_{trail.REGION}_{delivered:%Y%m%dT%H%MZ}_{number:016x}.json.gz"
        with open(os.path.join(below, name), "wb") as file:
            file.write(gzip.compress(text.encode(), 6, mtime=0))


def make(events):
    """The bucket, and how many files are in it."""
    total = events // PER_FILE
    day = datetime.datetime.now(datetime.timezone.utc).replace(hour=0, minute=0, second=0) - datetime.timedelta(days=1)
    bucket = os.path.join(files.ROOT, f"day-{events}-{day:%Y%m%d}")
    if not os.path.exists(bucket + ".done"):
        shutil.rmtree(bucket, ignore_errors=True)
        below = os.path.join(bucket, "AWSLogs", files.ACCOUNT, "CloudTrail", trail.REGION, day.strftime("%Y/%m/%d"))
        os.makedirs(below)
        parts = [range(at, min(at + 100, total)) for at in range(0, total, 100)]
        with ProcessPoolExecutor() as pool:
            list(pool.map(write, [(below, day, numbers, total) for numbers in parts]))
        open(bucket + ".done", "w").close()
    return bucket, total


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ingest")
    parser.add_argument("--events", type=int, default=8_640_000)
    parser.add_argument("--ledger")
    arguments = parser.parse_args()
    os.makedirs(files.ROOT, exist_ok=True)
    bucket, count = make(arguments.events)
    size = sum(os.path.getsize(os.path.join(path, name)) for path, _, names in os.walk(bucket) for name in names)
    print(f"{count} files, {size / 2**20:.0f} MiB", flush=True)
    with trail.s3(bucket) as environment, tempfile.TemporaryDirectory(dir=files.ROOT) as scratch:
        ledger = arguments.ledger or os.path.join(scratch, "ledger.db")
        begun = time.monotonic()
        cpu, peak, said = trail.run([arguments.ingest, "s3", "trail", str(count), "--ledger", ledger], environment)
        minutes = (time.monotonic() - begun) / 60
        print(f"{said}; {minutes:.1f} minutes, {cpu / 60:.1f} of CPU, {peak:.0f} MiB at most")
        if not arguments.ledger:
            print(f"ledger: {os.path.getsize(ledger) / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
