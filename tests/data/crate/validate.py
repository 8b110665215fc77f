"""Run roc-validator on a crate with the contexts from this directory; print what it finds.

Usage: validate.py DIRECTORY. The exit code is 0 if the crate follows Process Run Crate 0.5 at the
levels REQUIRED and RECOMMENDED.
"""

import io
import json
import sys
from pathlib import Path

import rdflib.plugins.shared.jsonld.context as jsonld_context
import rdflib.plugins.shared.jsonld.util as jsonld_util
import requests
import urllib3

HERE = Path(__file__).parent
CONTEXTS = {
    "https://w3id.org/ro/crate/1.1/context": HERE / "ro-crate-1.1-context.json",
    "https://w3id.org/ro/terms/workflow-run/context": HERE / "workflow-run-context.json",
}

fetch = jsonld_util.source_to_json


def from_file(source, *args, **more):
    """Read a context from its file."""
    if str(source) in CONTEXTS:
        return json.loads(CONTEXTS[str(source)].read_text()), None
    return fetch(source, *args, **more)


def answer(adapter, request, **more):
    """Answer a request for a context."""
    url = request.url.partition("#")[0]
    if url not in CONTEXTS:
        raise requests.ConnectionError(f"not asked of the network: {url}")
    content = CONTEXTS[url].read_bytes()
    response = requests.Response()
    response.status_code, response.url, response.request = 200, url, request
    response.headers["Content-Type"] = "application/ld+json"
    response._content = content
    response.raw = urllib3.HTTPResponse(
        body=io.BytesIO(content),
        status=200,
        headers=dict(response.headers),
        preload_content=False,
    )
    response.raw._request_url = url
    return response


jsonld_util.source_to_json = jsonld_context.source_to_json = from_file
requests.adapters.HTTPAdapter.send = answer

from rocrate_validator import models, services  # noqa: E402 - after what it imports is replaced

good = True
for level in ("REQUIRED", "RECOMMENDED"):
    settings = services.ValidationSettings(
        rocrate_uri=sys.argv[1],
        profile_identifier="process-run-crate-0.5",
        requirement_severity=getattr(models.Severity, level),
    )
    found = services.validate(settings)
    good = good and found.passed()
    print(level, "passed" if found.passed() else "failed")
    for issue in found.get_issues():
        print(" ", issue.severity.name, issue.check.identifier, issue.message)
sys.exit(0 if good else 5)
