"""The judge in this process, with real small language models."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.annotators.config import AnnotatorConfig
from alpaca_farm_core.annotators.factory import annotator_external, build_annotator, calls_per_pair, check_annotator
from alpaca_farm_core.annotators.local import LocalJudge
from alpaca_farm_core.annotators.spec import load_spec
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.data.prompts import load_template
from alpaca_farm_core.errors import ConfigError, ModelError
from alpaca_farm_core.models.nano import train_nano_tokenizer
from alpaca_farm_core.types import Instruction, Pair
from tests.annotators.parts import make_pairs

SENTENCES = [Instruction("Compare two answers.", "", "Output (a) is better than output (b).")] * 8
EXECUTION = ExecutionConfig(device="cpu", micro_batch_tokens=4096)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small Llama with random weights, saved as a folder."""
    from transformers import LlamaConfig, LlamaForCausalLM

    root = tmp_path_factory.mktemp("judge")
    tokenizer = train_nano_tokenizer(SENTENCES, load_template("plain"), 320, 2048)
    torch.manual_seed(1)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=1024, initializer_range=0.3,
            pad_token_id=tokenizer.pad_token_id, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        )
    )  # fmt: skip
    model.save_pretrained(root)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(root)
    return root


def build(folder, calls, **settings):
    return build_annotator(AnnotatorConfig(name="local", model=str(folder), seed=0, **settings), calls, EXECUTION)


def share_of_first(folder, pair):
    """p(a) / (p(a) + p(b)), by the model's own forward pass, one answer at a time, nothing padded."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    messages = load_spec("local").prompt_for(pair).render([pair])
    prompt = tokenizer("\n\n".join(m["content"] for m in messages) + "\n\n")["input_ids"]
    totals = []
    for answer in ("(a)", "(b)"):
        ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logprobs = model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
        totals.append(sum(float(logprobs[len(prompt) + k - 1, token]) for k, token in enumerate(ids)))
    a, b = torch.tensor(totals).softmax(0).tolist()
    return a / (a + b)


def test_the_label_weighs_the_answers_by_their_probability(folder, tmp_path):
    pairs = [*make_pairs(5), Pair("Rewrite it.", "a longer input than others have", "short", "not so short")]
    annotator = build(folder, tmp_path)
    annotations = annotator.annotate(pairs)
    for pair, annotation in zip(pairs, annotations, strict=True):
        shown = (
            pair
            if annotator.shown_first(pair) == 1
            else Pair(pair.instruction, pair.input, pair.output_2, pair.output_1)
        )
        assert annotation.passport.prefers_first == pytest.approx(share_of_first(folder, shown), abs=1e-5)
    assert len({round(a.preference, 4) for a in annotations}) > 3


def test_batches_do_not_change_a_label_beyond_rounding(folder, tmp_path):
    pairs = make_pairs(12)
    labels = []
    for tokens in (1, 4096):
        execution = EXECUTION.model_copy(update={"micro_batch_tokens": tokens})
        config = AnnotatorConfig(name="local", model=str(folder), seed=0)
        labels.append(
            [a.preference for a in build_annotator(config, tmp_path / str(tokens), execution).annotate(pairs)]
        )
    assert labels[0] == pytest.approx(labels[1], abs=1e-5)


def test_answers_are_kept_and_free(folder, tmp_path):
    pairs = make_pairs(4)
    first = build(folder, tmp_path)
    annotations = first.annotate(pairs)
    again = build(folder, tmp_path)
    again._judge = None  # nobody is asked
    assert again.annotate(pairs) == annotations
    assert {a.passport.price_usd for a in annotations} == {0.0}
    assert calls_per_pair(AnnotatorConfig(name="local", model=str(folder))) == 0


def test_other_weights_are_another_judge(folder, tmp_path):
    import shutil

    copied = tmp_path / "copy"
    shutil.copytree(folder, copied)
    config = AnnotatorConfig(name="local", model=str(copied))
    before = annotator_external(config)
    model = AutoModelForCausalLM.from_pretrained(copied)
    model.get_output_embeddings().weight.data += 1.0
    model.save_pretrained(copied)
    assert annotator_external(config)["judge_model"] != before["judge_model"]
    assert annotator_external(config)["annotator"] == before["annotator"]


def test_a_prompt_too_long_for_the_model_fails_alone(folder, tmp_path):
    pairs = [*make_pairs(2), Pair("Too long.", "", "word " * 2000, "short")]
    annotations = build(folder, tmp_path).annotate(pairs)
    assert [a.state for a in annotations] == ["ok", "ok", "failed"]
    assert "more than the 1024 tokens" in annotations[2].explanation
    assert len(CallCache(tmp_path)) == 2


def test_both_orders_and_pools_of_one_process(folder, tmp_path):
    annotations = build(folder, tmp_path, both_orders=True).annotate(make_pairs(3))
    assert {a.passport.order for a in annotations} == {"both"}


def test_what_cannot_judge_is_named(folder, tmp_path):
    with pytest.raises(ModelError, match="nano model is made fresh"):
        check_annotator(AnnotatorConfig(name="local", model="meadow-nano"), EXECUTION)
    with pytest.raises(ModelError, match="There is no model folder"):
        check_annotator(AnnotatorConfig(name="local", model=str(tmp_path / "nowhere")), EXECUTION)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "p.txt").write_text("{instruction}\n{output_1}\n{output_2}\n")
    settings = "mine:\n  prompt_template: mine/p.txt\n  fn_completions: local_logprobs\n  completions_kwargs: {%s}\n"
    settings += "  completion_parser_kwargs: {outputs_to_match: {1: a, 2: b}}\n"
    for options, words in (
        (f"model_name: '{folder}'", "needs the answers to compare"),
        (f"model_name: '{folder}', answers: [a, b], dtype: int8", "dtype 'int8'"),
        (f"model_name: '{folder}', answers: [a, b], top_p: 1", "no option 'top_p'"),
    ):
        (mine / "configs.yaml").write_text(settings % options)
        judge = build_annotator(AnnotatorConfig(name=str(mine)), tmp_path / "calls", EXECUTION)
        assert isinstance(judge._judge, LocalJudge)
        with pytest.raises(ConfigError, match=words):
            judge.annotate(make_pairs(1))
