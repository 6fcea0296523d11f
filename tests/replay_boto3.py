"""The replay server, judged by a client that is not ours: AWS's SDK for Python.

    replay_boto3.py SCENARIO ADDRESS

Each function below is a scenario; replay_boto3.rs starts a server for it. What goes
wrong is an exception, and the exit code says so.
"""

import datetime
import json
import sys
import time
import urllib.request

import boto3
import botocore.exceptions
from botocore.config import Config

NOW = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)


def client(service, url, region="us-east-1", attempts=1, **credentials):
    credentials = credentials or {
        "aws_access_key_id": "AKIAIOSFODNN7EXAMPLE",
        "aws_secret_access_key": "not-verified",
    }
    config = Config(retries={"total_max_attempts": attempts, "mode": "standard"})
    return boto3.client(service, region_name=region, endpoint_url=url, config=config, **credentials)


def control(url, method, path, value=None):
    body = None if value is None else json.dumps(value).encode()
    request = urllib.request.Request(url + "/_replay/" + path, body, method=method)
    with urllib.request.urlopen(request) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def record(number, name="PutImage", account="111122223333"):
    """A synthetic record that is `number` minutes old."""
    return {
        "eventVersion": "1.11",
        "userIdentity": {"type": "IAMUser", "userName": "release", "accountId": account},
        "eventTime": (NOW - datetime.timedelta(minutes=number)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "eventSource": "ecr.amazonaws.com",
        "eventName": name,
        "awsRegion": "us-east-1",
        "readOnly": False,
        "eventID": f"00000000-0000-4000-8000-{number:012}",
        "recipientAccountId": account,
    }


def numbers(events):
    return [int(event["EventId"].rsplit("-", 1)[1]) for event in events]


def refusal(call, **arguments):
    """The code and HTTP status of the error that the call has to end with."""
    try:
        answer = call(**arguments)
    except botocore.exceptions.ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return error.response["Error"]["Code"], status
    raise AssertionError(f"no error: {answer}")


def same(seen, expected):
    assert seen == expected, f"seen {seen!r}, expected {expected!r}"


def by_name(name):
    return [{"AttributeKey": "EventName", "AttributeValue": name}]


def the_paginator_walks_the_whole_history(url):
    control(url, "POST", "records", [record(n) for n in range(1, 121)])
    control(url, "POST", "records", {"Records": [record(500, "DeleteRepository")]})
    pages = client("cloudtrail", url).get_paginator("lookup_events").paginate(
        LookupAttributes=by_name("PutImage"),
        StartTime=NOW - datetime.timedelta(minutes=110),
        EndTime=NOW - datetime.timedelta(minutes=11),
    )
    pages = [page["Events"] for page in pages]
    same([len(page) for page in pages], [50, 50])
    events = [event for page in pages for event in page]
    same(numbers(events), list(range(11, 111)))
    first = events[0]
    same(first["EventTime"], NOW - datetime.timedelta(minutes=11))
    same((first["EventName"], first["EventSource"]), ("PutImage", "ecr.amazonaws.com"))
    same((first["ReadOnly"], first["Username"]), ("false", "release"))
    same(json.loads(first["CloudTrailEvent"]), record(11))


def every_attribute_key_selects(url):
    given = record(1)
    given["readOnly"] = True
    given["userIdentity"]["accessKeyId"] = "AKIAI44QH8DHBEXAMPLE"
    given["resources"] = [{"ARN": "arn:aws:ecr:us-east-1:111122223333:repository/a", "type": "AWS::ECR::Repository"}]
    given["userIdentity"]["userName"] = "other"
    given["eventSource"] = "other.amazonaws.com"
    control(url, "POST", "records", [given, record(2, "DeleteRepository")])
    trail = client("cloudtrail", url)
    for key, value in {
        "AccessKeyId": "AKIAI44QH8DHBEXAMPLE",
        "EventId": given["eventID"],
        "EventName": "PutImage",
        "EventSource": "other.amazonaws.com",
        "ReadOnly": "true",
        "ResourceName": "arn:aws:ecr:us-east-1:111122223333:repository/a",
        "ResourceType": "AWS::ECR::Repository",
        "Username": "other",
    }.items():
        attributes = [{"AttributeKey": key, "AttributeValue": value}]
        same((key, numbers(trail.lookup_events(LookupAttributes=attributes)["Events"])), (key, [1]))
    same(numbers(trail.lookup_events()["Events"]), [1, 2])


def wrong_parameters_have_their_own_errors(url):
    control(url, "POST", "records", [record(n) for n in range(1, 61)])
    trail = client("cloudtrail", url)
    look_up = trail.lookup_events
    same(refusal(look_up, MaxResults=51), ("InvalidMaxResultsException", 400))
    same(refusal(look_up, LookupAttributes=by_name("A") * 2), ("InvalidLookupAttributesException", 400))
    unknown = [{"AttributeKey": "Colour", "AttributeValue": "red"}]
    same(refusal(look_up, LookupAttributes=unknown), ("InvalidLookupAttributesException", 400))
    earlier = NOW - datetime.timedelta(days=1)
    same(refusal(look_up, StartTime=NOW, EndTime=earlier), ("InvalidTimeRangeException", 400))
    same(refusal(look_up, EventCategory="other"), ("InvalidEventCategoryException", 400))
    same(look_up(EventCategory="insight")["Events"], [])
    same(refusal(trail.list_trails), ("UnknownOperationException", 400))


def a_next_token_is_not_for_other_parameters(url):
    control(url, "POST", "records", [record(n) for n in range(1, 61)])
    look_up = client("cloudtrail", url).lookup_events
    parameters = {"LookupAttributes": by_name("PutImage"), "MaxResults": 20}
    token = look_up(**parameters)["NextToken"]
    same(numbers(look_up(**parameters, NextToken=token)["Events"]), list(range(21, 41)))
    bad = ("InvalidNextTokenException", 400)
    same(refusal(look_up, NextToken=token), bad)
    same(refusal(look_up, **(parameters | {"MaxResults": 21}), NextToken=token), bad)
    same(refusal(look_up, **parameters, StartTime=NOW, NextToken=token), bad)
    same(refusal(look_up, **parameters, NextToken=token[:-1]), bad)
    same(refusal(look_up, **parameters, NextToken="x"), bad)
    control(url, "PUT", "faults", [{"kind": "invalidNextToken"}])
    same(refusal(look_up, **parameters, NextToken=token), bad)
    same(len(look_up(**parameters)["Events"]), 20)


def the_quota_throttles_and_the_sdk_waits(url):
    trail = client("cloudtrail", url)
    refused = []
    for _ in range(4):
        try:
            trail.lookup_events()
        except botocore.exceptions.ClientError as error:
            refused.append(error.response["Error"]["Code"])
    assert refused and set(refused) == {"ThrottlingException"}, refused
    # The SDK knows the error by its code, and tries again.
    control(url, "PUT", "faults", [{"kind": "throttle", "next": 2}])
    time.sleep(1.1)
    answer = client("cloudtrail", url, attempts=8).lookup_events()
    assert answer["ResponseMetadata"]["RetryAttempts"] >= 2, answer
    stats = control(url, "GET", "stats")
    same(stats["lookups"][0]["throttled"], stats["quota"][0]["throttled"])
    assert stats["quota"][0]["throttled"] >= len(refused) + 2, stats


def the_sdk_sees_broken_answers_as_broken(url):
    control(url, "POST", "records", [record(n) for n in range(1, 31)])
    look_up = client("cloudtrail", url).lookup_events
    for fault, error in [
        ({"kind": "reset"}, botocore.exceptions.HTTPClientError),
        ({"kind": "truncate"}, botocore.exceptions.HTTPClientError),
    ]:
        control(url, "PUT", "faults", [fault | {"next": 1}])
        try:
            answer = look_up()
        except error:
            pass
        else:
            raise AssertionError(f"{fault}: {answer}")
        same(len(look_up()["Events"]), 30)
    # This client takes a body that is no JSON, too, for an answer without content.
    control(url, "PUT", "faults", [{"kind": "garbage", "next": 1}, {"kind": "noEvents", "next": 1}])
    for _ in range(2):
        assert "Events" not in look_up()
    control(url, "PUT", "faults", [{"kind": "serverError", "next": 1}])
    same(refusal(look_up), ("503", 503))
    control(url, "PUT", "faults", [{"kind": "accessDenied", "region": "us-east-1"}])
    same(refusal(look_up), ("AccessDeniedException", 400))
    same(client("cloudtrail", url, "eu-west-1").lookup_events()["Events"], [])
    control(url, "PUT", "faults", [{"kind": "delay", "milliseconds": 700, "next": 1}])
    started = time.monotonic()
    look_up()
    assert time.monotonic() - started >= 0.7


def an_assumed_role_reads_its_own_account(url):
    control(url, "POST", "records", [record(1), record(2, account="444455556666")])
    sts = client("sts", url)
    same(sts.get_caller_identity()["Arn"], "arn:aws:iam::111122223333:user/replay")
    role = "arn:aws:iam::444455556666:role/audit/ecr-audit"
    control(url, "PUT", "external-ids", {role: "secret & <more>"})
    asked = {"RoleArn": role, "RoleSessionName": "ecr-audit-operator"}
    denied = ("AccessDenied", 403)
    same(refusal(sts.assume_role, **asked), denied)
    same(refusal(sts.assume_role, **asked, ExternalId="guess"), denied)
    assumed = sts.assume_role(**asked, ExternalId="secret & <more>")
    arn = "arn:aws:sts::444455556666:assumed-role/ecr-audit/ecr-audit-operator"
    same(assumed["AssumedRoleUser"]["Arn"], arn)
    assert assumed["Credentials"]["Expiration"] > NOW + datetime.timedelta(minutes=55)
    session = {
        "aws_access_key_id": assumed["Credentials"]["AccessKeyId"],
        "aws_secret_access_key": assumed["Credentials"]["SecretAccessKey"],
        "aws_session_token": assumed["Credentials"]["SessionToken"],
    }
    identity = client("sts", url, **session).get_caller_identity()
    same((identity["Account"], identity["Arn"]), ("444455556666", arn))
    same(numbers(client("cloudtrail", url, **session).lookup_events()["Events"]), [2])
    same(numbers(client("cloudtrail", url).lookup_events()["Events"]), [1])

    forged = session | {"aws_session_token": session["aws_session_token"].replace("4444", "1111")}
    same(refusal(client("cloudtrail", url, **forged).lookup_events)[0], "UnrecognizedClientException")
    same(refusal(client("sts", url, **forged).get_caller_identity), ("InvalidClientTokenId", 403))
    bad = asked | {"RoleArn": "arn:aws:iam::444455556666:user/somebody-else"}
    same(refusal(sts.assume_role, **bad), ("ValidationError", 400))
    control(url, "PUT", "faults", [{"kind": "accessDenied", "operation": "AssumeRole", "role": role}])
    same(refusal(sts.assume_role, **asked, ExternalId="secret & <more>"), denied)
    other = asked | {"RoleArn": "arn:aws:iam::777788889999:role/ecr-audit"}
    same(sts.assume_role(**other)["ResponseMetadata"]["HTTPStatusCode"], 200)


def a_session_ends(url):
    sts = client("sts", url)
    asked = {"RoleArn": "arn:aws:iam::444455556666:role/ecr-audit", "RoleSessionName": "short"}
    given = sts.assume_role(**asked)["Credentials"]
    session = {
        "aws_access_key_id": given["AccessKeyId"],
        "aws_secret_access_key": given["SecretAccessKey"],
        "aws_session_token": given["SessionToken"],
    }
    trail = client("cloudtrail", url, **session)
    same(trail.lookup_events()["Events"], [])
    time.sleep(3.1)
    same(refusal(trail.lookup_events), ("ExpiredTokenException", 400))
    same(refusal(client("sts", url, **session).get_caller_identity), ("ExpiredToken", 403))


if __name__ == "__main__":
    scenario, url = sys.argv[1:]
    globals()[scenario](url)
