"""Verdicts on the claims of the papers, from the quoted tables."""

from pathlib import Path

from mgm.report.claims import (
    AGREES,
    CONTRADICTED,
    DIFFERS,
    MISCOUNTED,
    SILENT,
    each,
    judge_claims,
    read_claims,
)
from mgm.report.estimates import repeats_the_paper
from mgm.results.plan import RunPlan
from mgm.study.load import read_studies
from mgm.study.quoted import reported
from tests.helpers.plans import plan_at

CLAIMS = read_claims()
# Claim id -> the tables' value, computed by hand.
EXCEPTIONS = {
    "about-1000-samples": "1324; 980",
    "previous-state-of-the-art": "+0.3 or -0.6",  # MotionMAE, MAM2
    "up-to-4.9": "",  # +7.0 by a probe on UCF101
    "intro-up-to-4.9": "",
    "ssv2-1.2": "+1.0 or +1.5 or +1.3",
    "three-times-less-time": "1.85",
    "motionmae-half-the-epochs": "+0.0; 33.33",
    "k400-videomae-1.4": "+0.8",
    "k400-recent-works": "+1.1; +2.0; -0.6; +0.9; +0.4; +0.0",  # MAM2, and MotionMAE's equal 81.7
    "k400-gains-are-lower": "+0.2; +1.3; -0.2; +1.7; +0.4",  # M3Video: +0.4 on SSv2, +0.6 on K400
    "no-large-boost": "+1.3; +5.0; +0.3",  # HMDB51
    "gap-over-20": "+17.0; +22.8",  # HMDB51
    "half-the-time": "0.81",
    "diving48-size": "16997; 48",
}


def plan_of(name: str) -> RunPlan:
    return plan_at(name, seeds=(0,), seeds_of={}, without=())


def test_what_the_tables_contradict_is_just_this():
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    verdicts = judge_claims().set_index("id", drop=False)
    against = verdicts[verdicts.verdict.isin([CONTRADICTED, DIFFERS, MISCOUNTED])]
    assert set(against.id) == set(EXCEPTIONS)
    for name, text in EXCEPTIONS.items():
        assert verdicts.quoted[name] == text or not text
    assert "+7.0" in verdicts.quoted["up-to-4.9"]
    assert list(verdicts.id[verdicts.verdict == DIFFERS]) == ["ssv2-1.2"]  # +1.3
    assert list(verdicts.id[verdicts.verdict == MISCOUNTED]) == [
        *("three-times-less-time", "half-the-time"),
    ]
    assert set(verdicts.id[verdicts.verdict == SILENT]) == {
        *("saliency-ssv2", "saliency-k400", "ratio-0.75", "vectors-30-times-faster"),
        *("st-mae-agnostic", "st-mae-90-percent", "st-mae-4-times-faster"),
    }
    assert tuple(verdicts.loc["jitter", ["verdict", "source"]]) == (AGREES, "4.5 Ablations")


def test_every_formula_names_cells_that_exist():
    """Only the ablation of ST-MAE's ratio has no rows."""
    studies = read_studies(Path(), plan_of("smoke"))
    for claim in CLAIMS:
        for said in (said for group in claim.groups for said in group):
            for term in said.formula.terms:
                study, _, dataset = term.place.partition("/")
                if term.number is not None or study == "facts":
                    continue
                assert dataset in studies[study].datasets, claim.id
                quoted = {key[2] for key in reported() if key[:2] == (study, dataset)}
                known = term.row in studies[study].rows or term.row in quoted
                assert known or claim.id == "st-mae-90-percent", (claim.id, term)


def test_a_changed_number_flips_what_uses_it_and_nothing_else():
    """A changed number affects only the claims that name its cell."""
    before = judge_claims().set_index("id").verdict
    for key in [
        ("table1", "ssv2", "MGM, 2400", "Fine-tuned"),
        ("table2", "hmdb51-after-ssv2", "MGM", "Linear probe"),
        ("table4", "ssv2", "No jitter", "Fine-tuned"),
        ("table4e", "ssv2", "Random Tube", "Fine-tuned"),
    ]:
        quoted = {**reported(), key: reported()[key]._replace(value=1.0)}
        after = judge_claims(quoted).set_index("id").verdict
        turned = {name for name in before.index if before[name] != after[name]}
        using = {
            claim.id
            for claim in CLAIMS
            for group in claim.groups
            for said in group
            for term in said.formula.terms
            if (term.place, term.row) == (f"{key[0]}/{key[1]}", key[2])
        }
        assert turned
        assert turned <= using


def test_data_models_and_schedules_decide_what_repeats_the_paper():
    paper = plan_of("paper").specs.values()
    assert repeats_the_paper(paper)
    assert not repeats_the_paper(plan_of("smoke").specs.values())
    assert not repeats_the_paper(plan_of("mini").specs.values())
    (run, *_) = [spec for spec in paper if spec.stage == "pretrain"]
    for field, change in (("data", {"digest": "0" * 12}), ("model", {"width": 48, "heads": 4})):
        other = getattr(run, field).model_copy(update=change)
        assert not repeats_the_paper([run.model_copy(update={field: other})])


def test_lists_stand_for_each_of_their_parts():
    assert list(each("{A; B} minus C-{x; y} above 0")) == [
        *("A minus C-x above 0", "A minus C-y above 0"),
        *("B minus C-x above 0", "B minus C-y above 0"),
    ]
