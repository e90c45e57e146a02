"""AWS's own SDK against the door: lambda.py ENDPOINT KEY_ID KEY. Expects the functions `echo`, `trap` and `math.echo`."""

import json
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

endpoint, key_id, key = sys.argv[1:]


def client(key_id=key_id, key=key):
    config = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=30)
    credentials = {"aws_access_key_id": key_id, "aws_secret_access_key": key}
    return boto3.client("lambda", endpoint_url=endpoint, region_name="eu-west-1", config=config, **credentials)


def refused(call):
    try:
        call()
    except ClientError as error:
        return error.response
    raise AssertionError("it was to fail")


aws = client()

# Waited for.
payload = json.dumps({"name": "Zoë", "list": [1, None]}).encode()
for name in ["echo", "echo:$LATEST", "arn:aws:lambda:eu-west-1:123456789012:function:echo", "math.echo"]:
    answer = aws.invoke(FunctionName=name, Payload=payload)
    assert answer["StatusCode"] == 200 and answer["ExecutedVersion"] == "$LATEST", answer
    assert answer["Payload"].read() == payload and "FunctionError" not in answer, answer
assert len(answer["ResponseMetadata"]["RequestId"]) == 36
tailed = aws.invoke(FunctionName="echo", Payload=b"{}", LogType="Tail", Qualifier="$LATEST")
assert tailed["LogResult"] == "" or isinstance(tailed["LogResult"], str), tailed

# Failed.
answer = aws.invoke(FunctionName="trap", Payload=b"{}")
assert answer["StatusCode"] == 200 and answer["FunctionError"] == "Unhandled", answer
assert json.load(answer["Payload"])["errorType"] == "trap"
response = refused(lambda: aws.invoke(FunctionName="nobody"))
assert response["Error"]["Code"] == "ResourceNotFoundException", response
assert response["ResponseMetadata"]["HTTPStatusCode"] == 404
response = refused(lambda: aws.invoke(FunctionName="echo", Qualifier="prod"))
assert response["Error"]["Code"] == "ResourceNotFoundException", response

# Later, and not at all.
assert aws.invoke(FunctionName="echo", InvocationType="Event", Payload=payload)["StatusCode"] == 202
assert aws.invoke_async(FunctionName="echo", InvokeArgs=payload)["Status"] == 202
assert aws.invoke(FunctionName="echo", InvocationType="DryRun")["StatusCode"] == 204
for kind in ["Event", "DryRun"]:
    response = refused(lambda: aws.invoke(FunctionName="nobody", InvocationType=kind))
    assert response["Error"]["Code"] == "ResourceNotFoundException", response

# What there is.
pages = aws.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 2})
names = [function["FunctionName"] for page in pages for function in page["Functions"]]
assert names == ["echo", "math.echo", "trap"], names
found = aws.get_function(FunctionName="echo")["Configuration"]
assert (found["FunctionName"], found["Timeout"], found["MemorySize"], found["State"]) == ("echo", 10, 128, "Active")
assert aws.get_function_configuration(FunctionName="echo")["FunctionName"] == "echo"

# Who is somebody else.
response = refused(lambda: client(key="wrong").invoke(FunctionName="echo"))
assert response["Error"]["Code"] == "InvalidSignatureException", response
response = refused(lambda: client(key_id="nobody").invoke(FunctionName="echo"))
assert response["Error"]["Code"] == "UnrecognizedClientException", response
other = client(key_id="bob", key="1234")
assert other.list_functions()["Functions"] == []
assert refused(lambda: other.invoke(FunctionName="echo"))["Error"]["Code"] == "ResourceNotFoundException"
