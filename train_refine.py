"""Trains MattingRefine, the second stage. `train` is the whole run, read from top to bottom.

python train_refine.py --model-pretrain-initialization checkpoint/NAME/best.pth --dataset-dir DIR
python train_refine.py --model-last-checkpoint auto --dataset-dir DIR
"""

import sys
from typing import TYPE_CHECKING

import common  # noqa: F401  # first: it refuses a Python that is too old
from training.launch import launch
from training.options import RefineOptions, parse_refine_options

if TYPE_CHECKING:
    from torch import Tensor, nn

    from model.matting_refine import Refined
    from training.run import Run


def main(argv: list[str] | None = None) -> int:
    """Trains as the command line says. Returns the exit status: 0; 2 where the input is at fault,
    with one line that says what; 128 + the signal's number where it was asked to stop."""
    return launch("train_refine.py", parse_refine_options, train, argv)


def train(options: RefineOptions, run: "Run") -> None:
    # Imported only now: torch takes seconds, and --help need not wait for it.
    from dataset.augmentation import augment
    from model import MattingRefine
    from training.checkpointer import Checkpointer
    from training.data import open_data
    from training.journal import open_journal
    from training.loader import TrainingSteps
    from training.loss import refine_loss
    from training.pictures import pictures
    from training.refined import RefinedShare
    from training.start import look_ahead, start_run
    from training.validator import Validator

    # ---- Data and network; then exactly one of resume, transfer, scratch ------------------------

    source = look_ahead(run)
    data = open_data(run)
    model = run.place(
        lambda: MattingRefine(
            options.model_backbone,
            backbone_scale=options.model_backbone_scale,
            refine_mode=options.model_refine_mode,
            refine_sample_pixels=options.model_refine_sample_pixels,
            refine_threshold=options.model_refine_threshold,
            refine_kernel_size=options.model_refine_kernel_size,
        )
    )
    state = run.training_state(
        model,
        backbone=options.lr_backbone,
        aspp=options.lr_aspp,
        decoder=options.lr_decoder,
        refiner=options.lr_refiner,
    )
    start = start_run(run, state, data, source)
    if run.step >= data.last_step:
        run.say(f"nothing to do: {run.step} steps are done; the limit is {data.limit}")
        return

    def losses(
        network: "nn.Module", src: "Tensor", bgr: "Tensor", true_pha: "Tensor", true_fgr: "Tensor"
    ) -> tuple["Refined", dict[str, "Tensor"]]:
        """The network's outputs and the terms of the loss, by name. Tensors in, tensors out: this
        is what training and validation measure."""
        with run.autocast():
            outputs = network(src, bgr)
        return outputs, refine_loss(outputs, true_pha, true_fgr)

    # ---- What works beside the loop -------------------------------------------------------------

    journal = open_journal(run, data, start)
    optimizer = run.guard(state)
    checkpointer = run.enter(Checkpointer(run, state, data, start, journal, optimizer.flush))
    validator = Validator(run, state, data, losses, journal)
    refined = RefinedShare(options, run.say, run.team)
    network = run.team.wrap(model).train()
    if not (start.resumed or options.dry_run):
        validator.validate(run.step)

    # ---- The loop -------------------------------------------------------------------------------

    for step, micro_batches in run.enter(TrainingSteps(run, data, journal, checkpointer.check)):
        for batch in micro_batches:  # one, or as many as --accumulate says
            model.seed_dropout(batch["dropout_seeds"])
            inputs = augment(batch, run.device, run.layout)  # src, bgr, true_pha, true_fgr
            with run.team.averaging(network, last=batch is micro_batches[-1]):
                outputs, terms = losses(network, *inputs)
                optimizer.backward(terms)
        optimizer.step()
        optimizer.check_later(step, micro_batches)

        if data.is_due(step, options.log_train_loss_interval):
            numbers = optimizer.numbers() | refined.numbers(step, outputs.ref_sm)
            journal.train_losses(step, optimizer.terms, optimizer.learning_rates(), **numbers)
        if step % options.log_train_images_interval == 0:
            journal.train_pictures(step, pictures(inputs, outputs))
        is_best = data.is_due(step, options.log_valid_interval) and validator.validate(step)
        is_due = data.is_due(step, options.checkpoint_interval) or step % data.epoch_steps == 0
        if is_due or is_best:
            checkpointer.save(step, is_due, is_best)

    checkpointer.finish()
    if options.dry_run:
        checkpointer.read_back(run.step)
        journal.batch_picture(pictures(inputs, outputs))


if __name__ == "__main__":
    sys.exit(main())
