"""TRL's side of the training tables, as a command: JOB.json → one line of JSON.

Runs under the interpreter of an environment with TRL; knows nothing of this project. The seconds are those of the
optimiser steps (from the beginning of training, of PPO and RLOO from the end of the first steps, to the end of the
last step): loading, tokenising, reference log-probabilities made in advance and saving are not in them. Job settings
that begin with `trl_` are TRL's own.
Sampled answers end after the job's `lengths`.
"""

import json
import sys
import time
from itertools import islice
from pathlib import Path

import psutil
import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    StoppingCriteria,
    StoppingCriteriaList,
    TrainerCallback,
)
from transformers.trainer_pt_utils import LengthGroupedSampler


class Clock(TrainerCallback):
    """When training (or the last of `steps_before`) began and its last step ended; the losses."""

    def __init__(self, steps_before=0):
        self.seconds = self.cpu_seconds = 0.0
        self.losses, self._left = [], steps_before

    def on_train_begin(self, *args, **kwargs):
        self.began = time.perf_counter(), time.process_time()

    def on_step_end(self, *args, **kwargs):
        self.seconds = time.perf_counter() - self.began[0]
        self.cpu_seconds = time.process_time() - self.began[1]
        if self._left:
            self._left -= 1
            self.began = time.perf_counter(), time.process_time()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))


def common(job):
    """Settings of all trainers: one epoch, nothing evaluated, saved or reported; best speed, not least memory."""
    return {
        "output_dir": job["folder"], "report_to": [], "use_cpu": True, "seed": 0, "learning_rate": 1e-5,
        "lr_scheduler_type": "constant", "warmup_steps": 0, "num_train_epochs": 1, "save_strategy": "no",
        "bf16": job["precision"] == "bfloat16", "fp16": False, "gradient_checkpointing": False, "disable_tqdm": True,
        "per_device_train_batch_size": job["micro_batch"], "optim": "adamw_torch_fused",
        "gradient_accumulation_steps": job["batch"] // job["micro_batch"], "logging_steps": 1,
        "dataloader_pin_memory": False, "max_grad_norm": 1.0,
        **{name.removeprefix("trl_"): value for name, value in job.items() if name.startswith("trl_")},
    }  # fmt: skip


def columns(job):
    rows = json.loads((Path(job["world"]) / "rows.json").read_text())
    return [rows[name][: job["rows"]] for name in ("prompts", "responses", "others")]


def pairs(job):
    """(prompt, chosen, rejected); the first answer is chosen in every other row."""
    for number, (prompt, first, second) in enumerate(zip(*columns(job), strict=True)):
        yield (prompt, second, first) if number % 2 else (prompt, first, second)


def policy(job):
    return AutoModelForCausalLM.from_pretrained(Path(job["world"]) / "endless", dtype=torch.float32)


def classifier(job):
    return AutoModelForSequenceClassification.from_pretrained(Path(job["world"]) / "reward", dtype=torch.float32)


def sft(job, tokenizer):
    from trl import SFTConfig, SFTTrainer

    rows = [
        {
            "input_ids": prompt + response,
            "completion_mask": [0] * len(prompt) + [1] * len(response),
            "length": len(prompt) + len(response),
        }
        for prompt, response, _ in zip(*columns(job), strict=True)
    ]
    limit = None if job.get("trl_padding_free") else 512
    args = SFTConfig(**{"max_length": limit, **common(job)}, completion_only_loss=True)
    return SFTTrainer(model=policy(job), args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)


