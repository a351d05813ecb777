"""Callbacks of reinforcement learning: a progress bar with the scores, and a budget of generated tokens."""

from __future__ import annotations

from tqdm import tqdm
from transformers import TrainerCallback


class Progress(TrainerCallback):
    """A bar of the steps, with the sampled PDM score of every turn in the last step."""

    def on_train_begin(self, args, state, control, **kwargs):
        """Open the bar at the step that the run resumes from."""
        self._bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc="rl",
            unit="step",
            disable=not state.is_local_process_zero,
        )

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Move the bar and show the scores."""
        scores = [f"{value:.2f}" for name, value in (logs or {}).items() if name.startswith("pdms/")]
        self._bar.set_postfix_str("PDMS by turn " + " ".join(scores) if scores else "", refresh=False)
        self._bar.update(state.global_step - self._bar.n)

    def on_train_end(self, args, state, control, **kwargs):
        """Close the bar."""
        self._bar.close()


class TokenBudget(TrainerCallback):
    """Ends training, with a checkpoint, after the step in which the budget is used up.

    tokens: generated tokens over all steps and processes.
    """

    def __init__(self, tokens: int):
        self.tokens = tokens

    def on_train_begin(self, args, state, control, **kwargs):
        """Stop a resumed run whose budget is used up."""
        control.should_training_stop |= self._is_reached(state)

    def on_step_end(self, args, state, control, **kwargs):
        """Stop and save once the budget is used up."""
        if self._is_reached(state):
            control.should_training_stop = control.should_save = True

    def _is_reached(self, state) -> bool:
        return state.num_input_tokens_seen >= self.tokens
