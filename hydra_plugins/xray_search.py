"""The search for hyper-parameters: Optuna proposes, each trial is a run of its own, and validation decides.

Hydra's own plugin for Optuna stops at Optuna 2, or needs a Hydra that is not released; the keys are those it has.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from rich import get_console

from xray_lightning.artifacts import atomic_write
from xray_lightning.config import build, refuse_cut_path
from xray_lightning.errors import XRayError, plugin_errors

NO_CHOICE = ("dataset", "seed", "sweep")  # a loss on other data is no better, and a lucky seed no better model
DIGITS = 4  # of a number from an interval, in its run's name and in what is run


class OptunaSweeper(Sweeper):
    """Runs trials until there are `n_trials` in all, `n_jobs` at a time, with the result of a job as its objective.

    The study is kept in `storage`, so the same sweep goes on where it stopped: trials that had no end are begun again
    with their values. `sampler` names an optuna.samplers class, whose seed is `seed` and the number of trials so far.
    `params` holds values to choose from besides those of the command line.
    """

    def __init__(
        self,
        storage: str,
        sampler: Mapping[str, Any],
        direction: Literal["minimize", "maximize"],
        n_trials: int,
        n_jobs: int,
        seed: int,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        with plugin_errors("hydra/sweeper=optuna", "optuna"):
            import optuna

            if n_trials < 1 or n_jobs < 1:
                raise XRayError("hydra.sweeper.n_trials and hydra.sweeper.n_jobs must be at least 1.")
            refuse_cut_path(storage, "hydra.sweeper.storage")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.storage, self.sampler, self.direction, self.seed = storage, sampler, direction, seed
        self.n_trials, self.n_jobs = n_trials, n_jobs
        self.params = params or {}
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.folder = Path(config.hydra.sweep.dir)
        self.config_loader = hydra_context.config_loader
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        given = [f"{key}={value}" for key, value in self.params.items()] + arguments
        parser = OverridesParser.create(config_loader=self.config_loader)
        with plugin_errors("hydra/sweeper=optuna", "optuna"):
            last = {o.key_or_group: o for o in parser.parse_overrides(given)}  # the command line's before params
            space = {o.get_key_element(): _distribution(o) for o in last.values() if o.is_sweep_override()}
            fixed = [str(o.input_line) for o in last.values() if not o.is_sweep_override()]
            study = self._open(space, fixed)
        begun = [
            trial for trial in study.trials if not trial.state.is_finished() and trial.params.keys() == space.keys()
        ]
        while (left := self.n_trials - sum(trial.state.is_finished() for trial in study.trials)) > 0:
            size = min(left, self.n_jobs)
            again, begun = begun[:size], begun[size:]
            self._run(study, [*again, *(study.ask(dict(space)) for _ in range(size - len(again)))], fixed)
            self._write(study)
        self._show(study)

    def _open(self, space: Mapping[str, Any], fixed: Sequence[str]) -> Any:
        """The study, new or as it was left. Raises XRayError where it was one of something else."""
        import optuna

        if not space:
            raise XRayError(
                "A search needs something to choose: model.optimizer.lr='tag(log,interval(1e-4,1e-2))', for example."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            study = optuna.create_study(
                storage=self.storage, study_name="search", direction=self.direction, load_if_exists=True
            )
        except ImportError:
            raise
        except Exception as error:  # of a file that is damaged or something else's, whatever the database stumbles over
            raise XRayError(
                f"{self.folder} holds no study that can be gone on with ({str(error).splitlines()[0]}). Name another "
                "sweep, or remove its search.db: runs that are done are not run again."
            ) from error
        study.sampler = build(self.sampler, seed=self.seed + len(study.trials))
        asked = {"fixed": sorted(fixed), "space": sorted(f"{key}: {values}" for key, values in space.items())}
        if study.user_attrs.get("asked", asked) != asked:
            raise XRayError(
                f"{self.folder} holds a search of something else: {study.user_attrs['asked']}. Name another."
            )
        study.set_user_attr("asked", asked)
        return study

    def _run(self, study: Any, trials: Sequence[Any], fixed: Sequence[str]) -> None:
        from optuna.trial import TrialState

        chosen = [(*fixed, *(f"{key}={_text(value)}" for key, value in trial.params.items())) for trial in trials]
        runs = list(dict.fromkeys(chosen))  # what is proposed twice runs once
        assert self.launcher is not None
        results = dict(zip(runs, self.launcher.launch(runs, initial_job_idx=trials[0].number), strict=True))
        for trial, own in zip(trials, chosen, strict=True):
            value = float(results[own].return_value)
            if math.isnan(value):
                study.tell(trial.number, state=TrialState.FAIL)
            else:
                study.tell(trial.number, value)

    def _write(self, study: Any) -> None:
        if values := [trial.value for trial in study.trials if trial.value is not None]:
            results = {
                "name": "optuna",
                "best_params": _best(study),
                "best_value": study.best_value,
                "trials": len(values),
            }
            with atomic_write(self.folder / "optimization_results.yaml") as file:
                file.write(OmegaConf.to_yaml(OmegaConf.create(results)))

    def _show(self, study: Any) -> None:
        done = [trial for trial in study.trials if trial.value is not None]
        if done:
            best = " ".join(f"{key}={value}" for key, value in _best(study).items())
            told = f"Of {len(done)} trials the best on validation, {study.best_value:.4f}: {best}"
            get_console().print(told, markup=False, highlight=False, soft_wrap=True)


def _best(study: Any) -> dict[str, str]:
    return {key: _text(value) for key, value in study.best_params.items()}


def _text(value: Any) -> str:
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value)


def _distribution(override: Override) -> Any:
    """What Optuna draws from: numbers from an interval, otherwise one of the values as they are written."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if override.key_or_group in NO_CHOICE:
        raise XRayError(
            f"A search cannot choose {override.key_or_group}: validation on one says nothing of the others."
        )
    value = override.value()
    if isinstance(value, IntervalSweep) and value.start is not None and value.end is not None:
        log = "log" in value.tags
        if isinstance(value.start, int) and isinstance(value.end, int):
            return IntDistribution(value.start, value.end, log=log)
        return FloatDistribution(value.start, value.end, log=log)
    return CategoricalDistribution(list(override.sweep_string_iterator()))
