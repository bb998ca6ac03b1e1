"""Annotation files made up for tests: models with known length taste, difficulty and strength."""

import csv
import json
import math
import random


def logistic(x):
    return 1 / (1 + math.exp(-x))


def write_json(path, rows):
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def write_csv(path, header, rows):
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def row(preference, model="ppo", instruction="Say hi.", output="hi", **more):
    outputs = {"output_1": "hello", "output_2": output, "generator_1": "sft", "generator_2": model}
    return {"instruction": instruction, "preference": preference, "annotator": "judge", **outputs, **more}


def made_up(n, model="ppo", length=-0.8, strength=0.4, difficulty=1.0, seed=0, soft=True, longer=150):
    """Rows of one model, and γ by instruction.

    `soft` preferences are the chances themselves; otherwise 1 or 2 is drawn.
    """
    rng = random.Random(f"{model} {seed}")
    gammas = {f"Instruction {i}": random.Random(f"γ {seed} {i}").gauss(0, 1) for i in range(n)}
    lengths = [(rng.randint(50, 400), rng.randint(50, 400 + longer)) for _ in range(n)]
    differences = [a - b for a, b in lengths]
    mean = sum(differences) / n
    sd = math.sqrt(sum((d - mean) ** 2 for d in differences) / (n - 1))
    rows = []
    for (instruction, gamma), (first, second), difference in zip(gammas.items(), lengths, differences, strict=True):
        chance = logistic(length * math.tanh(difference / sd) + difficulty * gamma + strength)
        preference = 1 + chance if soft else 1 + (rng.random() < chance)
        rows.append(row(preference, model, instruction, "m" * second, output_1="b" * first, dataset="made up"))
    return rows, gammas


def gamed_table(gammas, length=-1.5, seed=0):
    """df_gamed's rows: a longer and a shorter baseline against the plain one."""
    rng = random.Random(f"gamed {seed}")
    table = []
    for name, shift in (("verbose", -1.0), ("concise", 1.0)):
        for index, gamma in enumerate(gammas.values()):
            feature = shift + rng.gauss(0, 0.6)
            score = logistic(length * math.tanh(feature) + 0.1 * gamma + rng.gauss(0, 0.3))
            table.append([name, score, index, feature, gamma, False])
    return table


GAMED_HEADER = ["model", "preference", "index", "std_delta_len", "instruction_difficulty", "not_gamed_baseline"]
