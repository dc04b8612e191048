"""rocrate-validator without the network: it fetches RO-Crate 1.1's JSON-LD context, which no
package carries. The rocrate library brings that of 1.3; the two differ, in what our crates use, by
the addresses of two types."""

import json
from pathlib import Path

import rocrate

BIOSCHEMAS = "https://bioschemas.org/"


class Context:
    """The answer to a request of the context, as requests gives it."""

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
    """What the validator finds against the Workflow Run Crate profile, and those that it extends."""
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
