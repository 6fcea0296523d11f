#!/usr/bin/env python3
"""How fast trail files are read, and in how much memory: `check` against pure inflate.

Makes its own corpora (deterministic, below target/bench/), then runs the two programs in turn, so
that a machine whose speed drifts changes neither ratio, and prints the median of each: the CPU time
of `check` on one thread, divided by that of inflating the same files; the peak of its resident
memory, and how much of that is there without any file; and how much sooner two threads are done,
by the clock, which needs two cores that nothing else uses.

usage: files.py CHECK INFLATE [--rounds 7] [--files 120] [--folder FOLDER…]

--folder reads trail files of your own instead.
"""
import argparse, gzip, json, os, random, re, shutil, statistics, subprocess, sys, time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "target", "bench")
ACCOUNT = "111122223333"
HEX = "0123456789abcdef"
REPOSITORIES = [f"{team}/{app}" for team in ("shop", "search", "pay", "data") for app in ("web", "api", "worker", "cron")]


def hexes(rng, length):
    return "".join(rng.choices(HEX, k=length))


def uuid(rng):
    h = hexes(rng, 32)
    return "-".join((h[:8], h[8:12], h[12:16], h[16:20], h[20:]))


def identity(rng):
    role = rng.choice(("node", "ci", "deploy", "scanner")) + "-" + rng.choice(("blue", "green", "red"))
    session = "i-0" + hexes(rng, 16) if role.startswith("node") else "botocore-session-" + hexes(rng, 10)
    key = "AROA" + role.upper().replace("-", "X").ljust(17, "Q")[:17]
    return {
        "type": "AssumedRole", "principalId": f"{key}:{session}", "accountId": ACCOUNT,
        "arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/{session}", "accessKeyId": "ASIA" + hexes(rng, 16).upper(),
        "sessionContext": {
            "sessionIssuer": {"type": "Role", "principalId": key, "arn": f"arn:aws:iam::{ACCOUNT}:role/{role}",
                              "accountId": ACCOUNT, "userName": role},
            "webIdFederationData": {}, "attributes": {"creationDate": "2026-03-01T00:00:00Z", "mfaAuthenticated": "false"}},
    }


def record(rng, source, name, request, response=None, read_only=True):
    return {
        "eventVersion": "1.09", "userIdentity": identity(rng), "eventTime": f"2026-03-01T00:{rng.randrange(60):02}:{rng.randrange(60):02}Z",
        "eventSource": source + ".amazonaws.com", "eventName": name, "awsRegion": "us-east-1",
        "sourceIPAddress": f"10.0.{rng.randrange(256)}.{rng.randrange(256)}",
        "userAgent": rng.choice(("aws-sdk-go/1.44.322 (go1.20.7; linux; amd64)", "Boto3/1.34.69 md/Botocore#1.34.69 ua/2.0 os/linux#6.1.79 md/arch#x86_64 lang/python#3.11.9", "containerd/1.7.11")),
        "requestParameters": request, "responseElements": response, "requestID": uuid(rng), "eventID": uuid(rng),
        "readOnly": read_only, "eventType": "AwsApiCall", "managementEvent": True, "recipientAccountId": ACCOUNT,
        "eventCategory": "Management",
        "tlsDetails": {"tlsVersion": "TLSv1.3", "cipherSuite": "TLS_AES_128_GCM_SHA256", "clientProvidedHostHeader": f"{source}.us-east-1.amazonaws.com"},
    }


def ecr(rng, name=None, repository=None):
    repository = repository or rng.choice(REPOSITORIES)
    name = name or rng.choices(
        ("BatchGetImage", "GetDownloadUrlForLayer", "GetAuthorizationToken", "PutImage"), (40, 35, 20, 5))[0]
    digest = "sha256:" + hexes(rng, 64)
    request = {"registryId": ACCOUNT, "repositoryName": repository}
    response = None
    if name == "BatchGetImage":
        request["imageIds"] = [rng.choice(({"imageTag": f"v{rng.randrange(40)}"}, {"imageDigest": digest}))]
        request["acceptedMediaTypes"] = ["application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json"]
    elif name == "GetDownloadUrlForLayer":
        request["layerDigest"] = digest
    elif name == "GetAuthorizationToken":
        request = None
    else:
        layers = [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "size": rng.randrange(10**8), "digest": "sha256:" + hexes(rng, 64)} for _ in range(8)]
        manifest = json.dumps({"schemaVersion": 2, "layers": layers}, indent=3)
        request |= {"imageManifest": manifest, "imageTag": f"v{rng.randrange(40)}"}
        response = {"image": {**request, "imageId": {"imageDigest": digest, "imageTag": request["imageTag"]}}}
    made = record(rng, "ecr", name, request, response, name != "PutImage")
    if request:
        made["resources"] = [{"accountId": ACCOUNT, "ARN": f"arn:aws:ecr:us-east-1:{ACCOUNT}:repository/{repository}"}]
    return made