def reward(job, tokenizer):
    from trl import RewardConfig, RewardTrainer

    rows = [
        {"chosen_ids": p + chosen, "rejected_ids": p + rejected, "length": max(len(chosen), len(rejected)) + len(p)}
        for p, chosen, rejected in pairs(job)
    ]
    args = RewardConfig(max_length=512, **common(job))
    trainer = RewardTrainer(
        model=classifier(job), args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    return told_lengths(trainer, rows)


def dpo(job, tokenizer):
    from trl import DPOConfig, DPOTrainer

    rows = [
        {
            "prompt_ids": p, "chosen_ids": chosen, "rejected_ids": rejected,
            "length": max(len(chosen), len(rejected)) + len(p),
        }
        for p, chosen, rejected in pairs(job)
    ]  # fmt: skip

    class Tokenised(DPOTrainer):
        """Takes rows that are token ids already."""

        def _prepare_dataset(self, dataset, *args, **kwargs):
            return dataset

    args = DPOConfig(max_length=512, beta=0.1, precompute_ref_log_probs=True, **common(job))
    trainer = Tokenised(model=policy(job), args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    return told_lengths(trainer, rows)


def told_lengths(trainer, rows):
    """Hand lengths over where rows are grouped by them: these trainers drop the column that they would be read from."""
    args, lengths = trainer.args, [row["length"] for row in rows]
    if args.train_sampling_strategy == "group_by_length":
        per_step = args.train_batch_size * args.gradient_accumulation_steps
        trainer._get_train_sampler = lambda *_: LengthGroupedSampler(per_step, lengths=lengths)
    return trainer


def ppo(job, tokenizer):
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    tokenizer.padding_side = "left"
    rows = [{"input_ids": prompt} for prompt in columns(job)[0]]
    settings = common(job)
    for name in ("num_train_epochs", "logging_steps"):
        settings.pop(name)
    settings |= {
        "gradient_accumulation_steps": job["episodes"] // job["micro_batch"], "learning_rate": 1e-6,
        "total_episodes": job["episodes"] * job["steps"], "response_length": job["max_new_tokens"],
        "stop_token": "eos", "temperature": 1.0, "num_ppo_epochs": job["epochs"], "num_mini_batches": 1,
        "local_rollout_forward_batch_size": job["rollout_micro_batch"], "kl_coef": 0.05, "num_sample_generations": 0,
        "logging_steps": 1,
    }  # fmt: skip
    return PPOTrainer(
        args=PPOConfig(**settings),
        processing_class=tokenizer,
        model=policy(job),
        ref_model=policy(job),
        reward_model=classifier(job),
        value_model=classifier(job),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows[:8]),
    )


def rloo(job, tokenizer):
    from trl import RLOOConfig, RLOOTrainer

    tokenizer.padding_side = "left"
    ids_of = {tokenizer.decode(ids): ids for ids in columns(job)[0]}

    class Tokenised(RLOOTrainer):
        """Takes the prompts' token ids as they are."""

        def _tokenize_prompts(self, prompts):
            return [ids_of[prompt] for prompt in prompts], None, {}

    args = RLOOConfig(
        **common(job)
        | {
            "gradient_accumulation_steps": job["episodes"] // job["micro_batch"], "learning_rate": 1e-6,
            "max_steps": job["steps"], "max_completion_length": job["max_new_tokens"], "temperature": 1.0, "beta": 0.05,
            "num_generations": job["group"], "num_iterations": job["epochs"],
        }
    )  # fmt: skip
    return Tokenised(
        model=policy(job),
        reward_funcs=classifier(job),
        reward_processing_classes=tokenizer,
        args=args,
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in ids_of]),
        processing_class=tokenizer,
    )


class Ends(StoppingCriteria):
    """Each row of a batch ends after its own number of tokens."""

    def __init__(self, prompt_width, ends_B):
        self._width, self._ends_B = prompt_width, ends_B

    def __call__(self, input_ids, scores, **kwargs):
        """True at rows that are done."""
        return input_ids.shape[1] - self._width >= self._ends_B


def force_lengths(trainer, tokenizer, lengths):
    """End sampled answers after the next of `lengths` tokens each; returns lengths of answers and prompts, as sampled.

    The last token of an answer becomes EOS, and padding stands behind it, as if that EOS had been drawn: TRL sees
    nothing else. A padding token drawn before, which TRL would take for the end, becomes the prompt's last token.
    """
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    model, left = getattr(trainer, "policy_model", trainer.model), iter(lengths)
    generate, answers, prompts = model.generate, [], []

    def forced(*args, **kwargs):
        ids_BT = kwargs["input_ids"]
        ends_B = torch.tensor(list(islice(left, len(ids_BT))))
        ends = StoppingCriteriaList([Ends(ids_BT.shape[1], ends_B)])
        output = generate(*args, stopping_criteria=ends, **kwargs)
        new_BR = getattr(output, "sequences", output)[:, ids_BT.shape[1] :]  # a view
        assert new_BR.shape[1] == max(ends_B), "sampling ends with the longest row"
        after_BR = torch.arange(new_BR.shape[1]) - (ends_B[:, None] - 1)
        new_BR.copy_(new_BR.where(new_BR != pad, ids_BT[:, -1:]))
        new_BR[after_BR == 0], new_BR[after_BR > 0] = eos, pad
        answers.extend(row.index(eos) + 1 for row in new_BR.tolist())
        prompts.extend(kwargs["attention_mask"].sum(1).tolist())
        return output

    model.generate = forced
    return answers, prompts


def main(path):
    job = json.loads(Path(path).read_text())
    if job["kind"] == "ppo":
        import trl.experimental.ppo  # noqa: F401
    else:
        from trl import DPOTrainer, RewardTrainer, RLOOTrainer, SFTTrainer  # noqa: F401
    imports_mb = psutil.Process().memory_info().rss / 2**20
    tokenizer = AutoTokenizer.from_pretrained(Path(job["world"]) / "endless")
    trainer = {"sft": sft, "reward": reward, "dpo": dpo, "ppo": ppo, "rloo": rloo}[job["kind"]](job, tokenizer)
    samples = job["kind"] in ("ppo", "rloo")
    steps_before = job["steps"] - job["timed_steps"] if samples else 0
    clock = Clock(steps_before)
    trainer.add_callback(clock)
    answers, prompts = force_lengths(trainer, tokenizer, job["lengths"]) if samples else ([], [])
    trainer.train()
    answers, prompts = (sampled[steps_before * job.get("episodes", 0) :] for sampled in (answers, prompts))
    result = {
        "seconds": clock.seconds,
        "cpu_seconds": clock.cpu_seconds,
        "imports_mb": imports_mb,
        "state_mb": job["state_mb"],
        "losses": clock.losses,
    }
    if answers:
        result |= {
            "episodes_per_s": len(answers) / result["seconds"],
            "mean_length": sum(answers) / len(answers),
            "mean_prompt": sum(prompts) / len(prompts),
            "lengths": answers,
        }
    else:
        result["tokens_per_s"] = job["tokens"] / result["seconds"]
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
