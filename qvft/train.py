"""`python -m qvft.train RECIPE [key.path=value ...]`: trains what a recipe says.

Several GPUs: `accelerate launch -m qvft.train RECIPE` starts a process for each.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from qvft.files import expanded
from qvft.log import exit_status, get_logger, is_main_process, stdout
from qvft.recipe.command_line import RecipeParser
from qvft.terminal import program

logger = get_logger("qvft.train")


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Trains; returns the exit status."""
    parser = RecipeParser(prog="qvft.train", description=__doc__)
    parser.add_argument("recipe", type=expanded, help="YAML file, e.g. recipes/custom_jsonl.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    given = parser.parse_args(arguments)
    return exit_status(
        lambda: train(given.recipe, given.overrides),
        when_stopped="what is written is whole; go on with train.resume=auto",
        many_processes=True,
    )


def train(recipe_path: str, overrides: Sequence[str]) -> None:
    """Recipe, data, model, adapters, features, training, checkpoint."""
    from qvft.checking.before_torch import require_models, require_settings, training_texts
    from qvft.files import require_space, require_writable
    from qvft.recipe.load import idle_keys, load_recipe
    from qvft.recipe.unused_keys import named_in_file
    from qvft.training.resolve_revision import resolve_revision, revision_from_lock
    from qvft.training.run_folder import check_folder, claimed_folder, has_progress, is_finished

    recipe = load_recipe(recipe_path, overrides)
    for line in named_in_file(recipe, idle_keys(recipe)):
        logger.warning("%s: %s", recipe_path, line)
    require_settings(recipe)
    require_models(recipe)
    folder = check_folder(revision_from_lock(recipe))
    if has_progress(folder):
        from qvft.training.recorded_data import require_same_data

        require_same_data(recipe, folder)
    if is_finished(folder):
        logger.info("%s: training has finished already", folder)
        return
    require_writable(folder, folder=True)
    require_writable(folder / "metrics.jsonl")
    texts = training_texts(recipe)

    # All mistakes that can be told without torch have been told.
    from qvft.adapters.table import component_table
    from qvft.training.run_phases import run_phases
    from qvft.training.setup import training_setup

    recipe = resolve_revision(recipe)
    work = training_setup(recipe, texts=texts)
    require_space(folder, work.needed_bytes())
    with claimed_folder(recipe):
        if is_finished(folder):  # by another process, meanwhile
            return
        if is_main_process():
            for warning in work.warnings():
                logger.warning("%s", warning)
            for plan in work.plans:
                stdout.print(component_table(work.counts(plan), title=f"phase {plan.phase.name}"))
        work.cache_features()
        run_phases(
            folder,
            work.phase_setups(),
            save_weights=work.save_weights,
            restore_weights=work.restore_weights,
        )
        for sentence in work.look_at_queries():
            logger.warning(sentence)
    logger.info("adapter written to %s", folder / "adapter")


if __name__ == "__main__":
    sys.exit(main())