def other(rng):
    kind = rng.randrange(4)
    if kind == 0:
        items = [{"value": "i-0" + hexes(rng, 16)} for _ in range(rng.randrange(1, 12))]
        return record(rng, "ec2", "DescribeInstances", {"filterSet": {"items": [{"name": "instance-id", "valueSet": {"items": items}}]}})
    if kind == 1:
        token = "".join(rng.choices("ABCDEFGHIJKLMNOPabcdefghijklmnop0123456789+/", k=rng.randrange(300, 700)))
        return record(rng, "sts", "AssumeRole", {"roleArn": f"arn:aws:iam::{ACCOUNT}:role/ci-blue", "roleSessionName": hexes(rng, 18)}, {"credentials": {"sessionToken": token}})
    if kind == 2:
        made = record(rng, "kms", "Decrypt", {"encryptionContext": {"aws:ecr:arn": f"arn:aws:ecr:us-east-1:{ACCOUNT}:repository/shop/web"}})
        # Looks like ECR everywhere but where it counts.
        made["userIdentity"]["invokedBy"] = made["userAgent"] = "ecr.amazonaws.com"
        return made
    return record(rng, "s3", "GetObject", {"bucketName": "logs", "key": f"a{{b}}/\"{hexes(rng, 24)}\"", "Host": "logs.s3.amazonaws.com"})


def corpus(name, files, events, share):
    folder = os.path.join(ROOT, name)
    if os.path.exists(folder + ".done"):
        return folder
    # By a process of its own: what this one holds would count as the peak of those that it starts.
    child = os.fork()
    if child:
        if os.waitpid(child, 0)[1]:
            sys.exit(f"not made: {folder}")
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    for number in range(files):
        rng = random.Random(f"{name}/{number}")
        recent, records = [], []
        for _ in range(events):
            if rng.random() < share:
                records.append(ecr(rng))
            elif recent and rng.random() < .5:  # pollers repeat themselves
                records.append(rng.choice(recent) | {"eventID": uuid(rng), "requestID": uuid(rng)})
            else:
                records.append(other(rng))
                recent = [*recent[-40:], records[-1]]
        text = json.dumps({"Records": records}, separators=(",", ":")).encode()
        with open(os.path.join(folder, f"{number:05}.json.gz"), "wb") as file:
            file.write(gzip.compress(text, 6, mtime=0))
    open(folder + ".done", "w").close()
    os._exit(0)


def run(command):
    """Seconds of CPU time, seconds by the clock."""
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 1):
        sys.exit(f"failed: {command}")
    return usage.ru_utime + usage.ru_stime, time.monotonic() - begun


def peak(command):
    """The peak of resident memory in MiB. What the kernel says of a process that has ended counts
    this one, too, which it was forked from: so it is asked again and again until the end."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    most = 0
    while process.poll() is None:
        with open(f"/proc/{process.pid}/status") as status:
            found = re.search(r"VmHWM:\s+(\d+) kB", status.read())
        most = max(most, int(found[1]) if found else 0)
        time.sleep(.001)
    return most / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("check")
    parser.add_argument("inflate")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--files", type=int, default=120)
    parser.add_argument("--folder", nargs="+", default=[])
    arguments = parser.parse_args()
    os.makedirs(ROOT, exist_ok=True)
    pods = os.path.join(ROOT, "pods.json")
    image = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/shop/web"
    digest = "sha256:" + "0" * 64
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": "n", "containers": [{"name": "web", "image": f"{image}@{digest}"}]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "web", "image": image, "imageID": f"{image}@{digest}"}]},
    }
    with open(pods, "w") as file:
        json.dump({"apiVersion": "v1", "kind": "List", "items": [pod]}, file)
    def check(folder, threads):
        return [arguments.check, "check", "--pods", pods, "--now", "2026-03-29T00:00:00Z", "--output", "json",
                "--threads", str(threads), "--events", folder]

    nothing = os.path.join(ROOT, "nothing")
    os.makedirs(nothing, exist_ok=True)
    least = max(peak(check(nothing, 1)) for _ in range(5))
    print(f"without a file: {least:.1f} MiB")
    print(f"{'corpus':<24}{'check / inflate':>16}{'2 threads':>12}{'peak MiB':>10}{'with 2':>10}")
    made = [("0 % ECR", arguments.files, 2000, 0), ("5 % ECR", arguments.files, 2000, .05),
            ("50 % ECR", arguments.files, 2000, .5), ("8,000 small files", 8000, 20, .05)]
    for name, *parameters in made if not arguments.folder else [(folder,) for folder in arguments.folder]:
        folder = corpus(name.replace(" ", "-").replace("%", "percent"), *parameters) if parameters else name
        ratios, sooner = [], []
        for _ in range(arguments.rounds + 1):  # the first warms up
            ours, clock = run(check(folder, 1))
            ratios.append(ours / run([arguments.inflate, folder])[0])
            sooner.append(clock / run(check(folder, 2))[1])
        peaks = [peak(check(folder, threads)) for threads in (1, 2)]
        print(f"{name[-24:]:<24}{statistics.median(ratios[1:]):>15.2f}x{statistics.median(sooner[1:]):>11.2f}x"
              f"{peaks[0]:>10.1f}{peaks[1]:>10.1f}", flush=True)


if __name__ == "__main__":
    main()
