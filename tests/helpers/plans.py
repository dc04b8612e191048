"""Plans of studies and of scales, without a workflow."""

from mgm.results.plan import RunPlan
from mgm.study import CONFIG
from mgm.study.expand import expand
from mgm.study.load import of_paper
from mgm.study.scales import UNSCALED, Scale, file_of, load_scale
from mgm.study.schema import Study
from mgm.study.videos import datasets_of


def plan_of(study: Study) -> RunPlan:
    """Return the plan of a study at its scale."""
    scale = load_scale(file_of(study.scale, CONFIG)) if study.scale else UNSCALED
    return expand([study], scale, datasets_of([study], scale))


def plan_at(scale: str | Scale, **changes) -> RunPlan:
    """Return the plan of the paper's studies at a scale."""
    if isinstance(scale, str):
        scale = load_scale(CONFIG / f"{scale}.yaml")
    scale = scale.model_copy(update=changes)
    studies = of_paper(scale)
    return expand(studies, scale, datasets_of(studies, scale))
