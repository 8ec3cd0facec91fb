"""Trains MattingBase, the first stage. `train` is the whole run, read from top to bottom.

python train_base.py --model-backbone resnet50 --model-pretrain-initialization deeplab.pth
python train_base.py --model-backbone resnet50 --model-last-checkpoint auto
"""

import sys
from typing import TYPE_CHECKING

import common  # noqa: F401  # first: it refuses a Python that is too old
from training.launch import launch
from training.options import TrainingOptions, parse_base_options

if TYPE_CHECKING:
    from torch import Tensor, nn

    from model.matting_base import Outputs
    from training.run import Run


def main(argv: list[str] | None = None) -> int:
    """Trains as the command line says. Returns the exit status: 0; 2 where the input is at fault,
    with one line that says what; 128 + the signal's number where it was asked to stop."""
    return launch("train_base.py", parse_base_options, train, argv)


def train(options: TrainingOptions, run: "Run") -> None:
    # Imported only now: torch takes seconds, and --help need not wait for it.
    from dataset.augmentation import augment
    from model import MattingBase
    from training.checkpointer import Checkpointer
    from training.data import open_data
    from training.journal import open_journal
    from training.loader import TrainingSteps
    from training.loss import matting_loss
    from training.pictures import pictures
    from training.start import look_ahead, start_run
    from training.validator import Validator

    # ---- Data and network; then exactly one of resume, transfer, scratch ------------------------

    source = look_ahead(run)
    data = open_data(run)
    model = run.place(lambda: MattingBase(options.model_backbone))
    state = run.training_state(
        model, backbone=options.lr_backbone, aspp=options.lr_aspp, decoder=options.lr_decoder
    )
    start = start_run(run, state, data, source)
    if run.step >= data.last_step:
        run.say(f"nothing to do: {run.step} steps are done; the limit is {data.limit}")
        return

    def losses(
        network: "nn.Module", src: "Tensor", bgr: "Tensor", *truth: "Tensor"
    ) -> tuple["Outputs", dict[str, "Tensor"]]:
        """The network's outputs and the terms of the loss, by name. Tensors in, tensors out: this
        is what training and validation measure."""
        with run.autocast():
            outputs = network(src, bgr, hid=False)
        return outputs, matting_loss(outputs.pha, outputs.fgr, outputs.err, *truth)

    # ---- What works beside the loop -------------------------------------------------------------

    journal = open_journal(run, data, start)
    optimizer = run.guard(state)
    checkpointer = run.enter(Checkpointer(run, state, data, start, journal, optimizer.flush))
    validator = Validator(run, state, data, losses, journal)
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
            journal.train_losses(
                step, optimizer.terms, optimizer.learning_rates(), **optimizer.numbers()
            )
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
