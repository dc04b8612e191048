"""Run rocrate-validator without the network.

The validator downloads RO-Crate 1.1's JSON-LD context, which is in no package. The rocrate library
has the context of 1.3. For our crates, the two differ only in the addresses of two types.
"""

import json
from pathlib import Path

import rocrate

BIOSCHEMAS = "https://bioschemas.org/"


class Context:
    """Response to a request for the context, like a response of `requests`."""

    status_code, ok, text = 200, True, ""
    headers = {"Content-Type": "application/ld+json"}  # noqa: RUF012

    def json(self):
        held = json.loads((Path(rocrate.__file__).parent / "data/ro-crate.jsonld").read_text())[
            "@context"
        ]
        return {
            "@context": held
            | {name: BIOSCHEMAS + name for name in ("ComputationalWorkflow", "FormalParameter")}
        }


def findings(crate: Path, monkeypatch, recommended: bool = False) -> list[str]:
    """Return violations of the Workflow Run Crate profile, and of the profiles that it extends."""
    from rocrate_validator.models import Severity, ValidationSettings
    from rocrate_validator.services import validate
    from rocrate_validator.utils.http import HttpRequester

    monkeypatch.setattr(HttpRequester, "get", lambda self, url, **_: Context(), raising=False)
    severity = Severity.RECOMMENDED if recommended else Severity.REQUIRED
    settings = ValidationSettings(
        rocrate_uri=str(crate),
        profile_identifier="workflow-run-crate-0.5",
        requirement_severity=severity,
    )
    return sorted(
        {f"{issue.check.identifier} {issue.message}" for issue in validate(settings).get_issues()}
    )
