"""What a resumed run takes over from its checkpoint, and what is its own."""

import warnings
from pathlib import Path

from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim import OptimWrapper, _ParamScheduler
from mmengine.optim.scheduler import ReduceOnPlateauParamScheduler
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmpretrain.registry import HOOKS

# What a scheduler changes as it goes; the rest of its state is how it was configured.
_PROGRESS = frozenset(
    (
        'last_step',
        '_global_step',
        '_last_value',
        'verbose',
        'best',
        'num_bad_epochs',
        'cooldown_counter',
    )
)


@HOOKS.register_module()
class ResumeHook(Hook):
    """Let a resumed run follow its own config, and touch no files but its own.

    - MMEngine takes schedulers over as they were stored, so that with more epochs the learning
      rate stays at its last value. Where the config's schedule, or another option of the
      optimizer, is not the stored one, it is followed from the epoch that was reached: with the
      values that a run of this config would have there. An unchanged config resumes to the bit.
    - MMEngine deletes the best checkpoint that it knows when there is a better one, wherever it
      lies. Of another folder's, only the file of that name in this run's own folder is taken over,
      where there is one; else the best of this run is the best of its own epochs.

    Raises:
        ValueError: On loading, if the config's schedule cannot be followed from there.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Change what MMEngine is about to take over.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What was loaded, changed in place.
        """
        if not runner._resume:
            return
        _forget_files_of_others(runner, checkpoint)
        if isinstance(runner.optim_wrapper, OptimWrapper):
            _follow_config(runner, checkpoint)


def _forget_files_of_others(runner: Runner, checkpoint: dict) -> None:
    hub = checkpoint['message_hub']
    info = hub.get('runtime_info', {})
    work_dir = Path(runner.work_dir).resolve()
    folders = [work_dir] + [
        Path(hook.out_dir).resolve() / work_dir.name
        for hook in runner.hooks
        if isinstance(hook, CheckpointHook) and hook.out_dir is not None
    ]
    for name in [name for name in info if name.startswith('best_ckpt')]:
        path = Path(info[name])
        if path.resolve().parent in folders:
            continue
        own = next((f / path.name for f in folders if (f / path.name).is_file()), None)
        if own is not None:
            info[name] = str(own)
            continue
        for key in (name, name.replace('best_ckpt', 'best_score', 1)):
            info.pop(key, None)
            hub.get('resumed_keys', {}).pop(key, None)
        runner.logger.warning(
            f'{path} stays as it is: the best checkpoint of this run will be the best of its own '
            f'epochs, in {work_dir}.'
        )


def _follow_config(runner: Runner, checkpoint: dict) -> None:
    """Replace stored schedulers and options by those of the config, where they differ."""
    schedulers: list[_ParamScheduler] = runner.param_schedulers or []
    stored = checkpoint.get('param_schedulers') or []
    groups = runner.optim_wrapper.param_groups
    optimizer = checkpoint.get('optimizer', {})
    stored_groups = [*optimizer.get('param_groups', ())]
    if 'base_param_settings' in optimizer:
        stored_groups.append(optimizer['base_param_settings'])
    same_schedule = [_settings(scheduler.state_dict()) for scheduler in schedulers] == [
        _settings(state) for state in stored
    ]
    if same_schedule and not _options_differ(groups, stored_groups, schedulers):
        return
    epoch = checkpoint['meta']['epoch']
    if not same_schedule:
        _check_schedulers(runner, schedulers, checkpoint['meta'])
    _replay(runner, schedulers, checkpoint['meta'])
    if schedulers:
        checkpoint['param_schedulers'] = [scheduler.state_dict() for scheduler in schedulers]
    for group, old in zip(groups, stored_groups):
        old.update({name: value for name, value in group.items() if name != 'params'})
    rates = sorted({f'{group["lr"]:.4g}' for group in groups})
    runner.logger.warning(
        'Schedule or optimizer of the config are not those of the checkpoint: the config is '
        f'followed from epoch {epoch + 1} on, with a learning rate of {" and ".join(rates)}.'
    )


def _replay(runner: Runner, schedulers: list[_ParamScheduler], meta: dict) -> None:
    """Bring fresh schedulers and the fresh optimizer's options to where the checkpoint is."""
    # As ParamSchedulerHook steps; a loop over iterations has no epochs.
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    length = meta['iter'] // meta['epoch'] if by_epoch and meta['epoch'] else None
    with warnings.catch_warnings():
        # Of steps of a scheduler without steps of the optimizer.
        warnings.simplefilter('ignore')
        for iteration in range(1, meta['iter'] + 1):
            ends_epoch = length is not None and iteration % length == 0
            for scheduler in schedulers:
                if not scheduler.by_epoch:
                    scheduler.step()
            for scheduler in schedulers:
                if scheduler.by_epoch and ends_epoch:
                    scheduler.step()


def _check_schedulers(runner: Runner, schedulers: list[_ParamScheduler], meta: dict) -> None:
    """Raise where nobody can say where in the config's schedule the checkpoint is."""
    epoch, length = meta['epoch'], len(runner.train_dataloader)
    for scheduler in schedulers:
        if isinstance(scheduler, ReduceOnPlateauParamScheduler):
            why = 'it depends on the scores of the epochs before'
        elif (
            not scheduler.by_epoch
            and isinstance(runner.train_loop, EpochBasedTrainLoop)
            and meta['iter'] != epoch * length
        ):
            why = (
                f'it counts iterations, of which that run had made {meta["iter"]} in {epoch} '
                f'epochs, and an epoch of this one has {length}'
            )
        else:
            continue
        raise ValueError(
            'The schedule of the config is not that of the checkpoint, and '
            f'{type(scheduler).__name__} cannot be followed from epoch {epoch + 1} on: {why}. '
            'Resume with the config of the checkpoint, or begin a training of its own from these '
            'weights: `--cfg-options load_from=CHECKPOINT` in the place of `--resume`.'
        )


def _settings(state: dict) -> dict:
    return {name: value for name, value in state.items() if name not in _PROGRESS}


def _options_differ(
    groups: list[dict], stored: list[dict], schedulers: list[_ParamScheduler]
) -> bool:
    """Whether an option of the optimizer, other than those that are scheduled, was changed."""
    scheduled = {'params'}.union(
        *({s.param_name, f'initial_{s.param_name}', 'betas'} for s in schedulers)
    )
    return any(
        group[name] != old[name]
        for group, old in zip(groups, stored)
        for name in group.keys() & old.keys() - scheduled
    )
